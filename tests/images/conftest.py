"""A store with real images in it, and the command line run in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from podctl.store import Store
from podctl.testing import aci
from podctl.testing.ociimages import image, write_layout

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from podctl.store import ImageRecord
    from podctl.testing.ocilayers import Layer


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

    def layout(self, name: str, *layers: Layer, command: str = "/bin/true") -> str:
        """Path of a new OCI layout of one image of layers, lowest first."""
        place = self._scratch / os.urandom(4).hex() / name
        made = image(*layers, config={"Cmd": [command]})
        return str(write_layout(place, {"1": made}))

    def layered(self, name: str, *layers: Layer, command: str = "/bin/true") -> ImageRecord:
        """A new layered image in the store: `localhost/NAME`, version 1."""
        return self.fetch(f"oci:{self.layout(name, *layers, command=command)}")

    def fetch(self, reference: str) -> ImageRecord:
        """Fetch an image by its reference, signed or not."""
        ran = self.apart("--insecure-options=image", "fetch", "--full", reference)
        assert ran.code == 0, ran
        return self.store.image(ran.out.strip())

    def apart(self, *arguments: str) -> Ran:
        """Run one command line in a process of its own: what it keeps, it keeps to its end."""
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.write(write, json.dumps(self.podctl(*arguments)).encode())
            finally:
                os._exit(0)
        os.close(write)
        with open(read) as answer:
            text = answer.read()
        os.waitpid(pid, 0)
        return Ran(*json.loads(text))

    def podctl(self, *arguments: str) -> Ran:
        """Run one command line."""
        from podctl.cli.main import run

        self._capsys.readouterr()
        code = run(["--dir", str(self.data), *arguments])
        return Ran(code, *self._capsys.readouterr())

    def layer(self, record: ImageRecord, number: int = 0) -> Path:
        """The root filesystem that an image, or one of its layers, was unpacked to."""
        return self.data / "layers" / record.layers[number] / "rootfs"

    def blob(self, record: ImageRecord, number: int = 0) -> Path:
        """The bytes of an image, or of one of its layers, as published."""
        return self.data / self.store.layout.blob(record.blobs[number])


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
