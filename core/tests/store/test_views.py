"""Root's views of layered images: kept where root alone writes, believed no further than that."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from podctl.model.image import Image, Layer
from podctl.model.isolators import make_isolator
from podctl.model.manifest import App, Dependency, MountPoint, Port
from podctl.store import Store
from podctl.store.digests import sha256_hex, sha512_hex
from podctl.store.layout import name_of
from podctl.store.records import seal, unseal
from podctl.store.views import MAX_VIEW, find_view, keep_view, unseal_view, view_problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.root

KEY, OTHER_KEY = f"sha512-{'a' * 64}", f"sha512-{'b' * 64}"
HERE, ELSEWHERE = "podctl 1, plugin 1", "podctl 1, plugin 2"
LAYERS = (
    Layer(f"sha256-{'1' * 64}", f"sha256:{'2' * 64}", 100, "gzip"),
    Layer(f"sha256-{'3' * 64}", f"sha256:{'4' * 64}", 200, "zstd"),
    Layer(f"sha256-{'1' * 64}", f"sha256:{'2' * 64}", 100, "gzip"),
)
APP = App(
    exec=("/bin/app", "", "a\nb", "\u00e9\U0001f600"),
    user="app",
    group="",
    supplementary_gids=(1, 2),
    event_handlers={"pre-start": ("/bin/before",)},
    working_directory="/srv",
    environment={"Z": "1", "A": "2", "M": ""},
    isolators=(make_isolator("os/linux/no-new-privileges", True),),
    mount_points=(MountPoint("volume-data", "/data"), MountPoint("ro", "/ro", True)),
    ports=(Port("8080-tcp", "tcp", 8080), Port("many", "udp", 1000, 10, True)),
    user_annotations={"z": "1", "a": "2"},
    user_labels={"z": "1", "a": "2"},
)
IMAGE = Image(
    format="oci",
    name="registry.example/app",
    labels={"version": "1.0", "os": "linux", "arch": "amd64"},
    app=APP,
    dependencies=(),
    path_whitelist=(),
    annotations={"created": "2026-01-01T00:00:00Z", "appc.io/docker/repository": "app"},
    manifest=b"documents",
    layers=LAYERS,
)
#: as it is kept: the documents are not in it
VIEW = IMAGE._replace(manifest=b"")


@pytest.fixture
def store(data_dir: Path) -> Store:
    store = Store(str(data_dir))
    store.layout.create(privileged=True)
    return store


@pytest.fixture
def path(store: Store, data_dir: Path) -> Path:
    """The file of a view that was kept."""
    keep_view(store, KEY, IMAGE, HERE)
    return data_dir / "verified" / f"{KEY}.image"


def rewrite(path: Path, **changes: Any) -> None:
    """Change members of a view, and seal it well."""
    value = {**unseal(path.read_bytes()), **changes}
    value.pop("crc32")
    path.write_bytes(seal(value, ordered=True))


@pytest.mark.parametrize("app", [APP, App(), None], ids=["all", "nothing", "none"])
def test_a_view_is_read_as_it_was_kept(store: Store, app: App | None) -> None:
    keep_view(store, KEY, IMAGE._replace(app=app), HERE)
    assert find_view(store, KEY, HERE) == VIEW._replace(app=app)


def test_a_view_keeps_the_order_of_what_is_named(store: Store, path: Path) -> None:
    found = find_view(store, KEY, HERE)
    assert found is not None
    assert found.app is not None
    assert list(found.labels) == list(IMAGE.labels)
    assert list(found.annotations) == list(IMAGE.annotations)
    for field in ("environment", "user_labels", "user_annotations"):
        assert list(getattr(found.app, field)) == list(getattr(APP, field))


def test_a_view_is_root_s_alone(store: Store, path: Path) -> None:
    status = path.stat()
    assert (status.st_mode & 0o7777, status.st_uid) == (0o600, 0)
    assert [name for name in os.listdir(path.parent) if name.startswith(".")] == []


def test_a_view_of_another_installation_does_not_count(store: Store, path: Path) -> None:
    assert find_view(store, KEY, ELSEWHERE) is None
    keep_view(store, KEY, IMAGE._replace(name="registry.example/new"), ELSEWHERE)
    assert find_view(store, KEY, ELSEWHERE) == VIEW._replace(name="registry.example/new")
    assert find_view(store, KEY, HERE) is None


def test_a_view_of_another_version_of_the_file_does_not_count(store: Store, path: Path) -> None:
    rewrite(path, version=2)
    assert find_view(store, KEY, HERE) is None
    assert view_problem(store, KEY, IMAGE, HERE) is None  # it is no damage
    rewrite(path, version=1)
    assert find_view(store, KEY, HERE) == VIEW


def test_a_view_of_another_image_does_not_count(store: Store, path: Path) -> None:
    path.rename(path.with_name(f"{OTHER_KEY}.image"))
    assert find_view(store, OTHER_KEY, HERE) is None
    with pytest.raises(ValueError, match="another image"):
        unseal_view(path.with_name(f"{OTHER_KEY}.image").read_bytes(), OTHER_KEY)
    path.with_name(f"{OTHER_KEY}.image").rename(path)
    assert find_view(store, KEY, HERE) == VIEW  # the control


def test_a_flipped_bit_anywhere_is_seen(store: Store, path: Path) -> None:
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        assert find_view(store, KEY, HERE) is None
        assert str(view_problem(store, KEY, IMAGE, HERE)).startswith("cannot be used: ")
    path.write_bytes(data)
    assert find_view(store, KEY, HERE) == VIEW


@pytest.mark.parametrize(
    "changes",
    [
        {"app": []}, {"app": {"exec": "x"}}, {"app": {"exec": ["/x"], "user": 0}}, {"layers": None},
        {"layers": [["x"]]}, {"labels": 1}, {"annotations": None}, {"app": "text"},
    ],
)  # fmt: skip
def test_a_view_that_is_none_is_as_good_as_missing(
    store: Store, path: Path, changes: dict[str, Any]
) -> None:
    rewrite(path, **changes)
    assert find_view(store, KEY, HERE) is None
    problem = view_problem(store, KEY, IMAGE, HERE)
    assert problem == "says something else than the image's documents"


@pytest.mark.parametrize("kind", ["missing", "empty", "directory", "fifo", "link", "large"])
def test_what_is_no_file_of_a_view_is_as_good_as_missing(
    store: Store, path: Path, kind: str
) -> None:
    content = path.read_bytes()
    path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.with_name("elsewhere").write_bytes(content)
        path.symlink_to("elsewhere")
    elif kind != "missing":
        path.touch()
        os.truncate(path, MAX_VIEW + 1 if kind == "large" else 0)
    assert find_view(store, KEY, HERE) is None
    assert (view_problem(store, KEY, IMAGE, HERE) is None) == (kind == "missing")


def test_what_a_view_cannot_say_is_not_kept(store: Store, data_dir: Path) -> None:
    dependency = Dependency("registry.example/base")
    odd = make_isolator("registry.example/odd", {"of": (1, 2)})
    for image in (
        IMAGE._replace(dependencies=(dependency,)),
        IMAGE._replace(path_whitelist=("/bin",)),
        IMAGE._replace(app=APP._replace(isolators=(odd,))),
        IMAGE._replace(app=APP._replace(user="")),
        IMAGE._replace(annotations={"large": "x" * MAX_VIEW}),
    ):
        keep_view(store, KEY, image, HERE)
        assert list((data_dir / "verified").glob("*.image")) == [], image
    keep_view(store, KEY, IMAGE, HERE)
    assert find_view(store, KEY, HERE) == VIEW  # the control


def test_a_view_that_cannot_be_written_is_no_failure(store: Store, data_dir: Path) -> None:
    (data_dir / "verified/remotes").rmdir()
    (data_dir / "verified").rmdir()
    keep_view(store, KEY, IMAGE, HERE)
    assert find_view(store, KEY, HERE) is None


def test_without_root_there_are_no_views(
    store: Store, path: Path, data_dir: Path, in_child: Callable[[Callable[[], object]], int]
) -> None:
    (data_dir / "verified").chmod(0o777)
    data_dir.chmod(0o777)
    path.chmod(0o644)

    def as_somebody() -> None:
        os.setgid(65534)
        os.setuid(65534)
        mine = Store(str(data_dir))
        assert find_view(mine, KEY, HERE) is None
        keep_view(mine, OTHER_KEY, IMAGE, HERE)
        assert view_problem(mine, KEY, IMAGE._replace(name="x"), HERE) is None

    assert in_child(as_somebody) == 0
    assert os.listdir(path.parent).count(f"{OTHER_KEY}.image") == 0


def test_a_view_that_differs_from_the_documents_is_told(store: Store, path: Path) -> None:
    assert view_problem(store, KEY, IMAGE, HERE) is None
    rewrite(path, name="registry.example/other")
    assert view_problem(store, KEY, IMAGE, HERE) is not None
    assert view_problem(store, KEY, IMAGE, ELSEWHERE) is None  # nobody would use it


def test_digests_without_openssl_are_the_same() -> None:
    for data in (b"", b"abc", bytes(range(256)) * 1000):
        assert sha256_hex(data) == hashlib.sha256(data).hexdigest()
        assert sha512_hex(data) == hashlib.sha512(data).hexdigest()
    assert name_of("https://a\udcff") == hashlib.sha256(b"https://a\xff").hexdigest()


def test_a_sealed_object_may_keep_its_order() -> None:
    value = {"b": 1, "a": {"d": 1, "c": 2}}
    assert list(unseal(seal(value, ordered=True))) == ["crc32", "b", "a"]
    assert list(unseal(seal(value))) == ["crc32", "a", "b"]
    assert json.loads(seal(value)) == {**json.loads(seal(value, ordered=True))} | {
        "crc32": json.loads(seal(value))["crc32"]
    }
