"""Second implementations: what they signed is good here, and they judged as we do.

Their signatures and verdicts are recorded, because Debian 12 has none of them; record_skopeo.py and
record_sigstore.mjs say how.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from podctl.errors import TrustRefused
from podctl_trust_cosign.hooks import cosign


def recorded(name: str, part: str) -> list[Any]:
    value = json.loads((Path(__file__).parent / f"recorded/{name}.json").read_text())
    return [
        pytest.param(value["now"], record, id=f"{name}-{record['case']}") for record in value[part]
    ]


#: A version that nobody knows yet, and a digest beside a signature that is of something else: the
#: library takes them, we do not.
STRICTER = ("version-9", "other-digest")

SIGNED = recorded("skopeo", "signed") + recorded("sigstore", "signed")
JUDGED = recorded("skopeo", "judged") + recorded("sigstore", "judged")


def accepts(now: int, record: dict[str, Any]) -> bool:
    signatures, key = record["signatures"].encode(), record["key"].encode()
    try:
        cosign.trust_signers(signature=signatures)
        verifier = cosign.trust_verifier(signature=signatures, keys=[key], now=now)
        verifier.update(record["document"].encode())
        verdict = verifier.finish()
    except TrustRefused:
        return False
    assert verdict.fingerprint == cosign.trust_key(data=key).fingerprint
    return True


@pytest.mark.parametrize(("now", "record"), SIGNED)
def test_what_others_signed_is_good(now: int, record: dict[str, Any]) -> None:
    assert accepts(now, record)


@pytest.mark.parametrize(("now", "record"), JUDGED)
def test_others_judged_as_we_do(now: int, record: dict[str, Any]) -> None:
    ours = accepts(now, record)
    if record["case"] in STRICTER:
        assert (ours, record["accepted"]) == (False, True)
    else:
        assert ours is record["accepted"]


def test_both_verdicts_are_among_the_recorded_ones() -> None:
    """Control."""
    verdicts = [param.values[1]["accepted"] for param in JUDGED]
    assert verdicts.count(True) >= 5
    assert verdicts.count(False) >= 10
