"""How long and how much a transport puts up with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps on one conversation with servers; sizes in bytes, times in seconds.

    Args:
        connect: until a connection stands, name look-up excluded.
        header: from the request until the last header of the answer has arrived.
        idle: without a single byte.
        speed: least bytes per second of a body, measured over `window` seconds spent waiting.
        window: see `speed`.
        small: a small document (page, signature, key) has to be complete by then.
        redirects: followed at most.
        attempts: tries in a row without progress before a transfer is given up.
        interruptions: times one body may break off and be continued.
        pause: before the second try; doubled for each further one, up to `longest_pause`.
        longest_pause: see `pause`.
        patience: sum of all pauses of one operation; a server that asks for more is given up.
        challenges: times a request is repeated because the server asked for credentials.
    """

    connect: float = 20.0
    header: float = 60.0
    idle: float = 60.0
    speed: int = 1024
    window: float = 30.0
    small: float = 120.0
    redirects: int = 5
    attempts: int = 5
    interruptions: int = 100
    pause: float = 0.5
    longest_pause: float = 15.0
    patience: float = 120.0
    challenges: int = 2
