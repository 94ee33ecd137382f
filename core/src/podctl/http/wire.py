"""Requests bound to our own connections: addresses checked, reads paced, TLS set once."""

from __future__ import annotations

import http.client  # noqa: TID253 - this module is imported by transport_preload
import ssl
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter  # noqa: TID253 - owns requests; imported in functions
from urllib3 import PoolManager, connection, connectionpool  # noqa: TID253 - as above
from urllib3.exceptions import NewConnectionError  # noqa: TID253 - as above

from podctl.errors import FetchFailed
from podctl.http.pace import Pace, PacedSocket, PacedTLSSocket
from podctl.http.reach import Reach, connect

if TYPE_CHECKING:
    import socket

    from podctl.http.limits import Limits

#: Debian's bundle; the other is where Fedora and its kin keep theirs.
CA_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")


class Wire:
    """What the connections of one client share; set anew before each request."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.pace = Pace(limits)
        self.reach: Reach | None = None
        self.first = True


class _Context(ssl.SSLContext):
    """Knows the host to expect also where urllib3 1.26 does not say it (addresses)."""

    def wrap_socket(self, sock: socket.socket, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        if kwargs.get("server_hostname") is None and isinstance(sock, PacedSocket):
            kwargs["server_hostname"] = sock.expected
        return super().wrap_socket(sock, *args, **kwargs)


@lru_cache(maxsize=8)
def tls_context(
    ca_file: str | None,
    *,
    verify: bool,
    more: str | None = None,
    client: tuple[str, str] | None = None,
) -> ssl.SSLContext:
    """Return the TLS settings: 1.2 or newer, the system's authorities unless `ca_file` is given.

    Args:
        more: further authorities, PEM.
        client: paths of a client certificate and its key, to be shown to whoever asks.

    Raises:
        FetchFailed: the authorities, certificate or key cannot be read.
    """
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = PacedTLSSocket
    context.set_alpn_protocols(["http/1.1"])
    if client is not None:
        _show(context, *client)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    path = ca_file or _system_bundle()
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or str(error)
        raise FetchFailed(
            f'certificate authorities "{path}" cannot be read: {reason}',
            hint="install the package ca-certificates",
        ) from None
    if more:
        context.load_verify_locations(cadata=more)
    return context


def _show(context: ssl.SSLContext, certificate: str, key: str) -> None:
    try:
        # An encrypted key would have OpenSSL ask for its password on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (OSError, ssl.SSLError, ValueError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or "no such key"
        raise FetchFailed(
            f'client certificate "{certificate}" with key "{key}" cannot be used: {reason}'
        ) from None


def _system_bundle() -> str:
    import os

    for path in CA_BUNDLES:
        if os.path.exists(path):
            return path
    import certifi

    return certifi.where()


class Adapter(HTTPAdapter):
    """Sends requests over connections made by `reach`, read at the speed `pace` demands."""

    def __init__(self, wire: Wire, context: ssl.SSLContext) -> None:
        self._wire = wire
        self._context = context
        super().__init__(pool_connections=4, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, connections: int, maxsize: int, **kwargs: Any) -> None:  # type: ignore[override]
        """See HTTPAdapter."""
        kwargs["ssl_context"] = self._context
        super().init_poolmanager(connections, maxsize, **kwargs)
        _use_pools(self.poolmanager, self._wire, proxied=False)

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> Any:
        """See HTTPAdapter."""
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, ssl_context=self._context, **kwargs)
        if not known:
            _use_pools(manager, self._wire, proxied=True)
        return manager

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Leave everything to the context: requests would load the authorities once more."""
        conn.cert_reqs = self._context.verify_mode
        conn.ca_certs = conn.ca_cert_dir = None


class _Response(http.client.HTTPResponse):
    """Refuses what http.client lets through: a negative chunk length makes it read to the end of
    the connection at once, into memory."""

    def _read_next_chunk_size(self) -> int:
        size = int(super()._read_next_chunk_size())  # type: ignore[misc]
        if size < 0:
            raise ValueError("negative chunk length")
        return size


def _use_pools(manager: PoolManager, wire: Wire, *, proxied: bool) -> None:
    class Plain(connection.HTTPConnection):
        response_class = _Response

        def _new_conn(self) -> Any:
            return _connect(self, wire, proxied=proxied)

    class Tls(connection.HTTPSConnection):
        response_class = _Response

        def _new_conn(self) -> Any:
            return _connect(self, wire, proxied=proxied)

        def connect(self) -> None:
            super().connect()
            # The handshake ran under the connect time-out; from here on the pace rules.
            if isinstance(self.sock, PacedTLSSocket):
                self.sock.pace = wire.pace

    class PlainPool(connectionpool.HTTPConnectionPool):
        ConnectionCls = Plain

    class TlsPool(connectionpool.HTTPSConnectionPool):
        ConnectionCls = Tls

    manager.pool_classes_by_scheme = {"http": PlainPool, "https": TlsPool}


def _connect(conn: Any, wire: Wire, *, proxied: bool) -> PacedSocket:
    reach = None if proxied else wire.reach
    host = conn._dns_host
    try:
        chosen, fd = connect(host, conn.port, wire.limits.connect, reach, first=wire.first)
    except OSError as error:
        raise NewConnectionError(conn, error.strerror or "no address answers") from error
    sock = PacedSocket(*chosen[:3], fileno=fd)
    sock.settimeout(wire.limits.connect)
    for option in conn.socket_options or ():
        sock.setsockopt(*option)
    sock.pace = wire.pace
    sock.expected = conn._tunnel_host or conn.host
    return sock
