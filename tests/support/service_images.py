"""Three services of Debian as images: nginx, PostgreSQL and redis, with what they need."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from box_images import BUSYBOX, applets

from podctl.testing.aci import manifest, pack

if TYPE_CHECKING:
    from collections.abc import Sequence

DOMAIN = "services.example"
_PASSWD = """\
root:x:0:0:root:/root:/bin/sh
www-data:x:33:33::/srv/www:/bin/sh
postgres:x:101:101::/srv/data:/bin/sh
redis:x:102:102::/srv/data:/bin/sh
nobody:x:65534:65534::/:/bin/false
"""
_GROUP = "root:x:0:\nwww-data:x:33:\npostgres:x:101:\nredis:x:102:\nnogroup:x:65534:\n"


class Service(NamedTuple):
    """What an image is made of.

    Args:
        programs: paths on the host; their libraries come with them.
        trees: directories that are copied as they are.
        app: its app section.
        stop_signal: that asks it to end.
    """

    programs: Sequence[str]
    trees: Sequence[str]
    app: dict[str, Any]
    stop_signal: str = "SIGTERM"


def postgres() -> str:
    """Directory of Debian's PostgreSQL, whichever version it is."""
    return str(max(Path("/usr/lib/postgresql").glob("*/bin")).parent)


def services() -> dict[str, Service]:
    """The three, by name."""
    pg = postgres()
    data = [{"name": "data", "path": "/srv/data"}]
    return {
        "web": Service(
            ["/usr/sbin/nginx"],
            [],
            {
                "exec": ["/usr/sbin/nginx", "-c", "/srv/data/nginx.conf"],
                "mountPoints": data,
                "ports": [{"name": "http", "protocol": "tcp", "port": 8080}],
            },
            "SIGQUIT",
        ),
        "database": Service(
            [f"{pg}/bin/{name}" for name in ("postgres", "initdb", "psql", "pg_ctl")],
            [f"{pg}/lib", f"/usr/share/postgresql/{os.path.basename(pg)}"],
            {
                "exec": ["/bin/sh", "-c", _DATABASE.replace("BIN", f"{pg}/bin")],
                "user": "postgres",
                "group": "postgres",
                "mountPoints": data,
            },
            "SIGINT",
        ),
        "cache": Service(
            ["/usr/bin/redis-server", "/usr/bin/redis-cli"],
            [],
            {
                "exec": ["/usr/bin/redis-server", "--dir", "/srv/data", "--appendonly", "yes"],
                "user": "redis",
                "group": "redis",
                "mountPoints": data,
            },
        ),
    }


_DATABASE = """\
[ -s /srv/data/db/PG_VERSION ] || BIN/initdb -D /srv/data/db -A trust -N -E UTF8 --locale=C
exec BIN/postgres -D /srv/data/db -k /tmp
"""


def make(directory: Path, name: str) -> Path:
    """Write the image of a service as an ACI."""
    service = services()[name]
    tree = directory / f"{name}.tree"
    root = tree / "rootfs"
    for place in ("bin", "etc", "tmp", "srv/data", "srv/www", "var/log/nginx", "var/lib/nginx"):
        (root / place).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for applet in applets():
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text(_PASSWD)
    (root / "etc/group").write_text(_GROUP)
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")
    for source in service.trees:
        shutil.copytree(source, root / source.lstrip("/"), symlinks=True)
    libraries = [*Path(root / "usr/lib/postgresql").rglob("*.so")]
    for source in service.programs:
        _place(source, root)
    for file in [*service.programs, *map(str, libraries), *_NAME_SERVICE]:
        for library in _libraries(file):
            _place(library, root)
    document = manifest(f"{DOMAIN}/{name}", labels=_labels(), app=service.app)
    document["annotations"] = [{"name": "appc.io/docker/stopsignal", "value": service.stop_signal}]
    (tree / "manifest").write_text(json.dumps(document))
    pack(str(tree), str(directory / f"{name}.aci"), "none")
    shutil.rmtree(tree)
    return directory / f"{name}.aci"


#: what glibc loads by name
_NAME_SERVICE = tuple(map(str, Path("/lib").glob("*-linux-gnu/libnss_files.so.2")))


def _labels() -> dict[str, str]:
    arch = {"x86_64": "amd64"}.get(os.uname().machine, "aarch64")
    return {"version": "1", "os": "linux", "arch": arch}


def _libraries(file: str) -> list[str]:
    listed = subprocess.run(["ldd", file], capture_output=True, text=True, check=False).stdout
    return [*re.findall(r"(/\S+)", listed), *(_NAME_SERVICE if file in _NAME_SERVICE else ())]


def _place(source: str, root: Path) -> None:
    target = root / source.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy(source, target)
