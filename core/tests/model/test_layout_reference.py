"""References to layouts and archives: what is path, what is name, and what is refused."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podctl.errors import ReferenceInvalid
from podctl.model.reference import LAYOUTS, Reference, parse

SHA256 = "sha256:" + "a" * 64
SHA512 = "sha512:" + "0" * 128


def of(text: str) -> Reference:
    """Parse as if no file existed."""
    return parse(text, is_file=lambda _: False)


@pytest.mark.parametrize("scheme", LAYOUTS)
@pytest.mark.parametrize(
    ("rest", "path", "version"),
    [
        ("/srv/image", "/srv/image", None),
        ("image.tar", "image.tar", None),
        ("./image", "./image", None),
        ("../a/b:1.0", "../a/b", "1.0"),
        ("/srv/image:latest", "/srv/image", "latest"),
        ("/srv/image:docker.io/library/redis:7", "/srv/image", "docker.io/library/redis:7"),
        ("/srv/image:host:5000/a/b:1_x.y-z", "/srv/image", "host:5000/a/b:1_x.y-z"),
        (f"/srv/image@{SHA256}", "/srv/image", SHA256),
        (f"/srv/image:@{SHA256}", "/srv/image", SHA256),
        (f"/srv/image@{SHA512}", "/srv/image", SHA512),
        ("/srv/a@b", "/srv/a@b", None),
        ("/srv/a b", "/srv/a b", None),
    ],
)
def test_the_path_ends_at_its_first_colon(
    scheme: str, rest: str, path: str, version: str | None
) -> None:
    reference = of(f"{scheme}:{rest}")
    assert (reference.kind, reference.scheme) == ("layout", scheme)
    assert (reference.path_or_url, reference.version) == (path, version)
    assert reference.name is None


@pytest.mark.parametrize(
    "text",
    [
        "oci:", "oci::", "oci::1.0", "oci:/srv/a:", "oci:/srv/a:-x", "oci:/srv/a:x y",
        "oci:/srv/a:\u00e9", "oci:/srv/a:x?", "oci:/srv/a:" + "x" * 513, "oci:/srv/a@sha256:ab",
        "oci:/srv/a@sha256:" + "A" * 64, f"oci:/srv/a:1.0@{SHA256}", f"oci:@{SHA256}",
        f"oci:/srv/a@{SHA256}:x", "oci-archive:", "docker-archive::x", "oci:/srv/\n",
        "cimd:oci:v=0:", "cimd:oci:v=0:srv", "cimd:oci:v=0:/srv/%00", "cimd:oci:v=1:/srv",
        "cimd:oci:v=0:/srv?ref=%2Fx", "cimd:oci:v=0:/srv?ref=sha256:x", "cimd:oci-x:v=0:/srv",
    ],
)  # fmt: skip
def test_refused(text: str) -> None:
    with pytest.raises(ReferenceInvalid):
        of(text)


def test_the_message_names_what_is_wrong() -> None:
    with pytest.raises(ReferenceInvalid, match="names no directory or file"):
        of("oci:")
    with pytest.raises(ReferenceInvalid, match="'x y' can be no image's name in it"):
        of("oci:/srv:x y")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("oci:/srv//x/../a b", "cimd:oci:v=0:/srv/a%20b"),
        ("oci:/srv/a:1.0", "cimd:oci:v=0:/srv/a?ref=1.0"),
        ("oci-archive:/a.tar:h.io/r:1", "cimd:oci-archive:v=0:/a.tar?ref=h.io%2Fr%3A1"),
        (f"oci:/a@{SHA256}", f"cimd:oci:v=0:/a?ref=sha256%3A{SHA256[7:]}"),
    ],
)  # fmt: skip
def test_canonical_form(text: str, canonical: str) -> None:
    assert of(text).canonical() == canonical
    assert of(canonical).canonical() == canonical
    assert of(canonical).kind == "layout"


def test_a_canonical_path_may_hold_colons() -> None:
    reference = of("cimd:oci:v=0:/srv/a%3Ab%3Fref=c")
    assert (reference.path_or_url, reference.version) == ("/srv/a:b?ref=c", None)
    assert of(reference.canonical()).path_or_url == "/srv/a:b?ref=c"


def test_relative_paths_are_of_the_working_directory() -> None:
    assert of("oci:image").canonical() == of(f"oci:{os.getcwd()}/image").canonical()


def test_a_scheme_with_slashes_is_left_to_plugins() -> None:
    assert of("oci://host/x").kind == "url"


@given(
    st.sampled_from(LAYOUTS),
    st.text(max_size=30) | st.text("a0/.:@ -", max_size=20),
    st.sampled_from(["", f"@{SHA256}", ":1", ":"]),
)
def test_any_text_is_refused_or_canonical(scheme: str, rest: str, end: str) -> None:
    try:
        reference = of(f"{scheme}:{rest}{end}")
    except ReferenceInvalid:
        return
    canonical = reference.canonical()
    assert canonical.isprintable() and canonical.isascii()
    assert of(canonical).canonical() == canonical
