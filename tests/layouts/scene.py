"""A good layout that is about to be spoilt, and files that nothing may touch."""

from __future__ import annotations

import json
import resource
from typing import TYPE_CHECKING, Any

from made import keep

from podctl.testing.ociimages import image, write_layout
from podctl.testing.ocilayers import file, layer

if TYPE_CHECKING:
    from pathlib import Path

MADE = image(
    layer(file("srv/words", "words"), compression="none"),
    layer(file("srv/more", "x" * 5000)),
    config={"Cmd": ["/srv/words"]},
)
SECRET = "the-secret-of-somebody-else"


class Scene:
    """A good layout that is about to be spoilt, and files that nothing may touch.

    Attributes:
        top: the layout's directory.
        outside: a directory with a file that only root can read.
    """

    def __init__(self, tmp_path: Path) -> None:
        self.top = write_layout(tmp_path / "layout", {"1": MADE})
        self.outside = tmp_path / "outside"
        self.outside.mkdir()
        (self.outside / "secret").write_text(SECRET)
        (self.outside / "secret").chmod(0o600)

    def blob(self, digest: str) -> Path:
        return self.top / "blobs" / digest.replace(":", "/")

    @property
    def manifest(self) -> Path:
        return self.blob(MADE.manifest.digest)

    @property
    def config(self) -> Path:
        return self.blob(MADE.config.digest)

    @property
    def layer(self) -> Path:
        return self.blob(MADE.layers[1].digest)

    @property
    def index(self) -> Path:
        return self.top / "index.json"

    def entry(self, **fields: Any) -> None:
        """Change members of the image's descriptor."""
        value = json.loads(self.index.read_text())
        value["manifests"][0].update(fields)
        self.index.write_text(json.dumps(value))

    def describe(self, manifest: bytes) -> None:
        """Let the index lead to another manifest."""
        self.entry(digest=keep(self.top, manifest), size=len(manifest))

    def canary(self) -> dict[str, Any]:
        """The files outside: content, mode, owner, time."""
        found = {}
        for path in [self.outside, *self.outside.rglob("*")]:
            status = path.stat()
            owner = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
            found[str(path)] = (path.read_bytes() if path.is_file() else None, owner)
        return found


def little_memory() -> None:
    """What any input may take, with the interpreter and its libraries."""
    resource.setrlimit(resource.RLIMIT_DATA, (256 << 20, 256 << 20))
