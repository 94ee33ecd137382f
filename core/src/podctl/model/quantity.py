"""Resource quantities of appc: `128974848`, `125952Ki`, `0.5`, `500m`, `1e6`."""

from __future__ import annotations

from typing import NamedTuple

from podctl.errors import InvalidInput

_MAX = (1 << 63) - 1
_DECIMAL = {"k": 3, "K": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


class Quantity(NamedTuple):
    """An amount in thousandths of its unit (bytes, cores, operations), and how it was written."""

    milli: int
    text: str

    @property
    def units(self) -> int:
        """The amount in whole units, rounded up."""
        return -(-self.milli // 1000)


def parse_quantity(text: str, what: str = "quantity") -> Quantity:
    """Read a quantity; what is finer than a thousandth is rounded up.

    Suffixes: `m` (thousandths), `k` or `K`, `M`, `G`, `T`, `P`, `E` (powers of 1000), `Ki` to
    `Ei` (powers of 1024), or a decimal exponent.

    Raises:
        InvalidInput: malformed, negative, or beyond 2**63 - 1 units.
    """
    digits, ten, two = _split(text[1:] if text.startswith("+") else text)
    whole, dot, fraction = digits.partition(".")
    number = whole + fraction
    if not (number.isascii() and number.isdigit()) or (dot and not fraction) or len(text) > 64:
        raise InvalidInput(
            f"{what} {text[:64]!r} is no quantity",
            hint="write a number with an optional suffix: m, K, M, G, T, P, E or Ki to Ei",
        )
    scale = ten + 3 - len(fraction)
    milli = int(number) << two
    milli = milli * 10**scale if scale >= 0 else -(-milli // 10**-scale)
    if milli > _MAX * 1000:
        raise InvalidInput(f"{what} {text!r} is more than {_MAX}")
    return Quantity(milli, text)


def _split(text: str) -> tuple[str, int, int]:
    """Cut off the suffix; returns digits, the power of ten and the power of two it stands for."""
    if text[-2:] in _BINARY:
        return text[:-2], 0, _BINARY[text[-2:]]
    if text[-1:] == "m":
        return text[:-1], -3, 0
    if text[-1:] in _DECIMAL:
        return text[:-1], _DECIMAL[text[-1:]], 0
    digits, mark, exponent = text.replace("E", "e").partition("e")
    if not mark:
        return text, 0, 0
    sign = -1 if exponent.startswith("-") else 1
    power = exponent[1:] if exponent[:1] in ("+", "-") else exponent
    # Two digits reach far beyond the range; more would only build huge numbers.
    if not (power.isascii() and power.isdigit() and len(power) <= 2):
        return "", 0, 0
    return digits, sign * int(power), 0
