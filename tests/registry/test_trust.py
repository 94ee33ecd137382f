"""Signed images of a registry run with no flag, and no other does: rows K2, K3, K14, K16, K17."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from refusals import assert_refused

from podctl.testing import cosigning
from podctl.testing.cosigning import Signer
from podctl.testing.ociimages import image, index, top_of
from podctl.testing.ocilayers import directory, file, layer, symlink

if TYPE_CHECKING:
    from collections.abc import Callable

    from clean_home import Clean

    from podctl.testing.ociimages import Index
    from podctl.testing.registry import Registry

pytestmark = pytest.mark.root

HOST = "registry.example"
NAME = "team/app"
ASKED = f"docker://{HOST}/{NAME}:1"
SKIP = "--skip-fingerprint-review"


@pytest.fixture(scope="module")
def alice() -> Signer:
    return Signer()


@pytest.fixture(scope="module")
def mallory() -> Signer:
    return Signer()


def hello(words: str) -> Index:
    """An image that says something, behind an index."""
    busybox = Path("/bin/busybox").read_bytes()
    program = layer(
        directory("bin"), file("bin/busybox", busybox, mode=0o755), symlink("bin/sh", "busybox")
    )
    text = layer(directory("srv"), file("srv/words", f"{words}\n"))
    return index(image(program, text, config={"Cmd": ["/bin/busybox", "cat", "/srv/words"]}))


class Scene:
    """A registry with an image, and an installation that asks for signatures.

    Attributes:
        digest: of the image's index.
        manifest: digest of its manifest.
        layers: digests of its layers.
    """

    def __init__(self, home: Clean, registry: Registry, alice: Signer, mallory: Signer) -> None:
        self.home, self.registry, self.alice, self.mallory = home, registry, alice, mallory
        home.options.remove("--insecure-options=image")
        made = hello("one")
        self.digest = registry.put(NAME, made, "1")
        self.manifest = top_of(made.images[0]).digest
        self.layers = [layer.digest for layer in made.images[0].layers]

    def trust(self, signer: Signer, prefix: str = f"{HOST}/{NAME}") -> None:
        path = self.home.top / "key.pub"
        path.write_bytes(signer.public)
        self.home.must("trust", "--prefix", prefix, SKIP, str(path))

    def sign(self, signer: Signer, digest: str = "", name: str = f"{HOST}/{NAME}") -> None:
        """Lay one signature beside the image, in place of others."""
        one = signer.simple(name, digest or self.digest)
        cosigning.attach_tag(self.registry, NAME, self.digest, one)


@pytest.fixture
def scene(home: Clean, registry: Registry, alice: Signer, mallory: Signer) -> Scene:
    return Scene(home, registry, alice, mallory)


# Good ones.


def by_payload(scene: Scene) -> None:
    scene.sign(scene.alice)


def by_payload_of_the_manifest(scene: Scene) -> None:
    one = scene.alice.simple(f"{HOST}/{NAME}", scene.manifest)
    cosigning.attach_tag(scene.registry, NAME, scene.manifest, one)


def by_payload_with_the_tag(scene: Scene) -> None:
    scene.sign(scene.alice, name=f"{HOST}/{NAME}:1")


def by_payload_as_referrer(scene: Scene) -> None:
    one = scene.alice.simple(f"{HOST}/{NAME}", scene.digest)
    cosigning.attach_referrer(scene.registry, NAME, scene.digest, one)


def by_bundle(scene: Scene) -> None:
    cosigning.attach_bundle(scene.registry, NAME, scene.digest, scene.alice.bundle(scene.digest))


def by_bundle_of_the_manifest(scene: Scene) -> None:
    cosigning.attach_bundle(
        scene.registry, NAME, scene.manifest, scene.alice.bundle(scene.manifest)
    )


def by_one_of_three(scene: Scene) -> None:
    name = f"{HOST}/{NAME}"
    signatures = [
        scene.mallory.simple(name, scene.digest),
        scene.alice.simple(name, scene.digest),
        scene.alice.simple(f"{HOST}/team/other", scene.digest),
    ]
    cosigning.attach_tag(scene.registry, NAME, scene.digest, *signatures)


GOOD = [
    by_payload,
    by_payload_of_the_manifest,
    by_payload_with_the_tag,
    by_payload_as_referrer,
    by_bundle,
    by_bundle_of_the_manifest,
    by_one_of_three,
]


@pytest.mark.parametrize("lay", GOOD, ids=lambda case: case.__name__)
def test_a_signed_and_trusted_image_runs_with_no_flag(
    scene: Scene, lay: Callable[[Scene], None]
) -> None:
    scene.trust(scene.alice)
    lay(scene)
    ran = scene.home.podctl("run", "--stage1=fly", ASKED)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "one\n"
    assert "signature verified" in ran.stderr
    # From the store, too, and without the registry.
    scene.registry.repositories.clear()
    again = scene.home.podctl("run", "--stage1=fly", "--pull-policy=never", ASKED)
    assert (again.returncode, again.stdout) == (0, "one\n"), again.stderr


@pytest.mark.parametrize("kind", ["p256", "p384", "ed25519", "rsa"])
def test_every_kind_of_key_will_do(scene: Scene, kind: str) -> None:
    signer = Signer(kind)
    scene.trust(signer, HOST)
    scene.sign(signer)
    scene.home.must("fetch", ASKED)


def test_an_image_asked_for_by_digest_may_have_any_tag(scene: Scene) -> None:
    scene.trust(scene.alice)
    scene.sign(scene.alice, name=f"{HOST}/{NAME}:0.9")
    scene.home.must("fetch", f"docker://{HOST}/{NAME}@{scene.digest}")
    assert_refused(scene.home, "is for the tag 0.9, not for 1", "fetch", ASKED)


# Bad ones.


def unsigned(scene: Scene) -> str:
    return "no signature"


def hidden_by_the_registry(scene: Scene) -> str:
    """Row K16: it is signed, but the registry does not say so."""
    scene.sign(scene.alice)
    place = scene.registry.at(NAME)
    del place.tags[cosigning.signature_tag(scene.digest)]
    return "no signature"


def signed_by_a_stranger(scene: Scene) -> str:
    scene.sign(scene.mallory)
    return "by no key that is trusted here"


def signed_for_another_repository(scene: Scene) -> str:
    scene.sign(scene.alice, name=f"{HOST}/team/other")
    return f"is for {HOST}/team/other, not for {HOST}/{NAME}"


def signed_at_another_registry(scene: Scene) -> str:
    scene.sign(scene.alice, name=f"mirror.example/{NAME}")
    return f"is for mirror.example/{NAME}, not for"


def signed_under_another_tag(scene: Scene) -> str:
    scene.sign(scene.alice, name=f"{HOST}/{NAME}:2")
    return "is for the tag 2, not for 1"


def signed_with_another_content(scene: Scene) -> str:
    other = scene.registry.put(NAME, hello("two"), "2")
    scene.sign(scene.alice, digest=other)
    return "neither this image nor its index"


def replaced_by_a_signed_one(scene: Scene) -> str:
    """The image is another than was signed; the signature is still the old one."""
    scene.sign(scene.alice)
    old = scene.digest
    scene.digest = scene.registry.put(NAME, hello("evil"), "1")
    place = scene.registry.at(NAME)
    place.tags[cosigning.signature_tag(scene.digest)] = place.tags[cosigning.signature_tag(old)]
    return "neither this image nor its index"


def attested_but_not_signed(scene: Scene) -> str:
    predicate = "https://slsa.dev/provenance/v1"
    bundle = scene.alice.bundle(scene.digest, predicate=predicate)
    cosigning.attach_bundle(scene.registry, NAME, scene.digest, bundle)
    return "is no signature of the image|no signature"


def keyless(scene: Scene) -> str:
    bundle = scene.alice.bundle(scene.digest)
    changed = bundle.replace(
        b'{"publicKey": {"hint": ""}}', b'{"certificate": {"rawBytes": "MAA="}}'
    )
    assert changed != bundle
    cosigning.attach_bundle(scene.registry, NAME, scene.digest, changed)
    return "keyless signatures"


def junk(scene: Scene) -> str:
    one = cosigning.Simple(b"<html>404</html>", "AAAA")
    cosigning.attach_tag(scene.registry, NAME, scene.digest, one)
    return "payload"


BAD = [
    unsigned,
    hidden_by_the_registry,
    signed_by_a_stranger,
    signed_for_another_repository,
    signed_at_another_registry,
    signed_under_another_tag,
    signed_with_another_content,
    replaced_by_a_signed_one,
    attested_but_not_signed,
    keyless,
    junk,
]


@pytest.mark.parametrize("lay", BAD, ids=lambda case: case.__name__)
def test_all_others_are_refused_and_nothing_is_kept(
    scene: Scene, lay: Callable[[Scene], str]
) -> None:
    scene.trust(scene.alice)
    reason = lay(scene)
    scene.registry.log.clear()
    assert_refused(scene.home, reason, "fetch", ASKED)
    # It is refused before a layer is asked for.
    assert not any(scene.registry.asked("blob", digest) for digest in scene.layers)
    assert_refused(scene.home, reason, "run", "--stage1=fly", ASKED)
    # Control: it is the signature that is missing.
    ran = scene.home.podctl("--insecure-options=image", "run", "--stage1=fly", ASKED)
    assert ran.returncode == 0, ran.stderr
    assert scene.registry.asked("blob", scene.layers[0])


@pytest.mark.parametrize(
    "prefix", [f"{HOST}/team/other", f"{HOST}/{NAME}/more", f"{HOST}/{NAME}2", "mirror.example"]
)
def test_a_key_counts_for_its_prefix_alone(scene: Scene, prefix: str) -> None:
    scene.trust(scene.alice, prefix)
    scene.sign(scene.alice)
    assert_refused(scene.home, "unknown entity", "fetch", ASKED)
    scene.trust(scene.alice, f"{HOST}/team")
    scene.home.must("fetch", ASKED)


def test_a_signature_does_not_make_a_later_image_good(scene: Scene) -> None:
    """What is in the store was verified under this name; a new image has to be again."""
    scene.trust(scene.alice)
    scene.sign(scene.alice)
    scene.home.must("fetch", ASKED)
    scene.registry.put(NAME, hello("two"), "1")
    assert_refused(scene.home, "no signature", "fetch", "--pull-policy=update", ASKED)
    ran = scene.home.podctl("run", "--stage1=fly", "--pull-policy=never", ASKED)
    assert ran.stdout == "one\n", ran.stderr


def test_a_key_that_is_taken_away_counts_no_more(scene: Scene) -> None:
    scene.trust(scene.alice)
    scene.sign(scene.alice)
    scene.home.must("fetch", ASKED)
    for key in (scene.home.local / "trustedkeys").rglob("*"):
        if key.is_file():
            key.write_bytes(b"")
    refused = scene.home.refused("run", "--stage1=fly", "--pull-policy=never", ASKED)
    assert "not trusted for it any more" in refused


@pytest.mark.parametrize("name", ["manifest", "signature"])
def test_a_changed_byte_of_what_was_stored_is_found(scene: Scene, name: str) -> None:
    """Row K17: what root did not verify itself it verifies from the stored bytes."""
    scene.trust(scene.alice)
    scene.sign(scene.alice)
    scene.home.must("fetch", ASKED)
    run = "run", "--stage1=fly", "--pull-policy=never", ASKED
    (stored,) = scene.home.data.glob(f"cas/images/*/{name}")
    content = stored.read_bytes()
    for at in range(0, len(content), len(content) // 12):
        forget(scene)
        changed = bytearray(content)
        changed[at] ^= 1
        stored.write_bytes(changed)
        scene.home.refused(*run)
    # Control: unchanged it is verified again, and runs.
    stored.write_bytes(content)
    forget(scene)
    ran = scene.home.podctl(*run)
    assert (ran.returncode, ran.stdout) == (0, "one\n"), ran.stderr
    assert "signature verified" in ran.stderr


def forget(scene: Scene) -> None:
    """Take away root's notes, as if a member of the group had fetched the image."""
    for note in (scene.home.data / "verified").glob("*.json"):
        note.unlink()
