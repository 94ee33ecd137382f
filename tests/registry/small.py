"""Small images that run: busybox and what a test adds to it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podctl.testing.ociimages import OCI, Image, Kind, image
from podctl.testing.ocilayers import Entry, Layer, directory, file, layer, symlink

if TYPE_CHECKING:
    from collections.abc import Sequence

APPLETS = ("cat", "env", "id", "kill", "ls", "pwd", "sh", "sleep", "stat", "true")
PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/:/bin/sh\n1000:x:0:0::/:/bin/sh\n"
GROUP = "root:x:0:\napp:x:1001:\nextra:x:77:app\n"


@cache
def busybox() -> Layer:
    """Busybox, some of its applets, two users."""
    return layer(
        directory("bin"),
        file("bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755),
        *(symlink(f"bin/{name}", "busybox") for name in APPLETS),
        directory("etc"),
        file("etc/passwd", PASSWD),
        file("etc/group", GROUP),
        directory("tmp", mode=0o1777),
    )


def runnable(*entries: Entry, kind: Kind = OCI, shell: str = "", **config: Any) -> Image:
    """An image of busybox and a layer of entries; `shell` is its command, `config` the rest."""
    command: Sequence[str] = ["/bin/sh", "-c", shell] if shell else ["/bin/true"]
    layers = [busybox(), layer(*entries)] if entries else [busybox()]
    return image(*layers, kind=kind, config={"Cmd": command, **config})
