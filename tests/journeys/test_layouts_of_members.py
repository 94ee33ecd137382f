"""Members of the group take in layouts and archives, and root believes no byte of theirs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from people_world import People

from podctl.testing.cosigning import Signer, signature_manifest, signature_tag
from podctl.testing.ociimages import write_layout

_TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(_TESTS / "layouts"), str(_TESTS / "registry")]

from made import IMAGE_NAME, REF_NAME, files_of, keep, rename, tar_of  # noqa: E402
from small import runnable  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from site_world import Site

pytestmark = pytest.mark.root

NAME = "registry.example/team/app"
FLY = "--stage1=fly"


@pytest.fixture(scope="module")
def people(published: Site) -> Iterator[People]:
    """Three people and root, and a signed layout whose key is trusted."""
    people = People(published)
    try:
        people.make_people()
        signer = Signer()
        made = runnable(shell="echo of the member")
        place = rename(
            write_layout(people.top / "layout", {"1": made}),
            **{REF_NAME: "1", IMAGE_NAME: f"{NAME}:1"},
        )
        payload = signer.simple(NAME, made.digest)
        document = signature_manifest(payload)
        for data in (payload.payload, document.data):
            keep(place, data)
        index = json.loads((place / "index.json").read_text())
        tagged = {REF_NAME: signature_tag(made.digest)}
        index["manifests"].append(document.descriptor(annotations=tagged))
        (place / "index.json").write_text(json.dumps(index))
        tar_of(people.top / "image.tar", files_of(place))
        (people.top / "key.pub").write_bytes(signer.public)
        key = str(people.top / "key.pub")
        people.must("trust", "--prefix", NAME, "--skip-fingerprint-review", key)
        mine = people.top / "mine"
        mine.mkdir()
        mine.chmod(0o777)
        yield people
    finally:
        people.close()


@pytest.fixture(autouse=True)
def _no_images(people: People) -> Iterator[None]:
    yield
    for key in people.images():
        people.must("image", "rm", key)


@pytest.mark.parametrize("image", ["oci:{}/layout", "{}/image.tar", "oci-archive:{}/image.tar"])
def test_what_a_member_takes_in_runs_for_root(people: People, image: str) -> None:
    before = sorted((people.data / "layers").iterdir())
    done = people.by("member", "fetch", "--full", image.format(people.top))
    assert done.returncode == 0, done.stderr
    (key,) = people.images()
    assert done.stdout.strip() == key
    assert sorted((people.data / "layers").iterdir()) == before
    ran = people.must("run", FLY, "--pull-policy=never", f"{NAME}:1")
    assert ran == "of the member\n"


def test_what_a_member_exports_is_what_came_in(people: People) -> None:
    first = people.by("member", "fetch", "--full", f"oci:{people.top}/layout").stdout
    for target, form in (("out", "oci"), ("out.tar", "oci"), ("docker.tar", "docker")):
        place = f"{people.top}/mine/{target}"
        done = people.by("member", "image", "export", f"--format={form}", f"{NAME}:1", place)
        assert done.returncode == 0, done.stderr
    people.must("image", "rm", f"{NAME}:1")
    for target in ("out", "out.tar"):
        done = people.by("member", "fetch", "--full", f"oci:{people.top}/mine/{target}")
        assert done.stdout == first, done.stderr
    done = people.by("member", "image", "export", "--format=aci", f"{NAME}:1", f"{place}.aci")
    assert done.returncode == 254
    assert "run it as root" in done.stderr


def test_a_member_has_no_right_that_is_not_its_own(people: People) -> None:
    """What only root can read, no member's command reads for it."""
    closed = people.top / "closed"
    closed.mkdir(mode=0o700)
    rename(write_layout(closed / "layout", {"1": runnable()}))
    tar_of(closed / "image.tar", files_of(closed / "layout"))
    for image in (f"oci:{closed}/layout", f"oci:{closed}/image.tar", f"{closed}/image.tar"):
        done = people.by("member", "--insecure-options=image", "fetch", image)
        assert done.returncode == 254
        assert "Permission denied" in done.stderr
    # Control: root may.
    people.must("--insecure-options=image", "fetch", f"oci:{closed}/layout")


def test_documents_a_member_changes_are_not_the_image(people: People) -> None:
    people.by("member", "fetch", f"oci:{people.top}/layout")
    (key,) = people.images()
    path = people.data / "cas/images" / key / "manifest"
    text = path.read_bytes()
    changed = text.replace(b"of the member", b"of the devil!")
    assert changed != text
    path.write_bytes(changed)
    for words in (
        ("run", FLY, "--pull-policy=never", f"{NAME}:1"),
        ("image", "export", f"{NAME}:1", f"{people.top}/mine/bad"),
        ("image", "cat-manifest", f"{NAME}:1"),
    ):
        assert "it is not the image's" in people.refused(*words)
    assert not (people.top / "mine/bad").exists()
    path.write_bytes(text)
    people.must("run", FLY, "--pull-policy=never", f"{NAME}:1")
