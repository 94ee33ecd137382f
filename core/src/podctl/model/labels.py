"""Labels of images: unique names, and the operating systems and architectures appc knows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from podctl.errors import InvalidInput
from podctl.model.names import check_identifier

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: operating system -> architectures (appc 0.8.11, schema/types/labels.go ValidOSArch).
VALID_OS_ARCH: dict[str, tuple[str, ...]] = {
    "linux": (
        "amd64", "i386", "aarch64", "aarch64_be", "armv6l", "armv7l", "armv7b",
        "ppc64", "ppc64le", "s390x",
    ),
    "freebsd": ("amd64", "i386", "arm"),
    "darwin": ("x86_64", "i386"),
}  # fmt: skip

#: uname(2) machine -> appc arch, where they differ.
_MACHINES = {"x86_64": "amd64", "i486": "i386", "i586": "i386", "i686": "i386", "arm64": "aarch64"}


def labels_from_pairs(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Collect labels in order and check them.

    Raises:
        InvalidInput: a name is no AC Identifier, is `name`, or appears twice; or see check_labels.
    """
    labels: dict[str, str] = {}
    for name, value in pairs:
        check_identifier(name, "label name")
        if name == "name":
            raise InvalidInput('invalid label name: "name"')
        if name in labels:
            raise InvalidInput(f'duplicate labels of name "{name}"')
        labels[name] = value
    check_platform(labels)
    return labels


def check_platform(labels: Mapping[str, str]) -> None:
    """Check `os` and `arch` among `labels`.

    Raises:
        InvalidInput: the os is unknown, the arch is unknown for it, or there is an arch alone.
    """
    system, arch = labels.get("os"), labels.get("arch")
    if system is None:
        if arch is not None:
            raise InvalidInput(f'label arch "{arch}" means nothing without label os')
        return
    known = VALID_OS_ARCH.get(system)
    if known is None:
        raise InvalidInput(f'bad os "{system}" (must be one of: {" ".join(sorted(VALID_OS_ARCH))})')
    if arch is not None and arch not in known:
        raise InvalidInput(f'bad arch "{arch}" for {system} (must be one of: {" ".join(known)})')


def host_labels() -> dict[str, str]:
    """`os` and `arch` of this host, as appc spells them."""
    uname = os.uname()
    return {"os": uname.sysname.lower(), "arch": _MACHINES.get(uname.machine, uname.machine)}


def satisfies(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether every wanted label is there with its value."""
    return all(labels.get(name) == value for name, value in wanted.items())
