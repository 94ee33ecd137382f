"""When modules are imported: nothing heavy before the preload, nothing at all after it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from openpgp_corpus import CASES

if TYPE_CHECKING:
    from pathlib import Path

    from openpgp_lab import Lab

_WORK = """
import json, sys
from podctl_trust_openpgp.hooks import openpgp
samples = json.load(open(sys.argv[1]))
openpgp.trust_preload()
before = set(sys.modules)
for key, signature, data in samples:
    key, signature, data = (bytes.fromhex(text) for text in (key, signature, data))
    for call in (lambda: openpgp.trust_key(key), lambda: openpgp.trust_signers(signature)):
        try:
            call()
        except Exception:
            pass
    try:
        verifier = openpgp.trust_verifier(signature, [key], 1760000000)
        verifier.update(data)
        verifier.finish()
    except Exception:
        pass
json.dump(sorted(set(sys.modules) - before), sys.stdout)
"""


def run(program: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", program, *arguments],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_provider_is_light() -> None:
    program = "import sys, podctl_trust_openpgp.hooks; print(*sys.modules)"
    loaded = set(run(program).split())
    heavy = {"cryptography", "_hashlib", "podctl_trust_openpgp.verify", "dataclasses", "re"}
    control = set(run("import sys, podctl.api; print(*sys.modules)").split())
    assert not (heavy - control) & loaded


def test_nothing_is_imported_after_the_preload(lab: Lab, tmp_path: Path) -> None:
    """After it the child may not be able to read what was left out."""
    samples = [case.sample(lab) for case in CASES if case.name != "many-too-large"]
    file = tmp_path / "samples.json"
    file.write_text(
        json.dumps([[s.keys[0].hex(), s.signature.hex(), s.data.hex()] for s in samples])
    )
    assert json.loads(run(_WORK, str(file))) == []


def test_the_check_notices_a_late_import(lab: Lab, tmp_path: Path) -> None:
    """Control: without the preload the same work imports a lot."""
    sample = CASES[0].sample(lab)
    file = tmp_path / "samples.json"
    file.write_text(json.dumps([[sample.keys[0].hex(), sample.signature.hex(), sample.data.hex()]]))
    without = _WORK.replace("openpgp.trust_preload()\n", "")
    assert any(name.startswith("cryptography") for name in json.loads(run(without, str(file))))
