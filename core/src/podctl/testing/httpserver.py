"""A real HTTP and HTTPS server that misbehaves on demand, for tests and demonstrations.

    with Server({"/app.aci": Content(data), "/": Page(tags)}, identity=identity) as server:
        ... server.url("/app.aci") ...
        assert server.log[0].header("Authorization") is None

It runs in threads of the calling process, or by itself: `python -m podctl.testing.httpserver`.
A route is a Reply, or anything that makes one from a Request.
"""

from __future__ import annotations

import fcntl
import socket
import ssl
import struct
import termios
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from types import TracebackType

    from podctl.testing.certs import Identity

REASONS = {200: "OK", 202: "Accepted", 206: "Partial Content", 304: "Not Modified"}
#: Longest request head that is read, in bytes; the same for its body.
MAX_HEAD = 1 << 16
_TLS_HANDSHAKE = b"\x16\x03"


class Request(NamedTuple):
    """What a client sent."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    @property
    def path(self) -> str:
        """The target's path."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, list[str]]:
        """The target's query."""
        return parse_qs(urlsplit(self.target).query)

    def header(self, name: str) -> str | None:
        """The first header of a name, None without one."""
        return next((v for n, v in self.headers if n.lower() == name.lower()), None)


@dataclass(slots=True)
class Reply:
    """One answer, and how it is spoilt on the wire.

    Args:
        length: Content-Length to claim; None: the body's.
        framing: `length`, `chunked`, or `close` (the end of the connection ends the body).
        cut: close the connection after so many bytes of the body.
        reset: make that a TCP reset, or for TLS an end without close_notify.
        trickle: seconds between single bytes, head included.
        body_trickle: the same for the body alone.
        endless: repeat the body for ever.
        raw: bytes to send in place of everything.
        hold: wait until it is set before the body is sent.
        hold_at: send so many bytes of the body before that.
        held: set once they are sent.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: int | None = None
    framing: str = "length"
    cut: int | None = None
    reset: bool = False
    trickle: float | None = None
    body_trickle: float | None = None
    endless: bool = False
    raw: bytes | None = None
    hold: threading.Event | None = None
    hold_at: int = 0
    held: threading.Event | None = None


Handler = Callable[[Request], Reply]
Route = Reply | Handler


class Content:
    """A file as a careful server serves it: HEAD, If-None-Match, Range with If-Range.

    Args:
        etag: entity tag with its quotes; None for none.
        cuts: for each GET in turn, the byte of the body at which the connection is reset; GETs
            beyond the list are served whole.
        ranges: whether Range is understood.
    """

    def __init__(
        self,
        data: bytes,
        *,
        etag: str | None = '"v1"',
        last_modified: str | None = None,
        cache_control: str | None = None,
        cuts: Iterable[int] = (),
        ranges: bool = True,
    ) -> None:
        self.data = data
        self.etag = etag
        self.last_modified = last_modified
        self.cache_control = cache_control
        self.cuts = list(cuts)
        self.ranges = ranges

    def __call__(self, request: Request) -> Reply:
        headers = self._headers()
        if self.etag is not None and request.header("If-None-Match") == self.etag:
            return Reply(304, headers)
        reply = self._part(request, headers)
        if request.method == "GET" and self.cuts:
            reply.cut, reply.reset = self.cuts.pop(0), True
        return reply

    def _headers(self) -> dict[str, str]:
        named = {
            "ETag": self.etag,
            "Last-Modified": self.last_modified,
            "Cache-Control": self.cache_control,
            "Accept-Ranges": "bytes" if self.ranges else None,
        }
        return {name: value for name, value in named.items() if value is not None}

    def _part(self, request: Request, headers: dict[str, str]) -> Reply:
        wanted = request.header("Range")
        condition = request.header("If-Range")
        fresh = condition is None or condition in (self.etag, self.last_modified)
        if not self.ranges or wanted is None or not fresh:
            return Reply(200, headers, self.data)
        start = int(wanted.removeprefix("bytes=").partition("-")[0])
        total = len(self.data)
        if start >= total:
            return Reply(416, {**headers, "Content-Range": f"bytes */{total}"})
        span = f"bytes {start}-{total - 1}/{total}"
        return Reply(206, {**headers, "Content-Range": span}, self.data[start:])


class Sequence:
    """Routes taken in turn; the last one stays."""

    def __init__(self, *routes: Route) -> None:
        self._routes = list(routes)

    def __call__(self, request: Request) -> Reply:
        route = self._routes.pop(0) if len(self._routes) > 1 else self._routes[0]
        return answer(route, request)


class Protected:
    """A route behind an exact Authorization header; 401 without it."""

    def __init__(self, authorization: str, route: Route) -> None:
        self._authorization = authorization
        self._route = route

    def __call__(self, request: Request) -> Reply:
        if request.header("Authorization") != self._authorization:
            return Reply(401, {"WWW-Authenticate": 'Basic realm="test"'})
        return answer(self._route, request)


def redirect(location: str, status: int = 302) -> Reply:
    """Send the client elsewhere."""
    return Reply(status, {"Location": location, "Set-Cookie": "session=test; Path=/"})


def page(*tags: tuple[str, str], status: int = 200) -> Reply:
    """A discovery page with `meta` elements (name, content)."""
    lines = "".join(f'<meta name="{name}" content="{content}">\n' for name, content in tags)
    body = f"<!DOCTYPE html>\n<html><head>\n{lines}</head><body></body></html>\n"
    return Reply(status, {"Content-Type": "text/html"}, body.encode())


def answer(route: Route, request: Request) -> Reply:
    """Make a route's reply to a request."""
    return route if isinstance(route, Reply) else route(request)


class Server:
    """Serves routes by exact path on loopback; `""` answers every other path (404 without it).

    Args:
        identity: certificate for HTTPS; None serves plain HTTP.
        port: 0 takes a free one.
    """

    def __init__(
        self,
        routes: Mapping[str, Route] | None = None,
        *,
        identity: Identity | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.routes: dict[str, Route] = dict(routes or {})
        #: every request in the order of arrival
        self.log: list[Request] = []
        #: client addresses of the connections taken
        self.connections: list[Any] = []
        self._context = None if identity is None else identity.context()
        self._socket = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=64
        )
        self.host, self.port = host, self._socket.getsockname()[1]
        self._closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def scheme(self) -> str:
        """`https` or `http`."""
        return "http" if self._context is None else "https"

    def url(self, path: str = "/", name: str | None = None) -> str:
        """The URL of a path, under another host name if `name` is given."""
        host = name or (f"[{self.host}]" if ":" in self.host else self.host)
        return f"{self.scheme}://{host}:{self.port}{path}"

    def requests(self, path: str) -> list[Request]:
        """The requests for one path."""
        return [request for request in self.log if request.path == path]

    def close(self) -> None:
        """Stop serving; breaks what is under way."""
        self._closing.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._acceptor.join()
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, peer = self._socket.accept()
            except OSError:
                return
            self.connections.append(peer)
            self._open.add(client)
            thread = threading.Thread(target=self._converse, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _converse(self, plain: socket.socket) -> None:
        client = plain
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                client = self._context.wrap_socket(plain, server_side=True)
                self._open.add(client)
            waiting = b""
            while not self._closing.is_set():
                request, waiting = _read_request(client, waiting)
                if request is None:
                    break
                self.log.append(request)
                reply = self._reply(request)
                if not _Writer(client, self._closing).send(request, reply):
                    return
            _close_politely(client)
        except (OSError, ValueError):
            # The client went away or speaks no HTTP: tests look at the client's side.
            return
        finally:
            self._open -= {plain, client}
            client.close()
            plain.close()

    def _reply(self, request: Request) -> Reply:
        route = self.routes.get(request.path, self.routes.get(""))
        return Reply(404) if route is None else answer(route, request)


class _Writer:
    """Sends one reply, as spoilt as it asks to be."""

    def __init__(self, client: socket.socket, closing: threading.Event) -> None:
        self._client = client
        self._closing = closing

    def send(self, request: Request, reply: Reply) -> bool:
        """Return whether the connection may serve another request."""
        if reply.raw is not None:
            self._put(reply.raw, reply.trickle)
            _close_politely(self._client)
            return False
        self._put(self._head(reply), reply.trickle)
        if reply.hold is not None:
            self._put(reply.body[: reply.hold_at], None)
            if reply.held is not None:
                reply.held.set()
            while not reply.hold.wait(0.2):
                # A test that failed may never say so.
                if self._closing.is_set():
                    return False
        if request.method == "HEAD" or reply.status in (204, 304):
            return True
        self._body(reply)
        complete = reply.cut is None and reply.length in (None, len(reply.body))
        if reply.framing != "close" and complete:
            return True
        if reply.reset:
            _reset(self._client)
        else:
            _close_politely(self._client)
        return False

    def _head(self, reply: Reply) -> bytes:
        lines = [f"HTTP/1.1 {reply.status} {REASONS.get(reply.status, 'Status')}"]
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        if reply.framing == "chunked":
            lines.append("Transfer-Encoding: chunked")
        elif reply.framing == "length" and reply.status not in (204, 304):
            length = len(reply.body) if reply.length is None else reply.length
            lines.append(f"Content-Length: {length}")
        else:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _body(self, reply: Reply) -> None:
        body = reply.body[reply.hold_at : reply.cut]
        pause = reply.trickle or reply.body_trickle
        while True:
            if reply.framing == "chunked":
                self._put(b"%x\r\n%s\r\n" % (len(body), body) if body else b"", pause)
            else:
                self._put(body, pause)
            if not reply.endless:
                break
        if reply.framing == "chunked" and reply.cut is None:
            self._put(b"0\r\n\r\n", pause)

    def _put(self, data: bytes, pause: float | None) -> None:
        if pause is None:
            self._client.sendall(data)
            return
        for byte in data:
            if self._closing.wait(pause):
                raise ConnectionAbortedError
            self._client.sendall(bytes((byte,)))


def _read_request(client: socket.socket, waiting: bytes) -> tuple[Request | None, bytes]:
    while b"\r\n\r\n" not in waiting:
        data = client.recv(MAX_HEAD)
        if not data or len(waiting) > MAX_HEAD:
            return None, b""
        waiting += data
        if waiting.startswith(_TLS_HANDSHAKE) and not isinstance(client, ssl.SSLSocket):
            # As Go's server does: who speaks TLS to a plain port is told at once.
            client.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            return None, b""
    head, _, rest = waiting.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = tuple((n, v.strip()) for n, _, v in (line.partition(":") for line in lines))
    request = Request(method, target, headers)
    length = min(int(request.header("Content-Length") or 0), MAX_HEAD)
    while len(rest) < length:
        data = client.recv(length - len(rest))
        if not data:
            return None, b""
        rest += data
    return request._replace(body=rest[:length]), rest[length:]


def _reset(client: socket.socket) -> None:
    """Reset the connection, but not before the other side has got everything sent so far."""
    unsent = array("i", [1])
    while unsent[0]:
        time.sleep(0.001)
        fcntl.ioctl(client.fileno(), termios.TIOCOUTQ, unsent)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def _close_politely(client: socket.socket) -> None:
    """Announce the end of a TLS connection; a plain one announces it by itself."""
    unwrap = getattr(client, "unwrap", None)
    if unwrap is not None:
        client.settimeout(1)
        with suppress(OSError, ValueError):
            unwrap()


@contextmanager
def names_at(names: Mapping[tuple[str, int], tuple[str, int]]) -> Iterator[None]:
    """Let this process find host names elsewhere: (name, port) -> (address, port).

    Discovery asks port 443 of a public name; this is how a test answers there. Other look-ups
    work as ever.
    """
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        address, number = names.get((str(host), int(port or 0)), (host, port))
        return real(address, number, *args, **kwargs)

    socket.getaddrinfo = look_up
    try:
        yield
    finally:
        socket.getaddrinfo = real


def directory_routes(directory: str, discovery: Iterable[tuple[str, str]]) -> dict[str, Route]:
    """Serve the files of a directory, and a discovery page to whoever asks with ?ac-discovery=1."""
    from pathlib import Path

    root = Path(directory).resolve()
    tags = tuple(discovery)

    def serve(request: Request) -> Reply:
        if request.query.get("ac-discovery") == ["1"]:
            return page(*tags)
        path = (root / request.path.lstrip("/")).resolve()
        if root not in path.parents or not path.is_file():
            return Reply(404)
        status = path.stat()
        return Content(path.read_bytes(), etag=f'"{status.st_mtime_ns:x}-{status.st_size:x}"')(
            request
        )

    return {"": serve}


def main(arguments: list[str] | None = None) -> None:
    """Serve a directory until killed; prints the port on standard output once it is open."""
    import argparse
    from pathlib import Path

    from podctl.testing.certs import Identity

    parser = argparse.ArgumentParser(prog="python -m podctl.testing.httpserver")
    parser.add_argument("directory")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--certificate", help="PEM file; with --key serves HTTPS")
    parser.add_argument("--key")
    parser.add_argument("--meta", nargs=2, action="append", default=[], metavar=("NAME", "CONTENT"))
    options = parser.parse_args(arguments)
    identity = None
    if options.certificate:
        files = (Path(options.certificate), Path(options.key or options.certificate))
        identity = Identity(*(file.read_bytes() for file in files))
    routes = directory_routes(options.directory, [tuple(pair) for pair in options.meta])
    with Server(routes, identity=identity, port=options.port) as server:
        print(server.port, flush=True)
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
