"""Facts the documents state that the code or its metadata can confirm."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

import pytest
from doc_blocks import ROOT

from podctl import errors
from podctl.config import files, installation
from podctl.errors import PodctlError
from podctl.http.limits import Limits
from podctl.images import compression
from podctl.model.imagedocument import ImageDocument
from podctl.model.layout import ArchiveLimits
from podctl.pods import directories
from podctl.store import layout
from podctl.store.copying import IMPLIED, OPAQUE
from podctl.store.store import LayerNote
from podctl_fetch_aci.limits import PAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = ROOT / "docs"


def text(name: str) -> str:
    """A document, its line breaks and emphasis taken out."""
    return " ".join((DOCS / name).read_text().split())


def requirements() -> Iterator[tuple[str, str]]:
    """Every requirement on somebody else's distribution, with its lower bound."""
    for path in (ROOT / "pyproject.toml", *ROOT.glob("*/pyproject.toml"),
                 *ROOT.glob("plugins/*/pyproject.toml")):  # fmt: skip
        project = tomllib.loads(path.read_text())["project"]
        extras = project.get("optional-dependencies", {}).values()
        for line in [*project.get("dependencies", ()), *(one for extra in extras for one in extra)]:
            match = re.match(r"(?P<name>[\w.-]+)(?:\[.*\])?(?:>=(?P<least>[\d.]+))?", line)
            assert match is not None
            if not match["name"].startswith("podctl"):
                yield match["name"], match["least"] or ""


@pytest.mark.parametrize(("name", "least"), sorted(set(requirements())))
def test_every_dependency_has_its_place_in_the_list(name: str, least: str) -> None:
    page = text("explanation/dependencies.md")
    assert name in page
    run_time = page.partition("## To build")[0]
    if least and f"[{name}]" in run_time:
        assert re.search(rf"\[{re.escape(name)}\]\([^)]*\) ≥ {re.escape(least)}\b", run_time)


def test_caps_on_archives_are_those_of_the_reader() -> None:
    page = text("reference/archives.md")
    limits = ArchiveLimits()
    assert f"| {limits.max_bytes >> 30} GiB |" in page
    assert f"| {limits.max_entries:,} |" in page
    assert f"| {limits.ratio} times |" in page
    assert f"beyond the first {limits.ratio_floor >> 20} MiB" in page
    assert f"| `manifest` | {limits.max_manifest >> 20} MiB |" in page
    assert f"| {limits.max_headers}, of {limits.max_extension >> 20} MiB each |" in page
    assert f"xz that needs more than {compression.XZ_MEMORY >> 20} MiB" in page
    assert f"zstd windows beyond {1 << compression.ZSTD_WINDOW_LOG >> 20} MiB" in page


def test_patience_with_servers_is_that_of_the_transport() -> None:
    page = text("reference/exit-codes-and-messages.md")
    limits = Limits()
    assert f"| connecting | {limits.connect:.0f} s |" in page
    assert f"| until the answer's headers are complete | {limits.header:.0f} s |" in page
    assert f"| without a byte | {limits.idle:.0f} s |" in page
    assert f"slower than {limits.speed} bytes per second, over {limits.window:.0f} s" in page
    assert f"complete within {limits.small:.0f} s; at most {PAGE:,} bytes" in page
    assert f"| redirects | {limits.redirects} |" in page
    assert f"| tries without progress | {limits.attempts}, with pauses that double from" in page
    assert f"{limits.pause} s to {limits.longest_pause:.0f} s and {limits.patience:.0f} s" in page
    assert f"| interruptions of one image | {limits.interruptions}," in page


def test_every_kind_of_configuration_is_described() -> None:
    page = text("reference/configuration.md")
    for directory, kinds in files.KINDS.items():
        for kind in kinds:
            assert f"`{directory}`, kind `{kind}`" in page


def test_every_state_of_a_pod_is_in_the_table() -> None:
    page = text("reference/data-directory.md")
    for place, states in directories._STATES.items():
        assert f"| `{place}` | {states[0]} | {states[1]} |" in page


def test_every_place_of_the_data_directory_is_described() -> None:
    page = text("reference/data-directory.md")
    tops = (layout.BLOBS, layout.IMAGES, layout.REMOTES, layout.TEMPORARY, layout.QUARANTINE)
    for name in (*tops, layout.LAYERS, layout.VERIFIED, layout.TREES, layout.OWN_REMOTES):
        assert f"`{name}/" in page


def test_what_is_kept_of_layered_images_is_described() -> None:
    page = text("reference/data-directory.md")
    for end in (layout.NOTE, layout.VIEW):
        assert f"`{layout.VERIFIED}/sha512-...{end}`" in page
    assert "`made_by`" in page
    for field in ("diff_id", *LayerNote._fields, "kind", *ImageDocument._fields):
        assert f"`{field}`" in page
    for attribute in (OPAQUE, IMPLIED):
        assert f"`{attribute}`" in page
    document = ImageDocument("a", None, b"b", b"c").dump()
    assert document == (
        b'{"config":"c","image_index":null,"kind":"podctl.image/1","manifest":"b","reference":"a"}'
    )


def test_modes_for_packagers_are_those_of_setup_data_dir() -> None:
    page = (DOCS / "packaging.md").read_text()
    given = dict(re.findall(r"^d /var/lib/podctl(\S*)\s+(\d{4}) root", page, re.MULTILINE))
    places = {place.path: f"{place.mode:04o}" for place in installation.DATA_PLACES}
    assert given == {f"/{path}" if path else "": places[path] for path in places if (
        "/" not in path
    )}  # fmt: skip


def test_every_error_of_the_api_is_named() -> None:
    page = text("reference/exit-codes-and-messages.md")

    told = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    missing = {kind.__name__ for kind in told if f"`{kind.__name__}`" not in page}
    # A special case of a kind that is told needs no line of its own; what neighbouring children
    # say to each other, and what only groups others, are nobody else's business.
    special = {kind.__name__ for kind in told if f"`{kind.__bases__[0].__name__}`" in page}
    special -= {kind.__name__ for kind in PodctlError.__subclasses__()}
    assert missing - special == {"BrokenStream", "PluginError"}
