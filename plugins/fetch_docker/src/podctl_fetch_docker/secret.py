"""What a registry may be told about who asks."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Secret:
    """One registry's credentials; a representation shows none of them.

    Args:
        source: where they come from, for messages.
        user: for Basic, here or at the token service; empty where there is none.
        password: see `user`.
        identity_token: a refresh token of OAuth 2, exchanged for access tokens.
        registry_token: a Bearer token to be used as it is.
    """

    source: str
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
