"""Record what skopeo signs and how it judges, for test_recorded.py.

    python3 record_skopeo.py recorded/skopeo.json DIRECTORY skopeo

takes a skopeo that was built with sigstore signatures (Debian's from 13 on), `docker-registry` and
PyNaCl. DIRECTORY must be empty. To run skopeo from another root, give `chroot ROOT skopeo` and bind
DIRECTORY to the same path in it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosign_lab import Lab, b64, payload, simple
from cryptography.hazmat.primitives.asymmetric import utils  # noqa: TID253
from skopeo_world import World, layout

from podctl.model.imagedocument import RegistrySignature, digest_of, dump_signatures

if TYPE_CHECKING:
    from collections.abc import Callable

    Case = Callable[[Lab, str, str], list[RegistrySignature]]

KINDS = ("p256", "p384", "p521", "ed25519", "rsa2048")


def good(lab: Lab, name: str, digest: str) -> list[RegistrySignature]:
    return [simple(lab.signer("p256-alice"), payload(digest, name, optional={}))]


def two(lab: Lab, name: str, digest: str) -> list[RegistrySignature]:
    other = simple(lab.signer("p256-mallory"), payload(digest, name, optional={}))
    return [other, *good(lab, name, digest)]


def junk_and_good(lab: Lab, name: str, digest: str) -> list[RegistrySignature]:
    return [RegistrySignature("simple", b"{}", b64(bytes(70))), *good(lab, name, digest)]


def annotated(lab: Lab, name: str, digest: str) -> list[RegistrySignature]:
    optional = {"creator": "me", "timestamp": 1700000000, "more": {"a": [1]}}
    return [simple(lab.signer("p256-alice"), payload(digest, name, optional=optional))]


def wrong_key(lab: Lab, name: str, digest: str) -> list[RegistrySignature]:
    return [simple(lab.signer("p256-mallory"), payload(digest, name, optional={}))]


def other_digest(lab: Lab, name: str, digest: str) -> list[RegistrySignature]:
    return [simple(lab.signer("p256-alice"), payload(f"sha256:{'0' * 64}", name, optional={}))]


def other_repository(lab: Lab, name: str, digest: str) -> list[RegistrySignature]:
    content = payload(digest, name.replace("/case/", "/elsewhere/"), optional={})
    return [simple(lab.signer("p256-alice"), content)]


def other_tag(lab: Lab, name: str, digest: str) -> list[RegistrySignature]:
    return [simple(lab.signer("p256-alice"), payload(digest, f"{name}2", optional={}))]


def other_type(lab: Lab, name: str, digest: str) -> list[RegistrySignature]:
    content = payload(digest, name, optional={}, type="atomic container signature")
    return [simple(lab.signer("p256-alice"), content)]


def more_critical(lab: Lab, name: str, digest: str) -> list[RegistrySignature]:
    return [simple(lab.signer("p256-alice"), payload(digest, name, optional={}, more=1))]


def more_at_the_top(lab: Lab, name: str, digest: str) -> list[RegistrySignature]:
    content = payload(digest, name, optional={}).replace(b'{"critical"', b'{"more":1,"critical"')
    return [simple(lab.signer("p256-alice"), content)]


def twice(lab: Lab, name: str, digest: str) -> list[RegistrySignature]:
    content = payload(digest, name, optional={}).replace(b'"type"', b'"type":"x","type"')
    return [simple(lab.signer("p256-alice"), content)]


def fraction(lab: Lab, name: str, digest: str) -> list[RegistrySignature]:
    content = payload(digest, name, optional={"timestamp": 1.5})
    return [simple(lab.signer("p256-alice"), content)]


def changed_payload(lab: Lab, name: str, digest: str) -> list[RegistrySignature]:
    (one,) = good(lab, name, digest)
    return [one._replace(content=one.content.replace(b'"optional":{}', b'"optional":null'))]


def junk_signature(lab: Lab, name: str, digest: str) -> list[RegistrySignature]:
    (one,) = good(lab, name, digest)
    return [one._replace(signature=text) for text in ("AAAA", "A", "!", one.signature[:-8])]


def not_der(lab: Lab, name: str, digest: str) -> list[RegistrySignature]:
    content = payload(digest, name, optional={})
    signature = lab.signer("p256-alice").sign(content)
    forms = (signature + b"\0", b"\x30\x81" + signature[1:])
    return [RegistrySignature("simple", content, b64(form)) for form in forms]


def mirrored(lab: Lab, name: str, digest: str) -> list[RegistrySignature]:
    """(r, n - s) for (r, s)."""
    content = payload(digest, name, optional={})
    r, s = utils.decode_dss_signature(lab.signer("p256-alice").sign(content))
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    other = utils.encode_dss_signature(r, order - s)
    return [RegistrySignature("simple", content, b64(form)) for form in (b"", other)]


def by_cosign(lab: Lab, name: str, digest: str) -> list[RegistrySignature]:
    """Without a tag, which skopeo takes only if it is told to look at the repository alone."""
    content = payload(digest, name.rpartition(":")[0])
    return [simple(lab.signer("p256-alice"), content)]


CASES: list[Case] = [
    *(good, two, junk_and_good, annotated, mirrored, by_cosign),
    *(wrong_key, other_digest, other_repository, other_tag, other_type),
    *(more_critical, more_at_the_top, twice, fraction),
    *(changed_payload, junk_signature, not_der),
]


def found(world: World, repository: str) -> dict[str, str]:
    """What a transport would hand over of the image under the tag 1.0."""
    document = world.document(repository, "1.0")
    signatures = world.signatures(repository, digest_of(document.manifest))
    return {
        "document": document.dump().decode(),
        "signatures": dump_signatures(signatures).decode(),
    }


def signed(world: World, image: Path, lab: Lab) -> list[dict[str, Any]]:
    records = []
    for kind in KINDS:
        signer, repository = lab.signer(kind), f"signed/{kind}"
        world.push(image, f"{repository}:1.0", signer)
        assert world.accepts(f"{repository}:1.0", signer.public)
        records.append({"case": kind, "key": signer.public.decode(), **found(world, repository)})
    return records


def judged(world: World, image: Path, lab: Lab) -> list[dict[str, Any]]:
    alice, records = lab.signer("p256-alice"), []
    for case in CASES:
        repository = f"case/{case.__name__}"
        identity = "matchRepository" if case is by_cosign else "matchRepoDigestOrExact"
        world.push(image, f"{repository}:1.0")
        digest = digest_of(world.document(repository, "1.0").manifest)
        name = f"{world.host}/{repository}:1.0"
        world.put_signatures(repository, digest, case(lab, name, digest))
        record = {
            "case": case.__name__,
            "accepted": world.accepts(f"{repository}:1.0", alice.public, identity),
            "key": alice.public.decode(),
            **found(world, repository),
        }
        records.append(record)
    return records


def main(output: str, directory: str, *skopeo: str) -> None:
    top = Path(directory)
    layout(top / "image")
    world, lab = World(top, skopeo), Lab()
    try:
        version = subprocess.run([*skopeo, "--version"], capture_output=True, check=True).stdout
        value = {
            "tool": version.decode().strip(),
            "signed": signed(world, top / "image", lab),
            "judged": judged(world, top / "image", lab),
            "now": int(time.time()) + 1,
        }
    finally:
        world.close()
    Path(output).write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
