"""Directories and archives as values, for the tests of images without a registry."""

from __future__ import annotations

import hashlib
import json
import tarfile
from typing import TYPE_CHECKING, Any

from podctl.model.layoutfiles import Member
from podctl.testing import ociimages

if TYPE_CHECKING:
    from pathlib import Path

    from podctl.testing.ociimages import Document, Image, Index

REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"


class MemoryFiles:
    """Files by name; a link is a tuple of its target and whether it is hard."""

    def __init__(self, content: dict[str, bytes | tuple[str, bool]]) -> None:
        self.content = content
        self.digested: list[str] = []

    def find(self, name: str) -> Member | None:
        item = self.content.get(name)
        if isinstance(item, tuple):
            return Member(0, *item)
        return None if item is None else Member(len(item))

    def read(self, name: str, limit: int) -> bytes:
        item = self.content[name]
        assert isinstance(item, bytes)
        return item[:limit]

    def digest(self, name: str) -> str:
        item = self.content[name]
        assert isinstance(item, bytes)
        self.digested.append(name)
        return f"sha256:{hashlib.sha256(item).hexdigest()}"


def from_tar(path: Path) -> MemoryFiles:
    """The files of an archive."""
    content: dict[str, bytes | tuple[str, bool]] = {}
    with tarfile.open(path) as archive:
        for entry in archive:
            if entry.issym() or entry.islnk():
                content[entry.name] = (entry.linkname, entry.islnk())
            elif entry.isreg():
                body = archive.extractfile(entry)
                assert body is not None
                content[entry.name] = body.read()
    return MemoryFiles(content)


def from_directory(path: Path) -> MemoryFiles:
    """The files of a directory."""
    files = [one for one in path.rglob("*") if one.is_file()]
    return MemoryFiles({str(one.relative_to(path)): one.read_bytes() for one in files})


class Layout:
    """An OCI layout in the making."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.content: dict[str, bytes | tuple[str, bool]] = {
            "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'
        }

    def keep(self, *blobs: bytes) -> Layout:
        """Put blobs."""
        for data in blobs:
            self.content[f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"] = data
        return self

    def put(self, one: Image | Index, name: str | None = None, **fields: Any) -> Layout:
        """Put an image under a tag; `fields` are further members of its entry."""
        self.keep(*(part.data for part in ociimages.documents_of(one)))
        self.keep(*ociimages.blobs_of(one).values())
        return self.list(ociimages.top_of(one), name, **fields)

    def list(self, one: Document, name: str | None = None, **fields: Any) -> Layout:
        """List a document in index.json."""
        self.keep(one.data)
        if name is not None:
            fields["annotations"] = {REF_NAME: name, **fields.get("annotations", {})}
        self.entries.append(one.descriptor(**fields))
        return self

    @property
    def files(self) -> MemoryFiles:
        """What is in it."""
        top = {"schemaVersion": 2, "manifests": self.entries}
        return MemoryFiles({"index.json": json.dumps(top).encode(), **self.content})
