"""From a record to an image: read by its format once, and from root's own view after that."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from pulling import Origin, image_of

from podctl import plugins
from podctl.errors import PluginMissing, StoreCorrupt
from podctl.images import converted
from podctl.images.pull import LayerSource
from podctl.model.manifest import App
from podctl.store.records import dump, seal, unseal
from podctl.testing.ocilayers import file, layer

if TYPE_CHECKING:
    from pathlib import Path

    from pulling import Puller

    from podctl.model.image import Image
    from podctl.store import ImageRecord

pytestmark = pytest.mark.root

BASE, TOP = layer(file("base", "b")), layer(file("top", "t"))
IMAGE = image_of("registry.example/app", BASE, TOP)._replace(app=App(exec=("/bin/app",), group=""))
EVIL = ("/bin/evil",)


class Format:
    """Stands for the format's plugin, and notes what it is asked to read."""

    def __init__(self, image: Image) -> None:
        self.answer = image
        self.read: list[bytes] = []

    def image(self, manifest: bytes) -> Image:
        """See FormatHandle."""
        self.read.append(manifest)
        return self.answer


class Scene:
    """An image in a store, and the plugin that reads it."""

    def __init__(self, puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = puller.store
        self.form = Format(IMAGE)
        self.installed = "first"
        self.record = puller.pull(IMAGE, LayerSource(fetch=Origin(BASE, TOP).fetch))
        self.path = puller.data / f"verified/{self.record.key}.image"
        self.manifest = puller.data / f"cas/images/{self.record.key}/manifest"
        monkeypatch.setattr(plugins, "image_format", lambda name: self.form)
        monkeypatch.setattr(converted, "installation", lambda form: f"{self.installed} {form}")

    def image(self, record: ImageRecord | None = None) -> Image:
        """The image as a command that runs it sees it."""
        return converted.image_of(self.store, record or self.record, remember=True)

    def rewrite(self, path: Path, **changes: Any) -> None:
        """Change a view, and seal it well."""
        value = {**unseal(path.read_bytes()), **changes}
        value.pop("crc32")
        path.write_bytes(seal(value, ordered=True))


@pytest.fixture
def scene(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(puller, monkeypatch)


def test_documents_are_read_once(scene: Scene) -> None:
    for _ in range(3):
        assert scene.image() == IMAGE
    assert scene.form.read == [IMAGE.manifest]


def test_a_look_keeps_nothing(scene: Scene) -> None:
    assert converted.image_of(scene.store, scene.record) == IMAGE
    assert not scene.path.exists()
    scene.image()
    assert scene.path.exists()  # the control


def test_another_installation_reads_anew(scene: Scene) -> None:
    scene.image()
    scene.installed = "second"
    scene.form.answer = IMAGE._replace(annotations={"author": "mended"})
    assert scene.image() == scene.form.answer
    assert scene.image() == scene.form.answer
    assert len(scene.form.read) == 2


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_view_is_made_anew(scene: Scene, damage: bytes | None) -> None:
    scene.image()
    content = scene.path.read_bytes()
    scene.path.unlink()
    if damage is not None:
        scene.path.write_bytes(damage)
    assert scene.image() == IMAGE
    assert scene.path.read_bytes() == content
    assert len(scene.form.read) == 2


def test_documents_that_were_changed_are_refused_beside_a_good_view(scene: Scene) -> None:
    scene.image()
    scene.manifest.write_bytes(IMAGE.manifest + b" ")
    with pytest.raises(StoreCorrupt, match="it is not the image's"):
        scene.image()


@pytest.mark.parametrize("field", ["name", "labels", "layers", "format"])
def test_a_view_that_a_record_contradicts_is_not_used(scene: Scene, field: str) -> None:
    """The record is the group's, so it is the view that has to be looked at again."""
    scene.image()
    changed = {
        "name": scene.record._replace(name="registry.example/other"),
        "labels": scene.record._replace(labels={"version": "2"}),
        "layers": scene.record._replace(layers=scene.record.layers[::-1]),
        "format": scene.record._replace(format="other"),
    }
    read = len(scene.form.read)
    assert scene.image(changed[field]) == IMAGE
    assert len(scene.form.read) == read + 1
    scene.image()
    scene.image()
    assert len(scene.form.read) <= read + 2


def test_a_view_of_other_layers_than_the_record_is_not_used(scene: Scene) -> None:
    scene.image()
    layers = [list(one) for one in IMAGE.layers[:1]]
    app = {"exec": list(EVIL), "user": "0", "group": "0"}
    scene.rewrite(scene.path, layers=layers, app=app)
    found = scene.image()
    assert found.app == IMAGE.app
    assert found.layers == IMAGE.layers
    # The control: of the right layers, what root's own file says is what counts.
    scene.rewrite(scene.path, app=app)
    again = scene.image().app
    assert again is not None
    assert again.exec == EVIL


def test_a_view_planted_where_the_group_writes_is_not_used(scene: Scene, puller: Puller) -> None:
    """A member may write anything anywhere below `cas`: no place there is looked for a view."""
    scene.image()
    app = {"exec": list(EVIL), "user": "0", "group": "0"}
    scene.rewrite(scene.path, app=app)
    planted = scene.path.read_bytes()
    scene.path.unlink()
    for name in ("view", "image", "view.json", scene.path.name):
        scene.manifest.with_name(name).write_bytes(planted)
    for place in ("cas", "cas/images", "cas/tmp", "cas/remotes"):
        (puller.data / place / scene.path.name).write_bytes(planted)
    read = len(scene.form.read)
    assert scene.image().app == IMAGE.app
    assert len(scene.form.read) == read + 1
    # The control: the same bytes in root's place would have been believed.
    scene.path.write_bytes(planted)
    again = scene.image().app
    assert again is not None
    assert again.exec == EVIL


def test_an_archive_needs_neither_plugin_nor_view(scene: Scene, puller: Puller) -> None:
    archive = f"sha512-{'c' * 128}"
    record = scene.record._replace(key=archive[:71], format="aci", layers=(archive,), document="",
                                   blobs=scene.record.blobs[:1])  # fmt: skip
    place = puller.data / "cas/images" / record.key
    place.mkdir()
    (place / "record.json").write_bytes(dump(record))
    (place / "manifest").write_text(
        '{"acKind": "ImageManifest", "acVersion": "0.8.11", "name": "aci.example/app"}'
    )
    assert scene.image(record).name == "aci.example/app"
    assert scene.form.read == []
    assert list((puller.data / "verified").glob("*.image")) == []


def test_what_is_not_installed_converts_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A view is no way round a plugin that was taken away."""
    scene.image()

    def missing(form: str) -> str:
        raise PluginMissing(form)

    monkeypatch.setattr(converted, "installation", missing)
    with pytest.raises(PluginMissing):
        scene.image()


def test_removal_takes_the_view_along(scene: Scene) -> None:
    scene.image()
    scene.store.mark_verified(scene.record.key, _note(scene.record))
    assert scene.store.remove(scene.record.key) == []
    assert os.listdir(scene.path.parent) == ["remotes"]


def test_collection_takes_a_view_without_an_image(scene: Scene) -> None:
    from podctl.store.gc import collect

    scene.image()
    orphan = scene.path.with_name(f"sha512-{'0' * 64}.image")
    orphan.write_bytes(scene.path.read_bytes())
    said: list[str] = []
    assert collect(scene.store, 10**6, said.append) == []
    assert said == [f'removed "verified/{orphan.name}"']
    assert scene.path.exists()


def _note(record: ImageRecord) -> Any:
    from podctl.store import Verification

    return Verification.unverified(record.name, record.labels, record.layers)


def test_the_installation_is_told_by_all_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from podctl.plugins.discovery import Installed
    from podctl.plugins.families import FORMAT
    from podctl.plugins.provider import Provider

    def told(version: str, state: str) -> str:
        provider = Provider(FORMAT.group, "oci", "plugin", "oci", "podctl-plugin", version)
        found = Installed([provider], indexed=True, state=state)
        monkeypatch.setattr(plugins, "snapshot", lambda: found)
        return converted.installation("oci")

    assert told("1", "a") == told("1", "a")
    assert len({told("1", "a"), told("2", "a"), told("1", "b")}) == 3
    monkeypatch.setattr("podctl.__version__", "99")
    assert told("1", "a").startswith("podctl 99, podctl-plugin 1, plugin:oci, ")
    with pytest.raises(PluginMissing):
        converted.installation("other")
