"""Every case of the corpus: the verdict it must get, and the one gpgv gives."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest
from openpgp_corpus import CASES, Case, Sample

from podctl.errors import KeyInvalid, PodctlError, TrustRefused
from podctl_trust_openpgp.hooks import openpgp

if TYPE_CHECKING:
    from openpgp_lab import Lab

    from podctl.model.trusting import Verdict

NOW = int(time.time())


def verify(sample: Sample, now: int = NOW) -> Verdict:
    """Do what the fetch pipeline does: signers first, then stream."""
    openpgp.trust_signers(sample.signature)
    verifier = openpgp.trust_verifier(sample.signature, list(sample.keys), now)
    for at in range(0, len(sample.data), 1000):
        verifier.update(sample.data[at : at + 1000])
    return verifier.finish()


def accepts(sample: Sample) -> bool:
    try:
        verify(sample)
    except (KeyInvalid, TrustRefused):
        return False
    return True


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_verdict_is_the_documented_one(lab: Lab, case: Case) -> None:
    sample = case.sample(lab)
    if case.good:
        assert verify(sample).scheme == "openpgp"
        return
    with pytest.raises(PodctlError) as caught:
        verify(sample)
    assert isinstance(caught.value, KeyInvalid | TrustRefused)
    assert re.search(case.says, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gpgv_agrees_unless_documented(lab: Lab, case: Case) -> None:
    sample = case.sample(lab)
    opinion = lab.gpgv(b"".join(sample.keys), sample.signature, sample.data)
    if case.differs is None:
        assert opinion.accepts() == case.good, "\n".join(opinion.lines)
    else:
        assert opinion.accepts() != case.good, "difference is not there: " + "\n".join(
            opinion.lines
        )
