"""Stores in scratch directories, and images that are put into them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from podctl.store import ImageRecord, StagedImage, StagedLayer, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    Put = Callable[..., ImageRecord]


def put_image(
    store: Store,
    name: str,
    content: bytes = b"content",
    *,
    labels: Mapping[str, str] | None = None,
    latest: bool = False,
    signature: bytes | None = None,
) -> ImageRecord:
    """Commit an image whose bytes and tree are made up here, without reading an archive."""
    chosen = {"version": "1"} if labels is None else labels
    manifest = json.dumps({"name": name, "labels": chosen}).encode()
    data = manifest + content
    diff_id = "sha512-" + hashlib.sha512(data).hexdigest()
    blob = "sha256:" + hashlib.sha256(data).hexdigest()
    with store.staging() as staging:
        piece = staging.piece()
        os.write(piece.blob_fd, data)
        if piece.directory is not None:
            with open(f"{piece.directory}/file", "wb") as file:
                file.write(content)
        staged = StagedImage(
            key=store.key_of(diff_id),
            format="aci",
            name=name,
            labels=chosen,
            layers=(StagedLayer(diff_id, blob, len(data), piece),),
            blob_size=len(data),
            manifest=manifest,
            signature=signature,
            source=f"https://{name}",
            latest=latest,
        )
        return store.commit(staging, staged)


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A data directory that does not exist yet."""
    yield tmp_path / "data"
    shutil.rmtree(tmp_path / "data", ignore_errors=True)


@pytest.fixture
def store(data_dir: Path) -> Store:
    """An empty store."""
    return Store(str(data_dir))


@pytest.fixture
def put() -> Put:
    """Commit a made-up image: `put(store, name, content, labels=, latest=, signature=)`."""
    return put_image


@pytest.fixture
def in_child() -> Callable[[Callable[[], object]], int]:
    """Run a function in a forked child; its exit code is 0 unless the function raises."""

    def run(function: Callable[[], object]) -> int:
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                function()
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    return run
