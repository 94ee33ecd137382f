"""What docs/how-to/run-under-systemd.md tells to type, on a host where systemd is process 1."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import image_files
import pytest
from systemd_world import GRACEFUL

if TYPE_CHECKING:
    from systemd_world import SystemdWorld

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[2]
_PAGE = ROOT / "docs" / "how-to" / "run-under-systemd.md"
#: where the reader is
_HERE = "/srv/reader"
#: a key of a site that is not there; units that another test runs
_NOT_HERE = ("podctl trust", "shipped")
#: the store holds an image nobody has signed
_COMMAND = '#!/bin/sh\nexec /usr/bin/podctl --insecure-options=image "$@"\n'


@pytest.fixture
def reader(world: SystemdWorld) -> SystemdWorld:
    """A host with the image that the page runs, and the page's command."""
    document = image_files.manifest(
        "apps.example/redis",
        labels={"version": "7.0.15", "os": "linux", "arch": image_files.ARCH},
        app={"exec": ["/bin/sh", "-c", GRACEFUL]},
    )
    image = image_files.pack(document, image_files.busybox())
    (world.host.shared / "redis.aci").write_bytes(image)
    world.podctl("fetch", "/srv/redis.aci")
    world.host.write("/usr/local/bin/podctl", _COMMAND, 0o755)
    for name in ("redis.service", "cache.service"):
        world.unit(name)
    (world.host.shared / "reader").mkdir(exist_ok=True)
    return world


def test_every_command_of_the_page_works_on_a_systemd_host(reader: SystemdWorld) -> None:
    sys.path.insert(0, str(ROOT / "tests" / "docs"))
    from doc_blocks import blocks

    ran = 0
    for block in blocks(_PAGE):
        text = "\n".join(block.lines)
        if block.verb == "file":
            assert block.note is not None
            reader.host.write(f"{_HERE}/{block.note.value}", text + "\n")
        elif block.language == "sh" and not any(
            word in str(block.note) + text for word in _NOT_HERE
        ):
            reader.host.must("sh", "-euc", f"cd {_HERE}\n{text}")
            ran += 1
    assert ran > 5
