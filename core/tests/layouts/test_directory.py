"""Layouts in directories: what a child may ask for, and what it is handed."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import pytest

from podctl.errors import InvalidInput, NotFound, PodctlError
from podctl.images import layoutdirectory
from podctl.images.layoutdirectory import LayoutDirectory, is_layout_name
from podctl.model.image import Layer
from podctl.model.layoutfiles import LayoutRequest, Member, Unfolded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from podctl.model.layoutfiles import LayoutFiles

REQUEST = LayoutRequest("oci", None, "/x", {}, want_signature=False)
BLOB = f"blobs/sha256/{'a' * 64}"
DIGEST = f"sha256:{'a' * 64}"


class Format:
    """A format whose way of finding an image is a test's."""

    def __init__(self, find: Callable[[LayoutFiles], object]) -> None:
        self._find = find

    def unfold(self, files: LayoutFiles, request: LayoutRequest) -> Unfolded:
        found = self._find(files)
        return found if isinstance(found, Unfolded) else Unfolded(repr(found).encode(), {})


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "blobs/sha256").mkdir(parents=True)
    (tmp_path / "oci-layout").write_text("marker")
    (tmp_path / BLOB).write_bytes(b"blob" * 1000)
    return tmp_path


@pytest.fixture
def ask(top: Path) -> Iterator[Callable[..., str]]:
    """What a child finds in the directory."""
    directory = LayoutDirectory(str(top))
    open_before = len(os.listdir("/proc/self/fd"))

    def unfold(find: Callable[[LayoutFiles], object]) -> str:
        form: Any = Format(find)
        return directory.unfold(form, REQUEST).document.decode()

    yield unfold
    assert len(os.listdir("/proc/self/fd")) == open_before
    directory.close()


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("oci-layout", True),
        ("index.json", True),
        (BLOB, True),
        (f"blobs/sha512/{'0' * 128}", True),
        ("", False),
        ("blobs", False),
        ("manifest.json", False),
        ("/etc/passwd", False),
        ("../index.json", False),
        ("./index.json", False),
        (f"blobs/sha256/{'a' * 63}", False),
        (f"blobs/sha256/{'A' * 64}", False),
        (f"blobs/sha512/{'a' * 64}", False),
        (f"blobs/md5/{'a' * 32}", False),
        (f"blobs/sha256/../{'a' * 61}", False),
        (f"{BLOB}/x", False),
        (f"{BLOB}\n", False),
    ],
)
def test_names_of_a_layout(name: str, good: bool) -> None:
    assert is_layout_name(name) is good


def test_the_child_sees_what_is_there(ask: Callable[..., str]) -> None:
    def find(files: LayoutFiles) -> object:
        return [
            files.find("oci-layout"),
            files.find("index.json"),
            files.read(BLOB, 6),
            files.read(BLOB, 1 << 30) == b"blob" * 1000,
            files.digest(BLOB),
        ]

    digest = f"sha256:{hashlib.sha256(b'blob' * 1000).hexdigest()}"
    assert ask(find) == repr([Member(6), None, b"blobbl", True, digest])


@pytest.mark.root
def test_the_child_is_nobody_and_opens_nothing_itself(ask: Callable[..., str], top: Path) -> None:
    top.chmod(0o700)
    (top / "oci-layout").chmod(0o600)

    def find(files: LayoutFiles) -> object:
        try:
            os.open(top / "oci-layout", os.O_RDONLY)
        except PermissionError:
            return [os.getuid(), files.read("oci-layout", 9)]
        return "opened"

    assert ask(find) == repr([65534, b"marker"])


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret", "blobs/../oci-layout", "x" * 5000])
def test_a_child_that_asks_for_more_is_ended(ask: Callable[..., str], name: str) -> None:
    with pytest.raises(InvalidInput, match="has no place in a layout"):
        ask(lambda files: files.find(name))


def test_a_child_that_asks_without_end_is_ended(
    ask: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layoutdirectory, "MAX_REQUESTS", 50)
    assert ask(lambda files: [files.find(BLOB) for _ in range(49)][0]) == repr(Member(4000))
    with pytest.raises(InvalidInput, match="more than 50 files"):
        ask(lambda files: [files.find(BLOB) for _ in range(60)])


def test_a_child_that_fails_or_dies_is_no_reason_to_wait(ask: Callable[..., str]) -> None:
    with pytest.raises(NotFound, match="is missing"):
        ask(lambda files: files.read("index.json", 1))
    with pytest.raises(PodctlError, match="killed by signal 9"):
        ask(lambda files: os.kill(os.getpid(), 9))


def test_a_child_that_says_nonsense_is_answered_no_more(ask: Callable[..., str]) -> None:
    def find(files: Any) -> object:
        files._connection.send(b"")
        return files.find(BLOB)

    with pytest.raises(PodctlError, match="nobody opens files any more"):
        ask(find)


def test_large_answers_arrive(ask: Callable[..., str]) -> None:
    assert len(ask(lambda files: Unfolded(b"x" * (3 << 20), {DIGEST: BLOB}))) == 3 << 20


def test_layers_are_opened_as_the_child_named_them(top: Path) -> None:
    directory = LayoutDirectory(str(top))
    form: Any = Format(lambda files: Unfolded(b"", {DIGEST: BLOB}))
    directory.unfold(form, REQUEST)
    layer = Layer("sha256-x", DIGEST, 4000, "none")
    fd = directory.open_layer(layer)
    assert os.read(fd, 4) == b"blob"
    os.close(fd)
    (top / BLOB).unlink()
    with pytest.raises(NotFound, match="has gone"):
        directory.open_layer(layer)
    (top / BLOB).symlink_to(top / "oci-layout")
    with pytest.raises(InvalidInput, match="symbolic link"):
        directory.open_layer(layer)
    form = Format(lambda files: Unfolded(b"", {DIGEST: "../../etc/passwd"}))
    directory.unfold(form, REQUEST)
    with pytest.raises(InvalidInput, match="has no place in a layout"):
        directory.open_layer(layer)
    directory.close()
