"""An image with much in it, and its tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podctl.testing.ociimages import image
from podctl.testing.ocilayers import directory, file, hardlink, layer, opaque, symlink, whiteout
from podctl.testing.trees import Snapshot, snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from home import Home

    from podctl.testing.ociimages import Image

NAME = "registry.example/team/app"


def rich(**fields: Any) -> Image:
    """An image of layers in every compression, with much that layers can do."""
    return image(
        layer(directory("srv"), file("srv/a", "a"), file("srv/gone", "x"), directory("srv/old")),
        layer(whiteout("srv/gone"), file("srv/b", "b", mode=0o4755, uid=7), compression="zstd"),
        layer(file("srv/d", "d"), hardlink("srv/c", "srv/d"), compression="none"),
        layer(opaque("srv/old"), symlink("srv/link", "/nowhere"), file("srv/" + "n" * 120, "long")),
        config={"Cmd": ["/srv/b"], "Env": ["A=b"], "Labels": {"l": "v"}, "User": "7"},
        **fields,
    )


def tree(home: Home, name: str, place: Path) -> Snapshot:
    """What podctl extracts of a stored image."""
    home.must("image", "extract", "--rootfs-only", name, str(place))
    return snapshot(place)
