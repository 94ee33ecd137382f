"""A web server, a database and a cache (L2): they serve, keep a volume, log, reload, and stop
cleanly; what they have kept is there for the next pod."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from box_world import PATIENCE, wait_until
from service_images import DOMAIN, postgres

if TYPE_CHECKING:
    from pathlib import Path

    from box_world import Running, World

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

#: pods of fly are on the host's network: each gets one of its own, with a loopback
PREFIX = ("unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh")
_NGINX = """\
daemon off;
user www-data;
pid /tmp/nginx.pid;
error_log /dev/stderr notice;
events {}
http {
    access_log /dev/stdout;
    client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi; uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
    server {
        listen 8080;
        location / { root /srv/data/www; }
        location /version { return 200 "VERSION"; }
    }
}
"""


@pytest.fixture(params=["fly", "nspawn"])
def flavor(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


class Pod:
    """A pod of one service and a volume, and clients inside it."""

    def __init__(self, world: World, flavor: str, name: str, volume: Path) -> None:
        self.world = world
        source = f"--volume=data,kind=host,source={volume}"
        self.running: Running = world.start(
            f"--stage1={flavor}", source, f"{DOMAIN}/{name}", prefix=PREFIX
        ).named()
        # Under fly the pod's network is that of whoever started it, also for those who enter.
        network = f"--net=/proc/{self.running.pid}/ns/net"
        self.prefix = ["nsenter", network] if flavor == "fly" else []

    def client(self, *command: str) -> tuple[int, str]:
        """Run a client in the pod."""
        done = self.world.podctl("enter", self.running.uuid, *command, prefix=self.prefix)
        return done.code, done.out.decode()

    def until(self, command: tuple[str, ...], wanted: str) -> None:
        """Wait until a client gets this answer."""
        wait_until(lambda: self.client(*command) == (0, wanted), f"{wanted!r} by {command}")

    def stop(self) -> tuple[int, bytes, bytes]:
        """Ask it to stop as its image wants, and wait."""
        self.world.must("stop", self.running.uuid)
        return self.running.end()


def test_web(world: World, flavor: str, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    (volume / "www").mkdir(parents=True)
    (volume / "www/page").write_text("a page\n")
    config = volume / "nginx.conf"
    config.write_text(_NGINX.replace("VERSION", "one"))
    pod = Pod(world, flavor, "web", volume)
    get = ("/bin/wget", "-q", "-O", "-")
    pod.until((*get, "http://127.0.0.1:8080/page"), "a page\n")
    assert pod.client(*get, "http://127.0.0.1:8080/version") == (0, "one")
    config.write_text(_NGINX.replace("VERSION", "two"))
    world.must("kill", "--signal=HUP", pod.running.uuid)
    pod.until((*get, "http://127.0.0.1:8080/version"), "two")
    code, out, err = pod.stop()
    assert code == 0, err
    assert b'"GET /page HTTP/1.1" 200' in out
    assert b"reconfiguring" in err
    assert b"gracefully shutting down" in err


def test_database(world: World, flavor: str, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    os.chown(volume, 101, 101)
    sql = (f"{postgres()}/bin/psql", "-h", "127.0.0.1", "-U", "postgres", "-tAc")
    pod = Pod(world, flavor, "database", volume)
    pod.until((*sql, "select 1"), "1\n")
    assert pod.client(*sql, "create table t (x text); insert into t values ('kept')")[0] == 0
    pod.client(*sql, "alter system set work_mem = '7MB'")
    world.must("kill", "--signal=HUP", pod.running.uuid)
    pod.until((*sql, "show work_mem"), "7MB\n")
    code, _, err = pod.stop()
    assert code == 0, err
    assert b"received SIGHUP, reloading" in err
    assert b"database system is shut down" in err
    again = Pod(world, flavor, "database", volume)
    again.until((*sql, "select x from t"), "kept\n")
    code, _, err = again.stop()
    assert code == 0
    # It was stopped cleanly both times: nothing had to be recovered.
    assert b"not properly shut down" not in err


def test_cache(world: World, flavor: str, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    os.chown(volume, 102, 102)
    cli = ("/usr/bin/redis-cli",)
    pod = Pod(world, flavor, "cache", volume)
    pod.until((*cli, "ping"), "PONG\n")
    assert pod.client(*cli, "set", "key", "kept") == (0, "OK\n")
    pod.running.signal(signal.SIGTERM)
    code, out, _ = pod.running.end()
    assert code == 0
    assert b"User requested shutdown" in out
    assert b"bye bye" in out
    again = Pod(world, flavor, "cache", volume)
    again.until((*cli, "get", "key"), "kept\n")
    assert again.stop()[0] == 0
    assert again.running.process.wait(PATIENCE) == 0
