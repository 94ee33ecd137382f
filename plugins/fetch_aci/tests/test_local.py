"""Images that are files: followed where the user points, but only to regular files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from podctl.errors import FetchFailed
from podctl.model.fetching import FetchRequest
from podctl.model.reference import parse
from podctl_fetch_aci.hooks import file

if TYPE_CHECKING:
    from pathlib import Path


def open_local(path: Path, **fields: Any) -> tuple[bytes, bytes | None]:
    """Content and signature of an image file."""
    local = file.transport_open_local(parse(str(path)), FetchRequest(**fields))
    with open(local.fd, "rb") as image:
        return image.read(), local.signature


def test_image_and_signature_are_opened(tmp_path: Path) -> None:
    (tmp_path / "app.aci").write_bytes(b"image")
    (tmp_path / "app.aci.asc").write_bytes(b"signature")
    assert open_local(tmp_path / "app.aci") == (b"image", b"signature")
    assert open_local(tmp_path / "app.aci", want_signature=False) == (b"image", None)


def test_image_without_signature(tmp_path: Path) -> None:
    (tmp_path / "app.aci").write_bytes(b"image")
    local = file.transport_open_local(parse(str(tmp_path / "app.aci")), FetchRequest())
    os.close(local.fd)
    assert local.signature is None
    assert local.signature_path == f"{tmp_path}/app.aci.asc"


def test_symbolic_link_is_the_user_s_word(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"image")
    (tmp_path / "app.aci").symlink_to("real")
    assert open_local(tmp_path / "app.aci")[0] == b"image"


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo", "device", "loop", "dangling"])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "app.aci"
    make = {
        "missing": lambda: None,
        "directory": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "loop": lambda: path.symlink_to(path),
        "dangling": lambda: path.symlink_to("nowhere"),
    }
    make[kind]()
    with pytest.raises(FetchFailed, match=r"app\.aci"):
        open_local(path)


def test_signature_that_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "app.aci").write_bytes(b"image")
    os.mkfifo(tmp_path / "app.aci.asc")
    with pytest.raises(FetchFailed, match="signature file .* not a regular file"):
        open_local(tmp_path / "app.aci")


def test_giant_signature_is_refused_and_nothing_stays_open(tmp_path: Path) -> None:
    (tmp_path / "app.aci").write_bytes(b"image")
    with (tmp_path / "app.aci.asc").open("wb") as signature:
        signature.truncate((1 << 20) + 1)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FetchFailed, match="larger than 1048576 bytes"):
        open_local(tmp_path / "app.aci")
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_resolution_names_the_file(tmp_path: Path) -> None:
    resolution = file.transport_resolve(parse(f"{tmp_path}/app.aci"), FetchRequest())
    assert resolution.location == f"file://{tmp_path}/app.aci"
    assert resolution.signature_location == f"file://{tmp_path}/app.aci.asc"
