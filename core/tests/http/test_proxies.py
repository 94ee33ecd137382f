"""Proxies: explicit ones, by CONNECT for https; their passwords stay with them (row R16)."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from podctl.errors import FetchFailed, UsageError
from podctl.http.proxies import proxy_for
from podctl.http.urls import parse
from podctl.testing.httpserver import Reply, redirect

if TYPE_CHECKING:
    from collections.abc import Iterator


class Tunnel:
    """A proxy that carries every CONNECT to one address, and notes the requests' heads."""

    def __init__(self, target: tuple[str, int], status: str = "200 OK") -> None:
        self.heads: list[str] = []
        self._target, self._status = target, status
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop, and end all tunnels."""
        for one in (self._listener, *self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                head = b""
                while b"\r\n\r\n" not in head:
                    head += client.recv(4096)
                self.heads.append(head.decode())
                client.sendall(f"HTTP/1.1 {self._status}\r\n\r\n".encode())
                if not self._status.startswith("200"):
                    client.close()
                    continue
                server = socket.create_connection(self._target)
                self._sockets.append(server)
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=_pump, args=pair, daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def tunnel(serve: Any) -> Iterator[Any]:
    """Start a tunnel to a server."""
    open_ones: list[Tunnel] = []

    def start(server: Any, *status: str) -> Tunnel:
        open_ones.append(Tunnel((server.host, server.port), *status))
        return open_ones[-1]

    yield start
    for one in open_ones:
        one.close()


def get(client: Any, url: str) -> int:
    with client.open(parse(url)) as answer:
        return int(answer.status)


def test_https_goes_through_connect(serve: Any, client_for: Any, tunnel: Any) -> None:
    """The name is the proxy's to resolve; the proxy's password is the proxy's alone."""
    server = serve({"/a": Reply()}, "inside.example")
    proxy = tunnel(server)
    client = client_for(proxies={"https": f"http://me:hunter2@{proxy.url}"})
    assert get(client, "https://inside.example/a") == 200
    assert proxy.heads[0].startswith("CONNECT inside.example:443 ")
    assert "Proxy-Authorization: Basic bWU6aHVudGVyMg==" in proxy.heads[0]
    assert server.log[0].header("Proxy-Authorization") is None


def test_certificate_is_checked_through_a_proxy(serve: Any, client_for: Any, tunnel: Any) -> None:
    proxy = tunnel(serve({"/a": Reply()}, "inside.example"))
    with pytest.raises(FetchFailed, match="Hostname mismatch"):
        get(client_for(proxies={"https": proxy.url}), "https://other.example/a")


def test_plain_http_is_asked_of_the_proxy(serve: Any, client_for: Any) -> None:
    proxy = serve({"": Reply(body=b"by proxy")}, tls=False)
    client = client_for(proxies={"http": f"http://me:hunter2@127.0.0.1:{proxy.port}"})
    assert get(client, "http://inside.example/a") == 200
    assert proxy.log[0].target == "http://inside.example/a"


def test_proxy_s_password_does_not_follow_a_redirect_past_it(serve: Any, client_for: Any) -> None:
    direct = serve({"/end": Reply()}, tls=False)
    proxy = serve({"": redirect(direct.url("/end", "localhost"))}, tls=False)
    client = client_for(
        proxies={"http": f"http://me:hunter2@127.0.0.1:{proxy.port}", "no_proxy": "localhost"},
        insecure={"http"},
    )
    with pytest.raises(FetchFailed, match="loopback address: refused"):
        get(client, "http://inside.example/a")
    assert get(client, direct.url("/end", "localhost")) == 200
    assert direct.log[0].header("Proxy-Authorization") is None


@pytest.mark.parametrize("host", ["169.254.169.254", "localhost", "127.1", "[::1]", "0x7f000001"])
def test_redirect_to_this_host_is_refused_before_the_proxy_is_asked(
    serve: Any, client_for: Any, host: str
) -> None:
    """The proxy's metadata service and loopback are no better than ours."""
    proxy = serve({"": redirect(f"http://{host}/latest")}, tls=False)
    client = client_for(proxies={"http": f"127.0.0.1:{proxy.port}"})
    with pytest.raises(FetchFailed, match="address: refused"):
        get(client, "http://inside.example/a")
    assert len(proxy.log) == 1


@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "502 Bad Gateway"])
def test_refusing_proxy_is_named_without_its_password(
    serve: Any, client_for: Any, tunnel: Any, status: str
) -> None:
    proxy = tunnel(serve(), status)
    client = client_for(proxies={"https": f"http://me:hunter2@{proxy.url}"})
    with pytest.raises(FetchFailed, match=f"proxy {proxy.url} did not connect us") as caught:
        get(client, "https://inside.example/a")
    assert "hunter2" not in str(caught.value)


def test_absent_proxy_is_named_without_its_password(client_for: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    client = client_for(proxies={"https": f"http://me:hunter2@127.0.0.1:{port}"})
    with pytest.raises(FetchFailed, match=f"127.0.0.1:{port}") as caught:
        get(client, "https://inside.example/a")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "rules, bypassed",
    [
        ("", False),
        ("*", True),
        ("example.com", True),
        (".example.com", True),
        ("*.example.com", True),
        ("EXAMPLE.com", True),
        ("other.org, example.com", True),
        ("example.com:8443", True),
        ("example.com:443", False),
        ("ample.com", False),
        ("example.com.evil.org", False),
        ("10.0.0.0/8", False),
    ],
)
def test_no_proxy(rules: str, bypassed: bool) -> None:
    target = parse("https://www.example.com:8443/a")
    proxies = {"https": "http://proxy:3128", "no_proxy": rules}
    assert (proxy_for(target, proxies) is None) is bypassed


def test_no_proxy_for_addresses() -> None:
    proxies = {"http": "http://proxy:3128", "no_proxy": "10.0.0.0/8,[fd00::]/8,127.0.0.1:80"}
    for url, bypassed in (
        ("http://10.1.2.3/", True),
        ("http://11.1.2.3/", False),
        ("http://127.0.0.1/", True),
        ("http://127.0.0.1:81/", False),
        ("http://10.example.com/", False),
    ):
        assert (proxy_for(parse(url), proxies) is None) is bypassed, url


@pytest.mark.parametrize(
    "proxy", ["socks5://h:1", "https://h:1", "http://", "http://h:99999", "ftp://me:hunter2@h"]
)
def test_unknown_kind_of_proxy_is_refused(proxy: str) -> None:
    with pytest.raises(UsageError, match="not of the form") as caught:
        proxy_for(parse("https://example.com/"), {"https": proxy})
    assert "hunter2" not in str(caught.value)
