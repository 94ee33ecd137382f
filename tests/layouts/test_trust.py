"""Images of layouts are held to the same trust as those of registries (K2, K3, K14, K17)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from made import IMAGE_NAME, REF_NAME, blob, files_of, keep, rename, tar_of
from small import runnable

from podctl.testing import cosigning
from podctl.testing.cosigning import Signer
from podctl.testing.ociimages import index, top_of, write_layout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from home import Home

    from podctl.testing.ociimages import Document, Image, Index

pytestmark = pytest.mark.root

NAME = "registry.example/team/app"


@pytest.fixture(scope="module")
def alice() -> Signer:
    return Signer()


@pytest.fixture(scope="module")
def mallory() -> Signer:
    return Signer("ed25519")


class Desk:
    """A layout of one image, which is signed, and an installation that asks for signatures.

    Attributes:
        digest: of what the image's name leads to.
        manifest: of the image's manifest.
    """

    def __init__(self, home: Home, top: Path, made: Image | Index) -> None:
        self.home = home
        home.options.remove("--insecure-options=image")
        self.directory = write_layout(top / "app", {"1": made})
        rename(self.directory, **{REF_NAME: "1", IMAGE_NAME: f"{NAME}:1"})
        self.top = top_of(made)
        self.digest = self.top.digest

    def trust(self, signer: Signer, prefix: str = NAME) -> None:
        path = self.home.top / "key.pub"
        path.write_bytes(signer.public)
        self.home.must("trust", "--prefix", prefix, "--skip-fingerprint-review", str(path))

    def list(self, document: Document, **fields: Any) -> None:
        """List one more manifest in index.json."""
        place = self.directory / "index.json"
        value = json.loads(place.read_text())
        value["manifests"].append(document.descriptor(**fields))
        place.write_text(json.dumps(value))
        keep(self.directory, document.data)

    def tag(self, *signatures: cosigning.Simple, digest: str = "") -> None:
        """Lay signed payloads beside the image, as cosign tags them."""
        for one in signatures:
            keep(self.directory, one.payload)
        name = cosigning.signature_tag(digest or self.digest)
        document = cosigning.signature_manifest(*signatures)
        self.list(document, annotations={REF_NAME: name})

    def refer(self, bundle: bytes) -> None:
        """Lay a bundle beside the image, as a manifest that refers to it."""
        from podctl.testing.ociimages import document

        keep(self.directory, bundle)
        keep(self.directory, b"{}")
        value = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": cosigning.BUNDLE,
            "config": cosigning.EMPTY.descriptor(),
            "layers": [document(cosigning.BUNDLE, bundle).descriptor()],
            "subject": self.top.descriptor(),
        }
        made = document("application/vnd.oci.image.manifest.v1+json", value)
        self.list(made, artifactType=cosigning.BUNDLE)

    def run(self, way: str) -> str:
        """What the image says, run from the directory or from an archive of it."""
        image = f"oci:{self.directory}"
        if way == "archive":
            image = str(tar_of(self.home.top / "app.tar", files_of(self.directory)))
        return self.home.must("run", "--stage1=fly", image)

    def refused(self) -> str:
        """The line that refuses the image; nothing of it is kept."""
        line = self.home.refused("fetch", f"oci:{self.directory}")
        assert self.home.images() == []
        assert not list((self.home.data / "cas").rglob("blobs/sha256/*/*"))
        return line


@pytest.fixture(params=["manifest", "index"])
def desk(request: pytest.FixtureRequest, home: Home, tmp_path: Path) -> Desk:
    made = runnable(shell="echo signed")
    return Desk(home, tmp_path, made if request.param == "manifest" else index(made))


def by_payload(desk: Desk, signer: Signer) -> None:
    desk.tag(signer.simple(NAME, desk.digest))


def by_bundle(desk: Desk, signer: Signer) -> None:
    desk.refer(signer.bundle(desk.digest))


@pytest.mark.parametrize("way", ["directory", "archive"])
@pytest.mark.parametrize("lay", [by_payload, by_bundle], ids=["payload", "bundle"])
def test_a_signed_and_trusted_layout_runs_with_no_flag(
    desk: Desk, alice: Signer, lay: Callable[[Desk, Signer], None], way: str
) -> None:
    lay(desk, alice)
    desk.trust(alice)
    assert desk.run(way) == "signed\n"
    # By name, from the store: the signature is kept with it.
    assert desk.home.must("run", "--stage1=fly", f"{NAME}:1") == "signed\n"


def unsigned(desk: Desk, alice: Signer, mallory: Signer) -> str:
    return "has no signature"


def by_somebody_else(desk: Desk, alice: Signer, mallory: Signer) -> str:
    by_payload(desk, mallory)
    return "no signature by a trusted key|unknown entity|signature"


def for_another_repository(desk: Desk, alice: Signer, mallory: Signer) -> str:
    desk.tag(alice.simple("registry.example/team/other", desk.digest))
    return "registry.example/team/other"


def of_another_image(desk: Desk, alice: Signer, mallory: Signer) -> str:
    desk.tag(alice.simple(NAME, f"sha256:{'0' * 64}"))
    return "sha256:0000"


def taken_from_another_image(desk: Desk, alice: Signer, mallory: Signer) -> str:
    # Beside another digest: nothing looks there.
    desk.tag(alice.simple(NAME, desk.digest), digest=f"sha256:{'0' * 64}")
    return "has no signature"


def damaged(desk: Desk, alice: Signer, mallory: Signer) -> str:
    one = alice.simple(NAME, desk.digest)
    desk.tag(one)
    from podctl.testing.ocilayers import digest_of

    blob(desk.directory, digest_of(one.payload)).write_bytes(one.payload + b" ")
    return "signature"


BAD = [
    unsigned,
    by_somebody_else,
    for_another_repository,
    of_another_image,
    taken_from_another_image,
    damaged,
]


@pytest.mark.parametrize("spoil", BAD, ids=lambda case: case.__name__)
def test_a_layout_without_a_trusted_signature_is_refused(
    desk: Desk, alice: Signer, mallory: Signer, spoil: Callable[[Desk, Signer, Signer], str]
) -> None:
    import re

    rule = spoil(desk, alice, mallory)
    desk.trust(alice)
    assert re.search(rule, desk.refused()), desk.refused()


def test_an_image_signed_under_its_own_name_is_none_under_another(
    desk: Desk, alice: Signer
) -> None:
    """K3: a layout may say any name; the signature says the same, or it is none."""
    by_payload(desk, alice)
    value = json.loads((desk.directory / "index.json").read_text())
    value["manifests"][0]["annotations"][IMAGE_NAME] = "registry.example/team/redis:1"
    (desk.directory / "index.json").write_text(json.dumps(value))
    desk.trust(alice, "registry.example/team")
    assert "signature" in desk.refused()


def test_what_came_in_without_a_signature_is_refused_later(desk: Desk) -> None:
    desk.home.must("--insecure-options=image", "fetch", f"oci:{desk.directory}")
    for name in (f"{NAME}:1", f"docker://{NAME}:1"):
        done = desk.home.refused("run", "--stage1=fly", "--pull-policy=never", name)
        assert "without a signature" in done
    ran = desk.home.must("--insecure-options=image", "run", "--stage1=fly", f"{NAME}:1")
    assert ran == "signed\n"


@pytest.mark.parametrize("lay", [by_payload, by_bundle], ids=["payload", "bundle"])
@pytest.mark.parametrize("target", ["out", "out.tar"])
def test_an_exported_image_is_signed_as_it_was(
    desk: Desk, alice: Signer, lay: Callable[[Desk, Signer], None], target: str
) -> None:
    lay(desk, alice)
    desk.trust(alice)
    home = desk.home
    key = home.must("fetch", "--full", f"oci:{desk.directory}").strip()
    place = home.data / "cas/images" / key / "signature"
    signature = place.read_bytes()
    home.must("image", "export", f"{NAME}:1", str(home.top / target))
    home.must("image", "rm", key)
    again = home.must("fetch", "--full", f"oci:{home.top / target}")
    assert again.strip() == key
    assert place.read_bytes() == signature


def test_signatures_of_several_keys_keep_their_order(
    desk: Desk, alice: Signer, mallory: Signer
) -> None:
    signers = (mallory, alice, mallory)
    desk.tag(*(signer.simple(f"{NAME}:{n}", desk.digest) for n, signer in enumerate(signers)))
    desk.refer(alice.bundle(desk.digest))
    desk.trust(alice)
    home = desk.home
    key = home.must("fetch", "--full", f"oci:{desk.directory}").strip()
    place = home.data / "cas/images" / key / "signature"
    signature = place.read_bytes()
    home.must("image", "export", f"{NAME}:1", str(home.top / "out"))
    assert home.must("fetch", "--full", f"oci:{home.top}/out").strip() == key
    assert place.read_bytes() == signature
