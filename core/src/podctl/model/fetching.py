"""What passes between core and a transport: the request, what it resolved to, what arrived.

The values cross a process boundary (a transport works in a child without privileges), so each
knows how to become JSON and back; nothing read back from the child is trusted beyond its type.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Credential:
    """One entry of the `auth` configuration kind.

    Args:
        domain: host or host:port it is for; never sent anywhere else.
        kind: `basic`, `oauth` or `aws`.
        fields: the credentials object of the file (`user`/`password`, `token`, ...).
    """

    domain: str
    kind: str
    fields: dict[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class CacheState:
    """What an earlier download of the same location left for conditional and range requests."""

    etag: str | None = None
    last_modified: str | None = None


def say_nothing(line: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """All a transport may know. `insecure` holds the values of --insecure-options.

    `proxies` maps `http`, `https` to the proxy's URL and `no_proxy` to a comma-separated list.
    `ca_file` replaces the system's certificate authorities; it must be readable by everybody.
    Without `want_signature` nothing looks for one (it is given by the user, or not asked for).
    """

    credentials: tuple[Credential, ...] = ()
    insecure: frozenset[str] = frozenset()
    # A proxy's URL may hold its password.
    proxies: dict[str, str] = field(default_factory=dict, repr=False)
    ca_file: str | None = None
    user_agent: str = "podctl"
    want_signature: bool = True
    max_bytes: int = 16 << 30
    #: entries of the `dockerAuth` kind.
    registry_credentials: tuple[Credential, ...] = ()
    #: what the transport itself read from this host's configuration (transport_configure).
    settings: object = field(default=None, repr=False)
    #: the image record we already hold came with this; a transport may answer not_modified.
    cached: CacheState = field(default_factory=CacheState)
    #: prints one line of what is odd but no failure; for transport_configure.
    say: Callable[[str], None] = field(default=say_nothing, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class LocalImage:
    """An image that is a file here, opened with the caller's privileges.

    Args:
        fd: read-only descriptor of a regular file; the receiver closes it.
        path: the path as given, for messages.
        signature: bytes of the detached signature beside it; None where there is none or none
            was wanted.
        signature_path: where the signature is, or was looked for.
    """

    fd: int
    path: str
    signature: bytes | None
    signature_path: str


@dataclass(frozen=True, slots=True)
class KeyLocation:
    """A public key announced by discovery: the prefix it claims to sign for, and its URL."""

    prefix: str
    url: str


@dataclass(frozen=True, slots=True)
class Resolution:
    """Where an image is, before a byte of it is downloaded.

    `location` is the canonical URL of the image; `signature` the detached signature if it was
    there already; `signature_deferred` that the server asked us to come again after the image.
    `context` is the transport's note to itself, handed back as it is. `document` is the image
    document of a layered image (podctl.model.imagedocument): its layers are then asked for one by
    one, `transport_download` is not called, and `signature` is the set of signatures found.
    """

    format: str
    location: str
    name: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    latest: bool = False
    signature: bytes | None = None
    signature_location: str | None = None
    signature_deferred: bool = False
    not_modified: bool = False
    etag: str | None = None
    max_age: int = 0
    context: str | None = None
    document: bytes | None = None


@dataclass(frozen=True, slots=True)
class Resume:
    """A partial download: its length in bytes and the validators that came with it."""

    offset: int
    state: CacheState


@dataclass(frozen=True, slots=True)
class Downloaded:
    """What the transport says of a finished body; core checks the length itself."""

    size: int
    state: CacheState
    max_age: int = 0


class Sink(Protocol):
    """Where a transport writes the bytes of one body, in order."""

    def begin(self, offset: int, total: int | None, state: CacheState) -> None:
        """Announce the first byte's offset (0, or exactly the resume offset) and the total."""

    def write(self, data: bytes) -> None:
        """Append bytes; raises when the reader is gone or the cap is passed."""
