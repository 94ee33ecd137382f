"""Image references: every form, their canonical text, and what is refused (row M9)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podctl.errors import ReferenceInvalid
from podctl.model.labels import host_labels
from podctl.model.reference import MAX_REFERENCE, Reference, parse, parse_name

if TYPE_CHECKING:
    from pathlib import Path

SHA256 = "sha256:" + "a" * 64
HUB = "registry-1.docker.io"


def of(text: str) -> Reference:
    """Parse as if no file existed."""
    return parse(text, is_file=lambda _: False)


@pytest.mark.parametrize(
    ("text", "name", "version", "labels"),
    [
        ("example.com/app", "example.com/app", None, {}),
        ("example.com/app:1.0", "example.com/app", "1.0", {}),
        ("my-app:v1", "my-app", "v1", {}),
        ("app", "app", None, {}),
        ("a:1,os=linux", "a", "1", {"os": "linux"}),
        ("a,version=2", "a", "2", {}),
        ("a,channel=alpha/beta,x.y/z=1:2", "a", None, {"channel": "alpha/beta", "x.y/z": "1:2"}),
        ("a:1.0+g~rc,os=linux,arch=i386", "a", "1.0+g~rc", {"os": "linux", "arch": "i386"}),
        ("a:latest", "a", "latest", {}),
        ("file:1", "file", "1", {}),
        ("https:1", "https", "1", {}),
    ],
)  # fmt: skip
def test_names(text: str, name: str, version: str | None, labels: dict[str, str]) -> None:
    reference = of(text)
    assert (reference.kind, reference.scheme, reference.text) == ("name", "appc", text)
    assert (reference.name, reference.version, reference.labels) == (name, version, labels)


def test_name_is_searched_with_the_hosts_platform() -> None:
    host = host_labels()
    assert of("a").search_labels() == host
    assert of("a:1,x=y").search_labels() == {"version": "1", "x": "y", **host}
    assert of("a,os=linux,arch=s390x").search_labels() == {"os": "linux", "arch": "s390x"}
    assert of("a,arch=s390x").search_labels() == {"os": host["os"], "arch": "s390x"}
    # The host's architecture is no answer for another system.
    assert of("a,os=freebsd").search_labels() == {"os": "freebsd"}


@pytest.mark.parametrize(
    "text",
    ["/srv/app.aci", "/srv/a:1", "./app", "../app", "a/../b", "dir/./app", "app.aci", "a/b.aci"],
)
def test_paths(text: str) -> None:
    reference = of(text)
    assert (reference.kind, reference.scheme, reference.path_or_url) == ("file", "file", text)
    assert reference.name is None


def test_existing_regular_file_is_a_file_whatever_its_name(tmp_path: Path) -> None:
    here = os.open(".", os.O_RDONLY)
    os.chdir(tmp_path)
    try:
        (tmp_path / "app:1").touch()
        (tmp_path / "redis").touch()
        (tmp_path / "directory").mkdir()
        (tmp_path / "layout").mkdir()
        (tmp_path / "layout" / "oci-layout").touch()
        assert parse("app:1").kind == "file"
        assert parse("redis").kind == "file"
        assert parse("directory").kind == "name"
        assert parse("layout").kind == "file"
        assert parse("app:2").kind == "name"
    finally:
        os.fchdir(here)
        os.close(here)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("file:///srv/app.aci", "/srv/app.aci"),
        ("file://localhost/srv/app.aci", "/srv/app.aci"),
        ("file:/srv/app.aci", "/srv/app.aci"),
        ("file:///srv/a%20b.aci", "/srv/a b.aci"),
        ("file:///srv/../app.aci", "/srv/../app.aci"),
        ("file:///srv/image.tar", "/srv/image.tar"),
    ],
)
def test_file_urls(text: str, path: str) -> None:
    reference = of(text)
    assert (reference.kind, reference.scheme, reference.path_or_url) == ("file", "file", path)


@pytest.mark.parametrize(
    "text",
    [
        "https://example.com/app.aci",
        "http://localhost:8080/a/b/c.aci",
        "https://example.com:443/app-1.0-linux-amd64.aci?token=abc",
        "https://10.0.0.1/x.aci",
        "https://[2001:db8::1]:8443/x.aci",
        "https://xn--bcher-kva.example/x.aci",
    ],
)
def test_urls(text: str) -> None:
    reference = of(text)
    assert (reference.kind, reference.path_or_url) == ("url", text)
    assert reference.scheme == text.partition(":")[0]


@pytest.mark.parametrize("text", ["oci://host/x", "s3+https://bucket/key", "vendor.x://a?b#c"])
def test_urls_of_other_schemes_are_left_to_plugins(text: str) -> None:
    reference = of(text)
    scheme = text.partition(":")[0]
    assert (reference.kind, reference.scheme, reference.path_or_url) == ("url", scheme, text)
    assert of(reference.canonical()).canonical() == reference.canonical()


@pytest.mark.parametrize("digits", ["ab", "0123456789ab", "f" * 64, "0" * 128])
def test_hashes(digits: str) -> None:
    reference = of(f"sha512-{digits}")
    assert (reference.kind, reference.scheme) == ("hash", None)
    assert reference.path_or_url == reference.canonical() == f"sha512-{digits}"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("docker://redis", f"{HUB}/library/redis:latest"),
        ("docker:redis", f"{HUB}/library/redis:latest"),
        ("docker://redis:7", f"{HUB}/library/redis:7"),
        ("docker://docker.io/redis", f"{HUB}/library/redis:latest"),
        ("docker://index.docker.io/library/redis:7", f"{HUB}/library/redis:7"),
        (f"docker://{HUB}/redis", f"{HUB}/library/redis:latest"),
        ("docker://user/app:T_a.g-1", f"{HUB}/user/app:T_a.g-1"),
        ("docker://quay.io/coreos/etcd:v3", "quay.io/coreos/etcd:v3"),
        ("docker://localhost/app", "localhost/app:latest"),
        ("docker://localhost:5000/a/b/c", "localhost:5000/a/b/c:latest"),
        ("docker://host:5000/app:1", "host:5000/app:1"),
        ("docker://a__b/c.d_e-f--g", f"{HUB}/a__b/c.d_e-f--g:latest"),
        (f"docker://redis@{SHA256}", f"{HUB}/library/redis@{SHA256}"),
        (f"docker://h.io/r@sha512:{'0' * 128}", f"h.io/r@sha512:{'0' * 128}"),
    ],
)
def test_registry_references(text: str, path: str) -> None:
    reference = of(text)
    assert (reference.kind, reference.scheme) == ("docker", "docker")
    assert reference.path_or_url == path
    assert path in (
        f"{reference.name}:{reference.version}",
        f"{reference.name}@{reference.version}",
    )


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("coreos.com/etcd", "cimd:appc:v=0:coreos.com/etcd"),
        ("a:1,os=linux,arch=amd64", "cimd:appc:v=0:a?arch=amd64&os=linux&version=1"),
        ("a,arch=amd64,os=linux,version=1", "cimd:appc:v=0:a?arch=amd64&os=linux&version=1"),
        ("a,b=c/d+e:f", "cimd:appc:v=0:a?b=c%2Fd%2Be%3Af"),
        ("https://h.io/a.aci?x=1", "cimd:aci-archive:v=0:https%3A%2F%2Fh.io%2Fa.aci%3Fx%3D1"),
        ("/srv/a b.aci", "cimd:aci-archive:v=0:file%3A%2F%2F%2Fsrv%2Fa%2520b.aci"),
        ("/srv//x/../a.aci", "cimd:aci-archive:v=0:file%3A%2F%2F%2Fsrv%2Fa.aci"),
        ("file:///srv/a.aci", "cimd:aci-archive:v=0:file%3A%2F%2F%2Fsrv%2Fa.aci"),
        ("/srv/\u00e9", "cimd:aci-archive:v=0:file%3A%2F%2F%2Fsrv%2F%25C3%25A9"),
        ("docker:redis", f"cimd:docker:v=0:{HUB}/library/redis:latest"),
    ],
)
def test_canonical_form(text: str, canonical: str) -> None:
    assert of(text).canonical() == canonical
    assert of(canonical).canonical() == canonical
    assert of(canonical).kind == of(text).kind


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a:1,os=linux", "a,os=linux,version=1"),
        ("docker://redis", "docker:docker.io/library/redis:latest"),
        ("/srv/a.aci", "file:///srv/./a.aci"),
    ],
)
def test_two_spellings_of_one_source_are_equal(one: str, other: str) -> None:
    assert of(one).canonical() == of(other).canonical()


NAMES_REFUSED = [
    "", "a//b", "..", "a/..", "../:1", ".", "A", "Example.com/app", "x" * 300, "a b", " a", "a ",
    "a:", "a:1:2 3", "a,", "a,os", "a,os=", "a,=x", "a,name=x", "a,os=linux,os=linux",
    "a:1,version=2", "a,os=plan9", "a,os=linux,arch=sparc", "a,OS=linux", "a:../../x", "a:..",
    "a:1/../../b", "a:1?x", "a:1#x", "a:1%2e", "a:1&x=y", "a:{os}", "a:1=2", "a:\u00e9", "a:1\\x",
    "ex\u0430mple.com/app", "\uff41pp", "b\u00fccher.example/app", "a@" + SHA256, "a:" + "1" * 256,
    "-flag", "--flag", "-", "-x.aci", "--dir=/etc", "a:-\n", "-sha512-abcd", "~/app",
]  # fmt: skip

URLS_REFUSED = [
    "https://example.com/app", "https://example.com/app.aci.asc", "https://example.com",
    "https:///app.aci", "https://host:99999/app.aci", "https://host:0/app.aci",
    "https://host:x/app.aci", "https://host:-1/app.aci", "https://user:secret@host/app.aci",
    "https://user@host/app.aci", "https://@host/app.aci", "https://host/app.aci#x",
    "https://ex\u0430mple.com/app.aci", "https://b\u00fccher.example/app.aci",
    "https://-host/app.aci", "https://ho_st/app.aci", "https://ho st/app.aci",
    "https://host/../app.aci", "https://host/a/%2e%2e/app.aci", "https://host/%0aapp.aci",
    "https://host/%00.aci", "https://host/\x1b[31m.aci", "https://host/%ff.aci",
    "https://a..b/x.aci", "https://[::1/x.aci", "https://[x]/x.aci", "https://host\\@evil/x.aci",
    "https://" + "a" * 64 + "/x.aci", "https://" + "a." * 130 + "b/x.aci",
    "file://host/srv/app.aci", "file:///srv/app.aci?x", "file:///srv/%00.aci",
    "://x.aci", "FTP://host/x", "1x://host", "a_b://host", "x y://host", "oci://user:p@host/x",
    "\u0430ci://host/x", "HTTPS://host/app.aci",
]  # fmt: skip

HASHES_REFUSED = [
    "sha512-", "sha512-a", "sha512-ABCD", "sha512-xyz", "sha512-" + "a" * 129, "sha512-../../etc",
    "sha512-ab/..", "sha512-ab,os=linux", "sha512-ab:1",
]  # fmt: skip

REGISTRY_REFUSED = [
    "docker:", "docker://", "docker:///", "docker:////etc", "docker://Redis", "docker://a//b",
    "docker://../x", "docker://a/../b", "docker://a/", "docker:///a", "docker://a:", "docker://a:b:c",
    "docker://a:.x", "docker://a:-x", "docker://a:" + "x" * 129, "docker://a:\u00e9",
    "docker://a_", "docker://_a", "docker://a___b", "docker://a..b", "docker://a.-b", "docker://-a",
    "docker://host:99999/a", "docker://host:0/a", "docker://host:port/a", "docker://h_st:1/a",
    "docker://b\u00fccher.example/a", "docker://ex\u0430mple.com/a", "docker://h.io/" + "a" * 256,
    "docker://a@", "docker://a@sha256:", "docker://a@sha256:../../x",
    "docker://a@sha256:" + "A" * 64,
    "docker://a@sha256:" + "a" * 63, "docker://a@md5:" + "a" * 32, "docker://a@" + "a" * 64,
    f"docker://a:1@{SHA256}", f"docker://a@{SHA256}@{SHA256}", "docker://a?x", "docker://user:p@h/a",
    "docker://a b",
]  # fmt: skip

CIMD_REFUSED = [
    "cimd:", "cimd:appc", "cimd:appc:v=0:", "cimd:appc:v=1:a", "cimd:oci:v=0:a",
    "cimd:appc:v=0:../x", "cimd:aci-archive:v=0:/srv/a.aci", "cimd:docker:v=0:A",
    "cimd:aci-archive:v=0:FTP%3A%2F%2Fh%2Fa.aci", "cimd:appc:v=0:a?os=plan9",
]  # fmt: skip

REFUSED = NAMES_REFUSED + URLS_REFUSED + HASHES_REFUSED + REGISTRY_REFUSED + CIMD_REFUSED


@pytest.mark.parametrize("text", REFUSED)
def test_refused_references(text: str) -> None:
    with pytest.raises(ReferenceInvalid):
        of(text)


@pytest.mark.parametrize(
    "char", ["\0", "\n", "\r", "\t", "\x1b", "\x7f", "\x9b", "\u2028", "\u202e"]
)
@pytest.mark.parametrize(
    "form", ["a{}b", "/srv/{}.aci", "https://h/{}.aci", "docker://a{}", "./{}"]
)
def test_control_characters_are_refused_in_every_form(form: str, char: str) -> None:
    of(form.format("x"))  # control
    with pytest.raises(ReferenceInvalid, match="control characters"):
        of(form.format(char))


def test_dash_is_refused_even_where_such_a_file_exists() -> None:
    with pytest.raises(ReferenceInvalid, match="begins with a dash"):
        parse("-rf", is_file=lambda _: True)


def test_length_is_bounded_and_messages_are_short() -> None:
    with pytest.raises(ReferenceInvalid, match="longer than 4096"):
        of("/" + "x" * MAX_REFERENCE)
    with pytest.raises(ReferenceInvalid) as caught:
        of("X" * MAX_REFERENCE)
    assert len(caught.value.message) < 800


def test_credentials_in_a_url_are_not_repeated() -> None:
    with pytest.raises(ReferenceInvalid) as caught:
        of("https://user:hunter2@host/app.aci")
    assert "hunter2" not in str(caught.value)


def test_message_quotes_the_image_string() -> None:
    with pytest.raises(ReferenceInvalid, match='^invalid image string "https://h/x"'):
        of("https://h/x")


def test_parse_name_reads_names_only(tmp_path: Path) -> None:
    assert parse_name("file:1").name == "file"
    for text in ("/srv/a", "./a", "https://h/a.aci", str(tmp_path)):
        with pytest.raises(ReferenceInvalid):
            parse_name(text)


@given(st.text(max_size=30) | st.text(alphabet="abA0-._~/:,=@ docker\u00e9%\n", max_size=30))
def test_any_text_is_refused_or_canonical(text: str) -> None:
    try:
        reference = of(text)
    except ReferenceInvalid:
        return
    canonical = reference.canonical()
    assert canonical.isprintable()
    assert not canonical.startswith("-")
    assert of(canonical).canonical() == canonical


@given(st.text(alphabet="abc019-._~/", min_size=1, max_size=12), st.text("a0.+~:/-", max_size=8))
def test_accepted_names_never_climb(name: str, version: str) -> None:
    try:
        reference = parse_name(f"{name}:{version}")
    except ReferenceInvalid:
        return
    assert reference.version is not None
    assert ".." not in f"{reference.name}/{reference.version}".split("/")
