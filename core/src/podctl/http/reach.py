"""Connections, and which addresses a server elsewhere may make us talk to."""

from __future__ import annotations

import errno
import select
import socket
import time
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

from podctl.errors import FetchFailed

if TYPE_CHECKING:
    from typing import Any

    Address = IPv4Address | IPv6Address
    #: family, type, protocol, socket address: one answer of getaddrinfo
    Candidate = tuple[int, int, int, Any]

ELSEWHERE = "elsewhere"
LOOPBACK = "loopback"
LINK_LOCAL = "link-local"

#: Cloud metadata services that are not at a link-local address.
_METADATA = frozenset(
    map(ip_address, ("fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16"))
)
_NAT64 = ip_network("64:ff9b::/96")
#: RFC 8305 section 5: the next address is tried this many seconds after the one before.
_STAGGER = 0.25


class Reach:
    """What one chain of requests may connect to.

    The first host is the user's choice, wherever it is. Hosts that a server then names (by a
    redirect or a discovery page) must not be nearer to us than it: a site elsewhere has no
    business with our loopback interface or a cloud's metadata service (SSRF).
    """

    def __init__(self) -> None:
        self._origin: str | None = None

    def note(self) -> str:
        """Return where the chain began, for a process that continues it."""
        return self._origin or ELSEWHERE

    def restore(self, note: str | None) -> bool:
        """Continue a chain from its note; None begins a new one. Returns whether it continues."""
        if note is not None:
            self._origin = note
        return note is not None

    def check_host(self, host: str, *, first: bool) -> None:
        """Judge a host by its text alone: all there is to judge when a proxy connects for us.

        Raises:
            FetchFailed: it is a nearer address.
        """
        place = _place_of_text(host)
        if first:
            self._origin = self._origin or place
        elif place not in (ELSEWHERE, self._origin):
            raise _refuse(host, place)

    def choose(self, host: str, found: list[Candidate], *, first: bool) -> list[Candidate]:
        """Return the addresses of `host` that may be connected to.

        Raises:
            FetchFailed: none is left.
        """
        if first:
            return found
        allowed = [one for one in found if _place(one[3][0]) in (ELSEWHERE, self._origin)]
        if not allowed:
            raise _refuse(host, _place(found[0][3][0]))
        return allowed

    def connected(self, address: str, *, first: bool) -> None:
        """Note where the chain began."""
        if first and self._origin is None:
            self._origin = _place(address)


def connect(
    host: str, port: int, timeout: float, reach: Reach | None, *, first: bool
) -> tuple[Candidate, int]:
    """Connect to the first address of `host` that answers; return it and the descriptor.

    Addresses are tried side by side with a head start for the earlier (RFC 8305), so that a dead
    one costs a quarter of a second. The address checked is the address connected to: a name that
    changes its answer in between gains nothing.

    Args:
        reach: limits the choice; None does not (a proxy the administrator has set).

    Raises:
        FetchFailed: no address is allowed, or the name does not resolve.
        OSError: no address answers.
    """
    try:
        answers = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else "malformed name"
        raise FetchFailed(f"cannot resolve host {host}: {reason}") from None
    found = _interleave([(family, kind, proto, addr) for family, kind, proto, _, addr in answers])
    if reach is not None:
        found = reach.choose(host, found, first=first)
    chosen, sock = _race(found, timeout)
    if reach is not None:
        reach.connected(chosen[3][0], first=first)
    return chosen, sock.detach()


def _interleave(found: list[Candidate]) -> list[Candidate]:
    """Alternate address families, beginning with the resolver's first."""
    first = [one for one in found if one[0] == found[0][0]]
    others = [one for one in found if one[0] != found[0][0]]
    mixed = []
    while first or others:
        mixed += first[:1] + others[:1]
        first, others = first[1:], others[1:]
    return mixed


def _race(found: list[Candidate], timeout: float) -> tuple[Candidate, socket.socket]:
    deadline = time.monotonic() + timeout
    waiting = list(found)
    trying: dict[int, tuple[Candidate, socket.socket]] = {}
    failure: OSError = TimeoutError(errno.ETIMEDOUT, "no address answered in time")
    poller = select.poll()
    try:
        while waiting or trying:
            if waiting:
                failure = _start(waiting.pop(0), trying, poller) or failure
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(errno.ETIMEDOUT, "no address answered in time")
            pause = min(left, _STAGGER) if waiting else left
            if not trying:
                continue
            for fd, _ in poller.poll(pause * 1000):
                candidate, sock = trying.pop(fd)
                poller.unregister(fd)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code == 0:
                    sock.setblocking(True)
                    return candidate, sock
                sock.close()
                failure = OSError(code, _strerror(code))
        raise failure
    finally:
        for _, sock in trying.values():
            sock.close()


def _start(
    candidate: Candidate,
    trying: dict[int, tuple[Candidate, socket.socket]],
    poller: select.poll,
) -> OSError | None:
    try:
        sock = socket.socket(*candidate[:3])
    except OSError as error:
        return error
    sock.setblocking(False)
    code = sock.connect_ex(candidate[3])
    if code not in (0, errno.EINPROGRESS):
        sock.close()
        return OSError(code, _strerror(code))
    trying[sock.fileno()] = candidate, sock
    poller.register(sock, select.POLLOUT)
    return None


def _strerror(code: int) -> str:
    import os

    return os.strerror(code)


def _place_of_text(host: str) -> str:
    if host == "localhost" or host.endswith(".localhost"):
        return LOOPBACK
    try:
        # Also the forms a resolver still takes for IPv4: 2130706433, 0x7f.1, 127.1.
        return _place(socket.inet_ntoa(socket.inet_aton(host)))
    except OSError:
        pass
    try:
        return _place(host)
    except ValueError:
        return ELSEWHERE


def _place(text: str) -> str:
    address = _embedded(ip_address(text.partition("%")[0]))
    if address.is_loopback or address.is_unspecified:
        # Linux takes a connection to 0.0.0.0 to mean this host.
        return LOOPBACK
    if address.is_link_local or address.is_multicast or address in _METADATA:
        return LINK_LOCAL
    return ELSEWHERE


def _embedded(address: Address) -> Address:
    """The IPv4 address an IPv6 address stands for, or the address itself."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        return inner or address
    return address


def _refuse(host: str, place: str) -> FetchFailed:
    return FetchFailed(
        f"a server points to {host}, a {place} address: refused",
        hint="name that address yourself if it is meant",
    )
