"""The scalar types of appc 0.8.11 (types.md): identifiers, names, image ids, versions, dates, ids.

Each `check_*` returns its argument unchanged, so that it can stand where the value is used.
"""

from __future__ import annotations

from podctl.errors import InvalidInput

#: longest identifier or name; each may become one file name (NAME_MAX).
MAX_NAME = 255
#: longest host name of Linux
MAX_HOSTNAME = 64

#: largest user or group id; 2**32 - 1 is (uid_t)-1, "no change" for chown(2) and setresuid(2).
MAX_ID = (1 << 32) - 2

#: the appc version podctl implements.
AC_VERSION = "0.8.11"

IMAGE_ID_PREFIX = "sha512-"

_HEX = frozenset("0123456789abcdef")

#: Docker Hub by its two names, and the host that serves both.
_HUB_NAMES = ("docker.io", "index.docker.io")
_HUB_HOST = "registry-1.docker.io"


def is_identifier(text: str) -> bool:
    """Whether `text` is an AC Identifier: lower-case alphanumeric runs joined by one of `-._~/`."""
    for separator in "-._~":
        text = text.replace(separator, "/")
    return _are_runs(text.split("/"))


def is_name(text: str) -> bool:
    """Whether `text` is an AC Name: lower-case alphanumeric runs joined by single dashes."""
    return _are_runs(text.split("-"))


def _are_runs(parts: list[str]) -> bool:
    # isalnum() alone would let other scripts' letters and digits in.
    return all(part.isascii() and part.isalnum() and part == part.lower() for part in parts)


def check_identifier(text: str, what: str = "AC Identifier") -> str:
    """Return `text` if it is an AC Identifier.

    Raises:
        InvalidInput: it is not, or it is longer than MAX_NAME.
    """
    _check_length(text, what)
    if not is_identifier(text):
        raise InvalidInput(
            f"{what} {text!r} must be lower-case letters and digits joined by single -._~ or /"
        )
    return text


def check_name(text: str, what: str = "AC Name") -> str:
    """Return `text` if it is an AC Name.

    Raises:
        InvalidInput: it is not, or it is longer than MAX_NAME.
    """
    _check_length(text, what)
    if not is_name(text):
        raise InvalidInput(
            f"{what} {text!r} must be lower-case letters and digits joined by single -"
        )
    return text


def check_hostname(text: str) -> str:
    """Return `text` if it can be a host's name: labels of letters, digits, `-` and `_`, joined by
    dots, 64 characters at most (hostname(7), HOST_NAME_MAX).

    Raises:
        InvalidInput: it is not.
    """
    good = text.isascii() and all(
        label.replace("-", "x").replace("_", "x").isalnum() and label.strip("-") == label
        for label in text.split(".")
    )
    if not good or len(text) > MAX_HOSTNAME:
        raise InvalidInput(
            f"hostname {text[:80]!r} must be letters, digits and - joined by dots, "
            f"{MAX_HOSTNAME} characters at most"
        )
    return text


def _check_length(text: str, what: str) -> None:
    if not text:
        raise InvalidInput(f"{what} is empty")
    if len(text) > MAX_NAME:
        raise InvalidInput(f"{what} {text[:32]!r}... is longer than {MAX_NAME} characters")


def sanitise_name(text: str) -> str:
    """Turn `text` into an AC Name: lower case, every other run of characters becomes one dash.

    Raises:
        InvalidInput: no letter or digit is in it.
    """
    return _sanitise(text, "")


def sanitise_identifier(text: str) -> str:
    """Turn `text` into an AC Identifier: the first of several adjoining separators is kept.

    Raises:
        InvalidInput: no letter or digit is in it.
    """
    return _sanitise(text, "._~/")


def registry_identifier(name: str) -> str:
    """Turn `registry/repository`, or a leading part of it, into the AC Identifier of its images.

    Each component becomes lower case, every run of characters an AC Identifier does not allow one
    dash, and separators at its ends are left out: `localhost:5000/a__b` is `localhost-5000/a_b`.
    Docker Hub has several names; its images have one.

    Raises:
        InvalidInput: a component has no letter or digit, or letters of other scripts; or the whole
            is longer than MAX_NAME.
    """
    _check_length(name, "AC Identifier")
    if not name.isascii():
        # Lower case would turn some of them into ASCII, and dashes would make different names one.
        raise InvalidInput(f"{name!r} makes no AC Identifier: it must be written in ASCII")
    first, slash, rest = name.partition("/")
    registry = _HUB_HOST if first.lower() in _HUB_NAMES else first
    parts = f"{registry}{slash}{rest}".split("/")
    if not all(any(map(str.isalnum, part)) for part in parts):
        raise InvalidInput(f"{name!r} makes no AC Identifier: a component has no letter or digit")
    return check_identifier("/".join(_sanitise(part, "._~") for part in parts))


def _sanitise(text: str, kept: str) -> str:
    result: list[str] = []
    for char in text.lower():
        if char.isascii() and char.isalnum():
            result.append(char)
        elif result and result[-1].isalnum():
            result.append(char if char in kept else "-")
    clean = "".join(result)[:MAX_NAME].rstrip("-" + kept)
    if not clean:
        raise InvalidInput(f"{text!r} holds no letter or digit to make a name of")
    return clean


def check_image_id(text: str) -> str:
    """Return `text` if it is an Image ID: `sha512-` and 2 to 128 lower-case hexadecimal digits.

    Fewer than 128 digits are a prefix of one; rkt's own full form has 64.

    Raises:
        InvalidInput: it is not.
    """
    digits = text.removeprefix(IMAGE_ID_PREFIX)
    if digits == text or not 2 <= len(digits) <= 128 or not _HEX.issuperset(digits):
        raise InvalidInput(
            f"image id {text[:140]!r} must be sha512- and 2 to 128 hexadecimal digits"
        )
    return text


def check_version(text: str, what: str = "acVersion") -> tuple[int, int, int]:
    """Return (major, minor, patch) of a semantic version (semver.org 2.0.0).

    Raises:
        InvalidInput: it is not one.
    """
    rest, plus, build = text.partition("+")
    core, dash, pre = rest.partition("-")
    numbers = core.split(".")
    good = (
        len(text) <= MAX_NAME
        and len(numbers) == 3
        and all(map(_is_semver_number, numbers))
        and (not dash or all(_is_semver_word(word, strict=True) for word in pre.split(".")))
        and (not plus or all(_is_semver_word(word, strict=False) for word in build.split(".")))
    )
    if not good:
        raise InvalidInput(f"{what} {text[:64]!r} is not a semantic version like {AC_VERSION}")
    major, minor, patch = map(int, numbers)
    return major, minor, patch


def _is_semver_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and (text == "0" or text[0] != "0") and len(text) < 19


def _is_semver_word(text: str, *, strict: bool) -> bool:
    plain = text.replace("-", "0")
    if not (plain.isascii() and plain.isalnum()):
        return False
    return not (strict and text.isdigit() and len(text) > 1 and text[0] == "0")


def check_date(text: str, what: str = "date") -> str:
    """Return `text` if it is an RFC 3339 date-time with `T` (section 5.6).

    Raises:
        InvalidInput: it is not.
    """
    from datetime import datetime

    shape = "".join("0" if char in "0123456789" else char for char in text[:19])
    if shape != "0000-00-00T00:00:00" or not _is_zone(_after_fraction(text[19:])):
        raise InvalidInput(f"{what} {text[:64]!r} is not an RFC 3339 date and time")
    seconds = text[17:19]
    try:
        # RFC 3339 allows a leap second, which datetime does not.
        datetime.fromisoformat(text[:17] + ("59" if seconds == "60" else seconds))
    except ValueError:
        raise InvalidInput(f"{what} {text[:64]!r} is not a date of the calendar") from None
    return text


def _after_fraction(text: str) -> str:
    if not text.startswith("."):
        return text
    zone = text[1:].lstrip("0123456789")
    return zone if len(zone) < len(text) - 1 else ""


def _is_zone(text: str) -> bool:
    if text == "Z":
        return True
    hours, minutes = text[1:3], text[4:6]
    shape = "".join("0" if char in "0123456789" else char for char in text[1:])
    return text[:1] in ("+", "-") and shape == "00:00" and hours < "24" and minutes < "60"


def check_id(number: int, what: str) -> int:
    """Return a numeric user or group id if it is in 0..MAX_ID.

    Raises:
        InvalidInput: it is not (CVE-2024-40635: ids that wrap around to 0).
    """
    if not 0 <= number <= MAX_ID:
        raise InvalidInput(f"{what} {number} is not in 0..{MAX_ID}")
    return number


def parse_principal(text: str, what: str) -> int | str:
    """Read a `user` or `group` field: a number, a name, or an absolute path inside the image.

    A numeral is always a number, never looked up as a name (CVE-2016-3697).

    Args:
        what: `user` or `group`, for messages.

    Raises:
        InvalidInput: empty, out of range, signed, or neither a name nor an absolute path.
    """
    if not text:
        raise InvalidInput(f"{what} is required")
    if text.isascii() and text.isdigit():
        if len(text) > 20:
            raise InvalidInput(f"{what} {text[:20]}... is not in 0..{MAX_ID}")
        return check_id(int(text), what)
    if text[0] in "+-" and text[1:].isdigit():
        raise InvalidInput(f"{what} {text!r} is not in 0..{MAX_ID}")
    if text.startswith("/"):
        return check_absolute(text, what)
    if len(text) > MAX_NAME or not text.isprintable() or any(char in ":/ " for char in text):
        raise InvalidInput(f"{what} {text[:64]!r} is no number, name or absolute path")
    return text


def check_absolute(path: str, what: str, *, parents: bool = True) -> str:
    """Return an absolute path; `parents` says whether `..` may be in it.

    Raises:
        InvalidInput: it is relative, holds NUL, or `..` where that is not allowed.
    """
    if not path.startswith("/"):
        raise InvalidInput(f"{what} {path!r} must be an absolute path")
    if "\0" in path:
        raise InvalidInput(f"{what} {path!r} holds NUL")
    if not parents and ".." in path.split("/"):
        raise InvalidInput(f"{what} {path!r} must not hold ..")
    return path


def is_environment_name(text: str) -> bool:
    """Whether an app may have a variable of this name: letters, digits, `_`, `.`, `-`."""
    plain = text.replace("_", "a").replace(".", "0").replace("-", "0")
    return plain.isascii() and plain.isalnum() and not plain[0].isdigit()


def check_environment_name(text: str) -> str:
    """Return `text` if it may name an environment variable.

    Raises:
        InvalidInput: it may not.
    """
    if not is_environment_name(text):
        raise InvalidInput(
            f"environment variable name {text[:64]!r} must be letters, digits, _, . and -, "
            "not beginning with a digit, . or -"
        )
    return text
