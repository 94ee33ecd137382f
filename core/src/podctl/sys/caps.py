"""Capability sets of the calling thread (capabilities(7))."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from podctl.sys import constants as c
from podctl.sys.calls import libc, oserror, prctl

if TYPE_CHECKING:
    from collections.abc import Iterable

_VERSION_3 = 0x20080522


def last_cap() -> int:
    """The highest capability number this kernel knows."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        return int(file.read())


def drop_bounding(keep: Iterable[int] = (), last: int | None = None) -> None:
    """Drop everything but `keep` from the bounding set. Needs CAP_SETPCAP; raises OSError.

    `last` is last_cap(), asked beforehand by who no longer sees /proc.
    """
    kept = frozenset(keep)
    for number in range((last_cap() if last is None else last) + 1):
        if number not in kept:
            prctl(c.PR_CAPBSET_DROP, number)


def set_capabilities(numbers: Iterable[int]) -> None:
    """Make `numbers` the permitted and effective set; inheritable and ambient become empty."""
    set_mask(sum(1 << number for number in set(numbers)))


def set_mask(mask: int) -> None:
    """Like set_capabilities, for a bit mask."""
    prctl(c.PR_CAP_AMBIENT, c.PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    if libc.capset(ctypes.byref(header), ctypes.byref(data)) < 0:
        raise oserror("capset")


def get_permitted() -> int:
    """The permitted set as a bit mask."""
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()
    if libc.capget(ctypes.byref(header), ctypes.byref(data)) < 0:
        raise oserror("capget")
    return data[1] | data[4] << 32
