"""Scanning refuses what unpacking refuses, and nothing else."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from archive_lab import (
    ACI,
    OCI,
    Dribble,
    Snapshot,
    aci,
    archive,
    directory,
    hardlink,
    member,
    snapshot,
    symlink,
    unpack_to,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from podctl.errors import ArchiveInvalid
from podctl.model.layout import ArchiveLayout, ArchiveLimits

LIMITS = ArchiveLimits(max_entries=14)
names = st.lists(
    st.sampled_from(["a", "b", "c", ".", "..", ".wh.a", ".wh.b", ".wh..wh..opq", ".wh..wh.x", ""]),
    min_size=1,
    max_size=4,
).map("/".join)
plain = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
paths = st.one_of(plain, plain, names)
members = st.one_of(
    st.builds(lambda name: member(name, data=b"1"), paths),
    st.builds(directory, paths),
    st.builds(symlink, paths, st.sampled_from(["a", "../b", "/", "."])),
    st.builds(hardlink, paths, paths),
    st.builds(lambda name: member(name, b"6"), paths),
    st.builds(lambda name: member(name, b"3", device=(1, 3)), paths),
    st.builds(lambda name: member(f"{name}/.wh..wh..opq"), plain),
    st.builds(lambda name, last: member(f"{name}/.wh.{last}"), plain, st.sampled_from("abc")),
)


def outcome(target: Path | None, data: bytes, layout: ArchiveLayout) -> Any:
    try:
        done = unpack_to(target, data, layout, LIMITS, source=Dribble(data))
    except ArchiveInvalid as error:
        return error.message
    # Only what was written can be told to look like the layer below.
    return replace(done, implied=())


@settings(max_examples=800, deadline=None)
@given(st.lists(members, max_size=12), st.booleans())
def test_scan_and_unpack_agree(entries: list[bytes], image: bool) -> None:
    data = (aci if image else archive)(*entries)
    layout = ACI if image else OCI
    with tempfile.TemporaryDirectory() as work:
        written = outcome(Path(work) / "target", data, layout)
        assert outcome(None, data, layout) == written
        assert list(Path(work).iterdir()) == [Path(work) / "target"]


@settings(max_examples=150, deadline=None)
@given(st.lists(members, max_size=12))
def test_unpacking_twice_gives_the_same_tree(entries: list[bytes]) -> None:
    data = archive(*entries)
    trees: list[Snapshot] = []
    with tempfile.TemporaryDirectory() as work:
        for name in ("one", "two"):
            if isinstance(outcome(Path(work) / name, data, OCI), str):
                return
            trees.append(snapshot(Path(work) / name))
    assert trees[0] == trees[1]
