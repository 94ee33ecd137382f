"""Quantities of resources (row M19: `1e999`, `-1`)."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podctl.errors import InvalidInput
from podctl.model.quantity import parse_quantity

SUFFIXES = {
    "": Fraction(1),
    "m": Fraction(1, 1000),
    **{name: Fraction(1000) ** power for power, name in enumerate("KMGTPE", 1)},
    **{f"{name}i": Fraction(1024) ** power for power, name in enumerate("KMGTPE", 1)},
}


@pytest.mark.parametrize(
    ("text", "milli"),
    [
        ("0", 0),
        ("1", 1000),
        ("+1", 1000),
        ("30m", 30),
        ("0.3", 300),
        (".5", 500),
        ("1.5", 1500),
        ("0.0001", 1),
        ("1m", 1),
        ("0.5m", 1),
        ("1K", 1_000_000),
        ("1k", 1_000_000),
        ("2Gi", 2147483648_000),
        ("1G", 1_000_000_000_000),
        ("128974848", 128974848_000),
        ("125952Ki", 128974848_000),
        ("123Mi", 128974848_000),
        ("1e3", 1_000_000),
        ("1E3", 1_000_000),
        ("1e-3", 1),
        ("12.5e+1", 125_000),
        ("1E", 10**21),
        ("7Ei", 7 * 2**60 * 1000),
        ("9223372036854775807", (2**63 - 1) * 1000),
        ("0E", 0),
        ("0e99", 0),
    ],
)
def test_quantities(text: str, milli: int) -> None:
    quantity = parse_quantity(text)
    assert quantity.milli == milli
    assert quantity.text == text


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "m", "Ki", "e", ".", "-", "+", "-1", "-0", "-1Gi", "--1", "++1", "1.", "1.e3",
        "1..2", "1 ", " 1", "1 G", "1g", "1KB", "1kb", "1kiB", "1ki", "1mi", "1n", "1u", "1Z",
        "1e", "1e+", "1e1.5", "1e999", "1e100", "1e-999", "1e99", "0x10", "1_000", "1,5", "NaN",
        "inf", "Infinity", "such garbage", "\u0661", "\uff11", "1\n", "1\0",
        "9223372036854775808", "8Ei", "10E", "9" * 65, "1Ki2", "1e3Ki", "16 Mi", "1e1_0",
    ],
)  # fmt: skip
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(InvalidInput, match="^limit"):
        parse_quantity(text, "limit")


@given(
    st.integers(0, 10**7),
    st.integers(0, 999_999),
    st.integers(0, 6),
    st.sampled_from(list(SUFFIXES)),
)
def test_value_is_exact_and_rounded_up(whole: int, part: int, width: int, suffix: str) -> None:
    digits = f"{whole}.{part:06d}"[: len(str(whole)) + 1 + width] if width else str(whole)
    exact = Fraction(digits) * SUFFIXES[suffix]
    if exact > 2**63 - 1:
        with pytest.raises(InvalidInput):
            parse_quantity(digits + suffix)
        return
    quantity = parse_quantity(digits + suffix)
    assert quantity.milli == -(-(exact * 1000).numerator // (exact * 1000).denominator)
    assert quantity.units == -(-exact.numerator // exact.denominator)


@given(st.text(alphabet="0123456789.eE+-mkKMGTPEi \u0661", max_size=12))
def test_any_text_is_a_quantity_or_refused(text: str) -> None:
    try:
        quantity = parse_quantity(text)
    except InvalidInput:
        return
    assert 0 <= quantity.milli <= (2**63 - 1) * 1000
