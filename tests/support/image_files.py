"""Application image files made to measure, in memory, and the signatures beside them."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ARCH = {"x86_64": "amd64"}.get(os.uname().machine, os.uname().machine)
_APPLETS = """
    cat cp echo env false grep id kill ln ls mkdir mkfifo
    pwd readlink sh sleep stat tee touch tr true
"""


class Link(NamedTuple):
    """A symbolic link."""

    target: str


class Directory(NamedTuple):
    """A directory."""

    mode: int = 0o755
    uid: int = 0
    gid: int = 0


class File(NamedTuple):
    """A regular file."""

    data: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


Entry = bytes | Link | Directory | File

PASSWD = b"root:x:0:0:root:/root:/bin/sh\nuser1:x:1000:1000::/:/bin/sh\n"
GROUP = b"root:x:0:\ngroup1:x:100:\nuser1:x:1000:\n"


def busybox() -> dict[str, Entry]:
    """The files of a small system: busybox, its applets, two users."""
    files: dict[str, Entry] = {"bin/busybox": File(Path("/bin/busybox").read_bytes(), 0o755)}
    files |= {f"bin/{applet}": Link("busybox") for applet in _APPLETS.split()}
    return files | {"etc/passwd": PASSWD, "etc/group": GROUP, "root": Directory(0o700)}


def manifest(
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    app: Mapping[str, Any] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """An image manifest; `labels` replace version 1 and this machine's os and arch."""
    if labels is None:
        labels = {"version": "1", "os": "linux", "arch": ARCH}
    found: dict[str, Any] = {"acKind": "ImageManifest", "acVersion": "0.8.11", "name": name}
    found["labels"] = [{"name": key, "value": value} for key, value in labels.items()]
    if app is not None:
        found["app"] = {"exec": ["/bin/true"], "user": "0", "group": "0", **app}
    return found | fields


def pack(document: Mapping[str, Any] | bytes, files: Mapping[str, Entry]) -> bytes:
    """An image file of a manifest and files by their path below the rootfs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        text = document if isinstance(document, bytes) else json.dumps(document).encode()
        _add(tar, "manifest", File(text))
        _add(tar, "rootfs", Directory())
        made: set[str] = set()
        for path, entry in files.items():
            for parent in reversed(Path(path).parents[:-1]):
                if str(parent) not in made and str(parent) not in files:
                    made.add(str(parent))
                    _add(tar, f"rootfs/{parent}", Directory())
            _add(tar, f"rootfs/{path}", entry)
    return gzip.compress(buffer.getvalue(), 1, mtime=0)


def _add(tar: tarfile.TarFile, path: str, entry: Entry) -> None:
    info = tarfile.TarInfo(path)
    if isinstance(entry, Link):
        info.type, info.linkname = tarfile.SYMTYPE, entry.target
        tar.addfile(info)
    elif isinstance(entry, Directory):
        info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, *entry
        tar.addfile(info)
    else:
        file = entry if isinstance(entry, File) else File(entry)
        info.size, info.mode, info.uid, info.gid = len(file.data), *file[1:]
        tar.addfile(info, io.BytesIO(file.data))


def shell(script: str) -> dict[str, Sequence[str]]:
    """An app section that runs a shell script."""
    return {"exec": ["/bin/sh", "-c", script]}
