"""App Container Images made with GNU tar, and the short way of them into a store."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podctl.store import ImageRecord, Store

#: Arguments of tar for each compression.
_COMPRESSIONS = {"none": (), "gzip": ("-z",), "xz": ("-J",), "bzip2": ("-j",), "zstd": ("--zstd",)}


def manifest(
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    dependencies: Sequence[Mapping[str, Any] | str] = (),
    whitelist: Sequence[str] = (),
    app: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """An image manifest; a dependency may be given by its name alone."""
    found: dict[str, Any] = {"acKind": "ImageManifest", "acVersion": "0.8.11", "name": name}
    chosen = {"version": "1", "os": "linux", "arch": "amd64"} if labels is None else labels
    found["labels"] = [{"name": key, "value": value} for key, value in chosen.items()]
    if app is not None:
        found["app"] = {"exec": ["/bin/true"], "user": "0", "group": "0", **app}
    if dependencies:
        found["dependencies"] = [
            {"imageName": item} if isinstance(item, str) else dict(item) for item in dependencies
        ]
    if whitelist:
        found["pathWhitelist"] = list(whitelist)
    return found


def build(
    directory: str,
    document: Mapping[str, Any] | bytes,
    files: Mapping[str, str | bytes | None],
    *,
    compression: str = "gzip",
) -> str:
    """Make an image file and return its path.

    Args:
        directory: a scratch directory; the image is left in it.
        files: path below the rootfs -> content; None is a directory, `-> x` a link to `x`.
    """
    tree = os.path.join(directory, os.urandom(4).hex())
    os.makedirs(f"{tree}/rootfs", mode=0o755)
    os.chmod(f"{tree}/rootfs", 0o755)
    for path, content in files.items():
        place(f"{tree}/rootfs/{path}", content)
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    with open(f"{tree}/manifest", "wb") as file:
        file.write(data)
    pack(tree, f"{tree}.aci", compression)
    shutil.rmtree(tree)
    return f"{tree}.aci"


def place(path: str, content: str | bytes | None) -> None:
    """Make a file, a directory (None) or a symbolic link (`-> target`)."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    if content is None:
        os.makedirs(path, mode=0o755, exist_ok=True)
    elif isinstance(content, str) and content.startswith("-> "):
        os.symlink(content[3:], path)
    else:
        data = content.encode() if isinstance(content, str) else content
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, 0o644)


def pack(tree: str, target: str, compression: str = "gzip") -> None:
    """Archive the `manifest` and `rootfs` of a directory with GNU tar."""
    words = ["tar", "--xattrs", "--xattrs-include=*", "-C", tree, *_COMPRESSIONS[compression]]
    subprocess.run([*words, "-cf", target, "manifest", "rootfs"], check=True)


def bring(
    store: Store, path: str, *, signature: bytes | None = None, latest: bool = False
) -> ImageRecord:
    """Take an image file into a store, read by the usual children but not verified."""
    from podctl.images.stored import describe_archive
    from podctl.images.transfer import Transfer, transfer_local
    from podctl.model.layout import ArchiveLayout, ArchiveLimits
    from podctl.store import StagedLayer

    layout = ArchiveLayout(manifest="manifest", rootfs="rootfs", whiteouts=False)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with store.staging() as staging:
            piece = staging.piece()
            transfer = Transfer(layout, piece.directory, None, ArchiveLimits(), 1 << 40)
            ingested, unpacked = transfer_local(fd, transfer, piece.blob_fd)
            layer = StagedLayer(ingested.diff_id, ingested.blob, ingested.size, piece)
            staged = describe_archive(layer, ingested.blob_size, unpacked.manifest)
            staged = staged._replace(source=path, signature=signature, latest=latest)
            return store.commit(staging, staged)
    finally:
        os.close(fd)
