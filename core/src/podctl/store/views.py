"""Root's view of a layered image: what the image's format made of its documents, kept as a file.

To read the documents of a Docker image takes its format's plugin, which costs more than all else
that a pod needs to know of a cached image. Documents never change, for the image ID is their
digest; so root keeps what it made of them itself, where only root can write. A view counts for the
installation that made it: whatever is installed or upgraded, the next use converts anew.

It is a cache. Where it is missing or damaged, or another installation's, the documents are read.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from podctl.errors import ManifestInvalid
from podctl.model.image import Image, Layer
from podctl.model.manifest import app_from_value, app_value
from podctl.store.area import write_private
from podctl.store.records import check_key, seal, unseal
from podctl.sys.files import read_small

if TYPE_CHECKING:
    from podctl.store.store import Store

#: Goes up when a file's members change.
VERSION = 1
#: A view has no more in it than the documents it was made of.
MAX_VIEW = 16 << 20


def find_view(store: Store, key: str, made_by: str) -> Image | None:
    """What root made of an image's documents, without these; None where that has to be done.

    Args:
        made_by: which installation asks; another one's view does not count.
    """
    if not store.privileged:
        return None
    try:
        value = unseal_view(read_small(store.layout.view(check_key(key)), MAX_VIEW), key)
        if value["version"] != VERSION or value["made_by"] != made_by:
            return None
        return _parse(value)
    except (OSError, ValueError, KeyError, TypeError, ManifestInvalid):
        return None


def keep_view(store: Store, key: str, image: Image, made_by: str) -> None:
    """Keep what root made of an image's documents, unless it cannot be said in a view; root only.

    The caller has made it of the documents whose digest is `key`, and keeps the image from being
    removed.
    """
    if not store.privileged:
        return
    try:
        data = seal(_value(key, image, made_by), ordered=True)
        # What would read as something else is no view: a format may say what a file does not keep.
        if _parse(unseal_view(data, key)) != image._replace(manifest=b""):
            return
    except (ValueError, TypeError, KeyError, ManifestInvalid):
        return
    if len(data) <= MAX_VIEW:
        # Only a cache: it may be lost in a crash, or the disk be full.
        with suppress(OSError):
            write_private(store.layout.view(check_key(key)), data, durable=False)


def view_problem(store: Store, key: str, image: Image, made_by: str) -> str | None:
    """What is wrong with root's view of an image; None where nothing is, or no view counts.

    Args:
        image: what was made of the documents just now.
    """
    if not store.privileged:
        return None
    try:
        value = unseal_view(read_small(store.layout.view(check_key(key)), MAX_VIEW), key)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return f"cannot be used: {error}"
    if value.get("version") != VERSION or value.get("made_by") != made_by:
        return None
    right = find_view(store, key, made_by) == image._replace(manifest=b"")
    return None if right else "says something else than the image's documents"


def unseal_view(data: bytes, key: str) -> dict[str, Any]:
    """Read a view's file, of whichever version.

    Raises:
        ValueError: it is damaged, or the view of another image.
    """
    value = unseal(data)
    if value.get("key") != key:
        raise ValueError("it is the view of another image")
    return value


def _value(key: str, image: Image, made_by: str) -> dict[str, Any]:
    return {
        "key": key,
        "version": VERSION,
        "made_by": made_by,
        "format": image.format,
        "name": image.name,
        "labels": dict(image.labels),
        "app": None if image.app is None else app_value(image.app),
        "annotations": dict(image.annotations),
        "layers": [list(layer) for layer in image.layers],
    }


def _parse(value: dict[str, Any]) -> Image:
    """The image of a view.

    Raises:
        KeyError, TypeError, ValueError, ManifestInvalid: it is none.
    """
    return Image(
        format=value["format"],
        name=value["name"],
        labels=dict(value["labels"]),
        app=None if value["app"] is None else app_from_value(value["app"]),
        dependencies=(),
        path_whitelist=(),
        annotations=dict(value["annotations"]),
        manifest=b"",
        layers=tuple(Layer(*layer) for layer in value["layers"]),
    )
