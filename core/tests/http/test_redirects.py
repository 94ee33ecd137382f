"""Redirects: followed a little, never with a secret for somebody else, never down to plain http
(hostile-input rows R2, R5, R11)."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from podctl.errors import FetchFailed
from podctl.http.urls import parse
from podctl.model.fetching import Credential
from podctl.testing.httpserver import Reply, redirect

SECRET = "hunter2-very-secret"
STATUSES = (301, 302, 303, 307, 308)


def credential(server: Any) -> Credential:
    """A bearer token for one server."""
    return Credential(f"127.0.0.1:{server.port}", "oauth", {"token": SECRET})


def get(client: Any, url: str) -> Any:
    """GET, and the answer's status; the connection is closed."""
    with client.open(parse(url)) as answer:
        return answer.status


@pytest.mark.parametrize("status", STATUSES)
def test_secret_stays_at_its_own_origin(serve: Any, client_for: Any, status: int) -> None:
    """The control of the tests below: the secret is there to be lost."""
    server = serve({"/end": Reply()})
    server.routes["/start"] = redirect("/end", status)
    client = client_for(credentials=(credential(server),))
    assert get(client, server.url("/start")) == 200
    assert [r.header("Authorization") for r in server.log] == [f"Bearer {SECRET}"] * 2


@pytest.mark.parametrize("change", ["host", "port", "scheme"])
@pytest.mark.parametrize("status", STATUSES)
def test_secret_does_not_follow_elsewhere(
    serve: Any, client_for: Any, status: int, change: str
) -> None:
    start = serve({"/end": Reply()})
    end = serve({"/end": Reply()}, tls=change != "scheme") if change != "host" else start
    start.routes["/start"] = redirect(
        end.url("/end", "localhost" if change == "host" else None), status
    )
    # The second server has an entry of its own: not even that is used for a redirected request.
    client = client_for(
        credentials=(credential(start), credential(end)),
        insecure={"http"} if change == "scheme" else (),
    )
    assert get(client, start.url("/start")) == 200
    (last,) = end.requests("/end")
    names = {name.lower() for name, _ in last.headers}
    assert not names & {"authorization", "cookie", "proxy-authorization", "referer"}
    assert SECRET not in repr(last.headers)


def test_secret_does_not_come_back_after_a_detour(serve: Any, client_for: Any) -> None:
    home, away = serve({"/end": Reply()}), serve()
    home.routes["/start"] = redirect(away.url("/bounce"))
    away.routes["/bounce"] = redirect(home.url("/back"))
    home.routes["/back"] = redirect("/end")
    client = client_for(credentials=(credential(home),))
    assert get(client, home.url("/start")) == 200
    sent = {r.path: r.header("Authorization") for r in home.log}
    assert sent == {"/start": f"Bearer {SECRET}", "/back": None, "/end": None}


def test_cookies_are_never_kept(serve: Any, client_for: Any) -> None:
    server = serve({"/end": Reply()})
    server.routes["/start"] = redirect("/end")
    client = client_for()
    get(client, server.url("/start"))
    get(client, server.url("/end"))
    assert [r.header("Cookie") for r in server.log] == [None] * 3


def test_secret_is_not_sent_by_plain_http(serve: Any, client_for: Any) -> None:
    server = serve({"/end": Reply()}, tls=False)
    client = client_for(credentials=(credential(server),), insecure={"http"})
    get(client, server.url("/end"))
    assert server.log[0].header("Authorization") is None


def test_secret_without_port_is_for_the_scheme_port_alone(serve: Any, client_for: Any) -> None:
    server = serve({"/end": Reply()})
    client = client_for(credentials=(Credential("127.0.0.1", "oauth", {"token": SECRET}),))
    get(client, server.url("/end"))
    assert server.log[0].header("Authorization") is None


@pytest.mark.parametrize("hops, works", [(5, True), (6, False)])
def test_redirects_are_counted(serve: Any, client_for: Any, hops: int, works: bool) -> None:
    server = serve({f"/{n}": redirect(f"/{n - 1}") for n in range(1, hops + 1)})
    server.routes["/0"] = Reply()
    client = client_for()
    if works:
        assert get(client, server.url(f"/{hops}")) == 200
    else:
        with pytest.raises(FetchFailed, match="redirects more than 5 times"):
            get(client, server.url(f"/{hops}"))


def test_redirect_loop_ends(serve: Any, client_for: Any) -> None:
    server = serve({"/a": redirect("/a")})
    with pytest.raises(FetchFailed, match="redirects more than"):
        get(client_for(), server.url("/a"))
    assert len(server.log) == 6


def test_redirect_down_to_http_needs_leave(serve: Any, client_for: Any) -> None:
    secure, plain = serve(), serve({"/end": Reply()}, tls=False)
    secure.routes["/start"] = redirect(plain.url("/end"))
    with pytest.raises(FetchFailed, match="redirects to plain http: refused"):
        get(client_for(), secure.url("/start"))
    assert plain.log == []
    assert get(client_for(insecure={"http"}), secure.url("/start")) == 200


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/shadow",
        "unix:///run/docker.sock",
        "gopher://127.0.0.1/x",
        "https://user:hunter2@127.0.0.1/",
        "https://",
        "https://exa mple.com/",
        "https://evil.example\\@good.example/",
        "https://[::1/",
        "https://127.0.0.1:99999/",
        "https://" + "a" * 9000,
    ],
)
def test_malformed_redirect_is_refused(serve: Any, client_for: Any, location: str) -> None:
    server = serve({"/start": redirect(location)})
    with pytest.raises(FetchFailed) as caught:
        get(client_for(), server.url("/start"))
    assert "hunter2" not in str(caught.value)
    assert len(server.log) == 1


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "100.100.100.200", "2852039166"],
)
def test_redirect_to_metadata_is_refused_even_from_loopback(
    serve: Any, client_for: Any, host: str
) -> None:
    server = serve({"/start": redirect(f"https://{host}/latest/meta-data")})
    with pytest.raises(FetchFailed, match="link-local address: refused"):
        get(client_for(), server.url("/start"))


#: Run with 203.0.113.7 (TEST-NET-3) on the loopback interface of a network of its own.
ELSEWHERE = """
import sys
from podctl.errors import FetchFailed
from podctl.model.fetching import FetchRequest
from podctl.testing.certs import Authority
from podctl.testing.httpserver import Reply, Server, names_at, redirect
from podctl.http.client import Client
from podctl.http.limits import Limits
from podctl.http.urls import parse

public = Server({"/end": Reply()}, host="203.0.113.7")
near = Server({"/end": Reply()}, host="127.0.0.1")
names = {("inside.example", near.port): ("127.0.0.1", near.port)}
targets = [near.url("/end"), near.url("/end", "localhost"), near.url("/end", "127.1"),
           near.url("/end", "2130706433"), near.url("/end", "0.0.0.0"),
           near.url("/end", "inside.example"), public.url("/end")]
for target in targets:
    public.routes["/start"] = redirect(target)
    with names_at(names), Client(FetchRequest(), Limits(connect=5)) as client:
        try:
            with client.open(parse(public.url("/start"))) as answer:
                print(answer.status)
        except FetchFailed as error:
            print("refused" if "loopback address: refused" in error.message else error)
near.routes["/start"] = redirect(near.url("/end"))
with Client(FetchRequest(), Limits()) as client, client.open(parse(near.url("/start"))) as answer:
    print("control", answer.status, len(near.log))
"""


@pytest.mark.root
def test_site_elsewhere_cannot_lead_to_this_host() -> None:
    """By literal, by name, by legacy spelling, by a name that resolves to it."""
    script = 'ip link set lo up && ip address add 203.0.113.7/32 dev lo && exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script, sys.executable, ELSEWHERE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.split("\n") == ["refused"] * 6 + ["200", "control 200 2", ""]
