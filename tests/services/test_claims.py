"""L2, by its id: a web server, a database and a cache under the default flavor. test_services.py
has them under each flavor, and how they log and reload."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import pytest
from box_world import wait_until
from service_images import DOMAIN, postgres

if TYPE_CHECKING:
    from pathlib import Path

    from box_world import World

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

_CONFIG = """\
daemon off; user www-data; pid /tmp/nginx.pid; error_log /dev/stderr; events {}
http { access_log /dev/stdout; client_body_temp_path /tmp/b; proxy_temp_path /tmp/p;
fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
server { listen 8080; location / { root /srv/data; } } }
"""


class Service(NamedTuple):
    """What a service is asked for.

    Args:
        owner: of its volume.
        write: changes what the volume holds.
        read: gives `kept` afterwards.
    """

    owner: int
    write: tuple[str, ...]
    read: tuple[str, ...]


_SQL = (f"{postgres()}/bin/psql", "-h", "127.0.0.1", "-U", "postgres", "-tAc")
SERVICES = {
    "web": Service(
        0,
        ("/bin/sh", "-c", "echo kept >/srv/data/page"),
        ("/bin/wget", "-q", "-O", "-", "http://127.0.0.1:8080/page"),
    ),
    "database": Service(
        101,
        (*_SQL, "create table t (x text); insert into t values ('kept')"),
        (*_SQL, "select x from t"),
    ),
    "cache": Service(
        102, ("/usr/bin/redis-cli", "set", "key", "kept"), ("/usr/bin/redis-cli", "get", "key")
    ),
}


@pytest.mark.parametrize("name", SERVICES)
def test_l2_a_service_serves_keeps_its_volume_and_stops(
    world: World, name: str, tmp_path: Path
) -> None:
    service = SERVICES[name]
    volume = tmp_path / "volume"
    volume.mkdir()
    os.chown(volume, service.owner, service.owner)
    (volume / "nginx.conf").write_text(_CONFIG) if name == "web" else None
    for write in (service.write, ()):
        pod = world.start(
            f"--volume=data,kind=host,source={volume}", f"{DOMAIN}/{name}",
            prefix=("unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"),
        ).named()  # fmt: skip

        def inside(command: tuple[str, ...], uuid: str = pod.uuid) -> tuple[int, bytes]:
            done = world.podctl("enter", uuid, *command)
            return done.code, done.out

        if write:
            wait_until(lambda: inside(write)[0] == 0, f"{name} to take a change")  # noqa: B023
        wait_until(lambda: inside(service.read) == (0, b"kept\n"), f"{name} to answer")
        world.must("stop", pod.uuid)
        assert pod.end().code == 0
