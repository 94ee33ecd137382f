"""Layers of Docker and OCI images from descriptions in Python, for tests and demonstrations.

    base = layer(directory("etc"), file("etc/motd", "hello\n"), symlink("bin", "usr/bin"))
    above = layer(whiteout("etc/motd"), opaque("var"), compression="zstd")

The tar is written by the standard library, which podctl itself uses nowhere for tar: what is read
back was written by somebody else.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

MTIME = 1_000_000_000
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
_NONE: Mapping[str, bytes] = {}


class Entry(NamedTuple):
    """One entry of a layer's tar.

    Args:
        path: as it stands in the tar; text is encoded as file names are.
        kind: tarfile's type, e.g. tarfile.REGTYPE.
        link: target of a symbolic or hard link.
        xattrs: name -> value, as `SCHILY.xattr.` records.
        device: major and minor number.
    """

    path: str
    kind: bytes = tarfile.REGTYPE
    data: bytes = b""
    link: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: float = MTIME
    xattrs: Mapping[str, bytes] = _NONE
    device: tuple[int, int] = (0, 0)


class Layer(NamedTuple):
    """One layer: the tar, and the bytes a registry publishes.

    Args:
        compression: `gzip`, `zstd` or `none`.
    """

    tar: bytes
    blob: bytes
    compression: str = "gzip"

    @property
    def diff_id(self) -> str:
        """`sha256:` and digits, of the tar."""
        return digest_of(self.tar)

    @property
    def digest(self) -> str:
        """`sha256:` and digits, of the published bytes."""
        return digest_of(self.blob)


def digest_of(data: bytes) -> str:
    """`sha256:` and 64 digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def file(path: str, data: str | bytes = b"", **fields: Any) -> Entry:
    """A regular file."""
    content = data.encode() if isinstance(data, str) else data
    return Entry(path, data=content)._replace(**fields)


def directory(path: str, **fields: Any) -> Entry:
    """A directory, mode 0755."""
    return Entry(path, tarfile.DIRTYPE, mode=0o755)._replace(**fields)


def symlink(path: str, target: str, **fields: Any) -> Entry:
    """A symbolic link."""
    return Entry(path, tarfile.SYMTYPE, link=target, mode=0o777)._replace(**fields)


def hardlink(path: str, target: str, **fields: Any) -> Entry:
    """A hard link to an entry before it."""
    return Entry(path, tarfile.LNKTYPE, link=target)._replace(**fields)


def fifo(path: str, **fields: Any) -> Entry:
    """A named pipe."""
    return Entry(path, tarfile.FIFOTYPE)._replace(**fields)


def device(path: str, major: int, minor: int, *, block: bool = False, **fields: Any) -> Entry:
    """A device node."""
    kind = tarfile.BLKTYPE if block else tarfile.CHRTYPE
    return Entry(path, kind, device=(major, minor))._replace(**fields)


def whiteout(path: str) -> Entry:
    """The mark that takes `path` away from the layers below."""
    head, slash, name = path.rpartition("/")
    return Entry(f"{head}{slash}{WHITEOUT}{name}")


def opaque(path: str) -> Entry:
    """The mark that takes what layers below have in the directory `path` away."""
    return Entry(f"{path}/{OPAQUE}" if path not in ("", ".") else OPAQUE)


def layer(*entries: Entry, compression: str = "gzip") -> Layer:
    """Make a layer of entries, in the order given."""
    return packed(archive(*entries), compression)


def packed(tar: bytes, compression: str = "gzip") -> Layer:
    """Make a layer of the bytes of a tar."""
    return Layer(tar, compress(tar, compression), compression)


def archive(*entries: Entry) -> bytes:
    """Write a tar in PAX format."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            tar.addfile(_header(entry), io.BytesIO(entry.data))
    return output.getvalue()


def compress(data: bytes, compression: str) -> bytes:
    """Compress as a layer is; the same bytes each time."""
    if compression == "none":
        return data
    if compression == "gzip":
        return gzip.compress(data, compresslevel=6, mtime=0)
    if compression == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=3).compress(data)
    raise ValueError(f"no such compression: {compression}")


def _header(entry: Entry) -> tarfile.TarInfo:
    header = tarfile.TarInfo(entry.path)
    header.type = entry.kind
    header.size = len(entry.data)
    header.linkname = entry.link
    header.mode, header.mtime = entry.mode, entry.mtime
    header.uid, header.gid = entry.uid, entry.gid
    header.devmajor, header.devminor = entry.device
    # tarfile writes text; this is its way to let any byte pass.
    header.pax_headers = {
        f"SCHILY.xattr.{name}": os.fsdecode(value) for name, value in entry.xattrs.items()
    }
    return header
