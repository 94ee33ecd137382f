"""When modules are imported: nothing heavy before the preload, nothing at all after it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from cosign_lab import (
    KINDS,
    Image,
    Lab,
    bundle,
    bundle_value,
    message_value,
    payload,
    simple,
    statement,
)

from podctl.model.imagedocument import RegistrySignature, dump_signatures

if TYPE_CHECKING:
    from pathlib import Path

_WORK = """
import json, sys
from podctl_trust_cosign.hooks import cosign
samples = json.load(open(sys.argv[1]))
cosign.trust_preload()
before = set(sys.modules)
good = 0
for key, signature, document in samples:
    key, signature, document = (bytes.fromhex(text) for text in (key, signature, document))
    for call in (cosign.trust_recognises, cosign.trust_key, cosign.trust_signers):
        try:
            call(key if call != cosign.trust_signers else signature)
        except Exception:
            pass
    try:
        verifier = cosign.trust_verifier(signature, [key], 1764000000)
        verifier.update(document)
        verifier.finish()
        good += 1
    except Exception:
        pass
json.dump([good, sorted(set(sys.modules) - before)], sys.stdout)
"""


def run(program: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", program, *arguments],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def samples(lab: Lab, file: Path) -> int:
    """Write good and bad signatures by every kind of key; return how many are good."""
    image = Image(indexed=True)
    written, good = [], 0
    for kind in KINDS:
        signer = lab.signer(kind)
        signatures = [
            *(simple(signer, payload(image.digest), prehashed=flag) for flag in (True, False)),
            bundle(bundle_value(signer, statement(image.digest))),
            bundle(message_value(signer, image.manifest)),
        ]
        good += 2 * len(signatures)
        broken = [
            simple(signer, payload(Image().digest, optional={"timestamp": 1 << 40})),
            simple(signer, payload(image.digest, "a b")),
            RegistrySignature("simple", payload(image.digest), "AAAA"),
            RegistrySignature("simple", b"{", ""),
            RegistrySignature("other", b""),
        ]
        for one in (*signatures, *broken):
            for asked in (image, image.pinned(), Image("other.example/app:1")):
                entry = signer.public, dump_signatures([one]), asked.document
                written.append([part.hex() for part in entry])
        good += 2 if kind == "none" else 0
    written += [[b"junk".hex(), b"junk".hex(), b"junk".hex()]]
    file.write_text(json.dumps(written))
    # Bundles without a name are good under any: the third image too.
    return good


def test_provider_is_light() -> None:
    program = "import sys, podctl_trust_cosign.hooks; print(*sys.modules)"
    loaded = set(run(program).split())
    heavy = {"cryptography", "_hashlib", "json", "podctl_trust_cosign.verify", "dataclasses", "re"}
    control = set(run("import sys, podctl.api; print(*sys.modules)").split())
    assert not (heavy - control) & loaded


def test_nothing_is_imported_after_the_preload(lab: Lab, tmp_path: Path) -> None:
    """After it the child may not be able to read what was left out."""
    file = tmp_path / "samples.json"
    least = samples(lab, file)
    good, late = json.loads(run(_WORK, str(file)))
    assert good >= least
    assert late == []


def test_the_check_notices_a_late_import(lab: Lab, tmp_path: Path) -> None:
    """Control: without the preload the same work imports a lot."""
    file = tmp_path / "samples.json"
    samples(lab, file)
    without = _WORK.replace("cosign.trust_preload()\n", "")
    late = json.loads(run(without, str(file)))[1]
    assert any(name.startswith("cryptography") for name in late)
