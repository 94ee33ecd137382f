"""A store with real images in it, and the command line run in this process."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from podctl.store import Store
from podctl.testing import aci

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from podctl.store import ImageRecord


class Ran(NamedTuple):
    """A command line that was run."""

    code: int
    out: str
    err: str


class Shop:
    """Makes images, brings them into a store, and runs commands on it.

    Attributes:
        store: the store.
        data: its data directory.
    """

    def __init__(self, top: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.data = top / "data"
        self.store = Store(str(self.data))
        self._scratch = top / "scratch"
        self._scratch.mkdir()
        self._capsys = capsys

    def archive(
        self,
        name: str,
        files: Mapping[str, str | bytes | None],
        compression: str = "gzip",
        **fields: Any,
    ) -> str:
        """Path of a new image file."""
        document = aci.manifest(name, **fields)
        return aci.build(str(self._scratch), document, files, compression=compression)

    def image(
        self, name: str, files: Mapping[str, str | bytes | None], **fields: Any
    ) -> ImageRecord:
        """A new image in the store."""
        signature = fields.pop("signature", None)
        latest = fields.pop("latest", False)
        path = self.archive(name, files, **fields)
        return aci.bring(self.store, path, signature=signature, latest=latest)

    def podctl(self, *arguments: str) -> Ran:
        """Run one command line."""
        from podctl.cli.main import run

        self._capsys.readouterr()
        code = run(["--dir", str(self.data), *arguments])
        return Ran(code, *self._capsys.readouterr())

    def layer(self, record: ImageRecord) -> Path:
        """The unpacked root filesystem of an image."""
        return self.data / "layers" / record.layers[0] / "rootfs"

    def blob(self, record: ImageRecord) -> Path:
        """The stored archive of an image."""
        return self.data / self.store.layout.blob(record.blob)


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shop:
    """An empty store and the means to fill it."""
    return Shop(tmp_path, capsys)


@pytest.fixture
def listing() -> Callable[[Path], list[str]]:
    """Everything below a directory with type, mode, owner and size, as GNU find prints it."""

    def find(top: Path) -> list[str]:
        words = ["find", str(top), "-mindepth", "1", "-printf", "%P %y %m %U %G %s %l\\n"]
        lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        # A directory's size is the file system's business.
        return sorted(
            " ".join(line.split(" ")[:5]) if " d " in line else line for line in lines.splitlines()
        )

    return find
