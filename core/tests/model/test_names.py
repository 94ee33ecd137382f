"""appc's scalar types: identifiers, names, ids, versions, dates, users (rows M9, M10, M19)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podctl.errors import InvalidInput
from podctl.model import names
from podctl.model.reference import parse

IDENTIFIER = re.compile(r"[a-z0-9]+([-._~/][a-z0-9]+)*")
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

GOOD_NAMES = ["database", "a", "0", "foo-bar-baz", "a1-2b", "x" * 255]
GOOD_IDENTIFIERS = [
    *GOOD_NAMES,
    "example.com/database",
    "example.com/~user/app_v1".replace("/~", "/"),
    "example.com/ourapp-1.0.0",
    "sub-domain.example.com/org/product/release-1.0.0",
    "a~b",
    "appc.io/executor/supports-systemd-notify",
]
BAD_BOTH = [
    "", "-", "/", ".", "..", "-a", "a-", "/app", "app/", ".app", "app.", "~app", "_app",
    "a--b", "a//b", "a..b", "a./b", "a/../b", "../a", "a/./b", "A", "EXAMPLE.com", "foo.com/BAR",
    "foo#", "a b", " a", "a ", "a\n", "a\0", "a:b", "a@b", "a,b", "a=b", "a%2f", "\u00e9",
    "\u0430bc", "a\u0661", "\u2170", "\uff41", "\u00df", "x" * 256, "a\u200bb", "caf\u00e9.com/x",
]  # fmt: skip
BAD_NAMES = [*BAD_BOTH, "a.b", "a/b", "a_b", "a~b", "example.com/database"]


@pytest.mark.parametrize("text", GOOD_IDENTIFIERS)
def test_identifiers(text: str) -> None:
    assert names.check_identifier(text) == text


@pytest.mark.parametrize("text", BAD_BOTH)
def test_what_is_no_identifier(text: str) -> None:
    with pytest.raises(InvalidInput, match="^image name"):
        names.check_identifier(text, "image name")


@pytest.mark.parametrize("text", GOOD_NAMES)
def test_names(text: str) -> None:
    assert names.check_name(text) == text


@pytest.mark.parametrize("text", BAD_NAMES)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(InvalidInput, match="^volume name"):
        names.check_name(text, "volume name")


@given(st.text(alphabet="ab09AZ-._~/ \u00e9\u0661\n", max_size=12) | st.text(max_size=8))
def test_identifiers_and_names_are_those_of_the_specifications_expressions(text: str) -> None:
    assert names.is_identifier(text) == (IDENTIFIER.fullmatch(text) is not None)
    assert names.is_name(text) == (NAME.fullmatch(text) is not None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("foo#", "foo"),
        ("EXAMPLE.com", "example-com"),
        ("app_1", "app-1"),
        ("/app", "app"),
        ("-/.app..", "app"),
        ("a  b", "a-b"),
        ("a-_-b", "a-b"),
        ("volume-/var/lib/x", "volume-var-lib-x"),
        ("\u00c9t\u00e9", "t"),
        ("../../etc", "etc"),
        ("x" * 300, "x" * 255),
        ("x" * 254 + "-y", "x" * 254),
    ],
)
def test_sanitised_names(text: str, expected: str) -> None:
    assert names.sanitise_name(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("foo.com/BAR", "foo.com/bar"),
        ("registry-1.docker.io/library/redis", "registry-1.docker.io/library/redis"),
        ("a__b", "a_b"),
        ("a//b", "a/b"),
        ("a:5000/b", "a-5000/b"),
        (".app.", "app"),
    ],
)
def test_sanitised_identifiers(text: str, expected: str) -> None:
    assert names.sanitise_identifier(text) == expected


@pytest.mark.parametrize("text", ["", "__", "..", "//", ".//-", "\u00e9"])
def test_nothing_to_make_a_name_of(text: str) -> None:
    with pytest.raises(InvalidInput):
        names.sanitise_name(text)
    with pytest.raises(InvalidInput):
        names.sanitise_identifier(text)


@given(st.text(max_size=400))
def test_sanitised_text_is_valid_and_stable(text: str) -> None:
    for sanitise, check in (
        (names.sanitise_name, names.check_name),
        (names.sanitise_identifier, names.check_identifier),
    ):
        try:
            clean = sanitise(text)
        except InvalidInput:
            continue
        assert check(clean) == clean
        assert sanitise(clean) == clean


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("quay.io/coreos/etcd", "quay.io/coreos/etcd"),
        ("localhost:5000/app", "localhost-5000/app"),
        ("Registry.Example:5000/Team", "registry.example-5000/team"),
        ("registry.example/a__b/c---d", "registry.example/a_b/c-d"),
        ("registry.example/-a-/b.", "registry.example/a/b"),
        ("[::1]:5000/app", "1-5000/app"),
        ("registry.example", "registry.example"),
        ("docker.io/library/redis", "registry-1.docker.io/library/redis"),
        ("index.docker.io", "registry-1.docker.io"),
        ("Docker.io/bitnami", "registry-1.docker.io/bitnami"),
        ("example.com/docker.io", "example.com/docker.io"),
    ],
)
def test_registry_names_become_identifiers(text: str, expected: str) -> None:
    assert names.registry_identifier(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", "a/", "/a", "a//b", "../etc", "a/../b", "a/_/b", "a" * 256),
        # KELVIN SIGN is a small k in lower case.
        *("Keys.example", "éxample.com/a"),
    ],
)
def test_registry_names_that_leave_nothing_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="AC Identifier"):
        names.registry_identifier(text)


@pytest.mark.parametrize("name", ["redis", "docker.io/redis", "index.docker.io/library/redis"])
def test_the_hub_has_one_name_in_references_and_identifiers(name: str) -> None:
    reference = parse(f"docker://{name}")
    assert reference.name == "registry-1.docker.io/library/redis"
    assert names.registry_identifier(reference.name) == reference.name


@given(st.text(max_size=400))
def test_registry_identifiers_are_valid_and_stable(text: str) -> None:
    try:
        clean = names.registry_identifier(text)
    except InvalidInput:
        return
    assert names.check_identifier(clean) == clean
    assert names.registry_identifier(clean) == clean
    assert clean.count("/") == text.count("/")


@pytest.mark.parametrize("digits", ["ab", "0" * 12, "f" * 32, "a1" * 32, "0" * 128])
def test_image_ids(digits: str) -> None:
    assert names.check_image_id(f"sha512-{digits}") == f"sha512-{digits}"


@pytest.mark.parametrize(
    "text",
    [
        "", "sha512", "sha512-", "sha512-a", "sha512-" + "a" * 129, "sha512-AB", "SHA512-ab",
        "sha256-" + "a" * 64, "sha512-xy", "sha512-../../etc", "sha512-ab/cd", "sha512-ab\n",
        "sha512:abcd", "ab", "sha512-ab-cd", "sha512-\uff41\uff42", "-sha512-ab",
    ],
)  # fmt: skip
def test_what_is_no_image_id(text: str) -> None:
    with pytest.raises(InvalidInput):
        names.check_image_id(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.8.11", (0, 8, 11)),
        ("1.0.0", (1, 0, 0)),
        ("1.30.0+git", (1, 30, 0)),
        ("1.2.3-beta.1", (1, 2, 3)),
        ("1.2.3-0.x-y.7+001.sha-5", (1, 2, 3)),
        ("10.20.30", (10, 20, 30)),
        ("1.0.0--", (1, 0, 0)),
    ],
)
def test_versions(text: str, expected: tuple[int, int, int]) -> None:
    assert names.check_version(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "1", "1.2", "1.2.3.4", "01.2.3", "1.02.3", "1.2.03", "v1.2.3", "1.2.3-", "1.2.3+",
        "1.2.3-01", "1.2.3-a..b", "1.2.3+a..b", "1.2.3+a+b", "1.2.-3", "-1.2.3", "1.2.x", " 1.2.3",
        "1.2.3\n", "\u0661.2.3", "1.2.3-\u00e9", "1.2.3-a_b", "1.2." + "9" * 400, "1..3",
    ],
)  # fmt: skip
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(InvalidInput):
        names.check_version(text)


@pytest.mark.parametrize(
    "text",
    [
        "2014-10-27T19:32:27Z",
        "2014-10-27T19:32:27.67021798Z",
        "2015-05-18T13:49:28.351729952-04:00",
        "2016-12-31T23:59:60Z",
        "2024-02-29T00:00:00+14:00",
        "0001-01-01T00:00:00Z",
    ],
)
def test_dates(text: str) -> None:
    assert names.check_date(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "2014-10-27", "2014-10-27 19:32:27Z", "2014-10-27T19:32:27", "2014-10-27T19:32Z",
        "2014-13-27T19:32:27Z", "2014-02-30T19:32:27Z", "2023-02-29T00:00:00Z",
        "2014-10-27T24:00:00Z", "2014-10-27T19:60:00Z", "2014-10-27T19:32:61Z",
        "2014-10-27T19:32:27.Z", "2014-10-27T19:32:27+0400", "2014-10-27T19:32:27+24:00",
        "2014-10-27T19:32:27+04:60", "2014-10-27T19:32:27z", "2014-10-27T19:32:27ZZ",
        "0000-01-01T00:00:00Z", "\u0662014-10-27T19:32:27Z", "Mon Oct 27 2014",
    ],
)  # fmt: skip
def test_what_is_no_date(text: str) -> None:
    with pytest.raises(InvalidInput):
        names.check_date(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1000", 1000),
        ("007", 7),
        ("4294967294", 4294967294),
        ("root", "root"),
        ("www-data", "www-data"),
        ("user.name", "user.name"),
        ("a1", "a1"),
        ("/usr/bin/ping", "/usr/bin/ping"),
        ("J\u00fcrgen", "J\u00fcrgen"),
    ],
)
def test_users(text: str, expected: int | str) -> None:
    assert names.parse_principal(text, "user") == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "-1", "+1", "-0", "4294967295", "4294967296", "99999999999", "9" * 5000,
        "root:x", "a b", "a\nb", "a\0", " 0", "0 ", "bin/ping", "../x", "/a\0b", "x" * 256, "\t",
    ],
)  # fmt: skip
def test_what_is_no_user(text: str) -> None:
    with pytest.raises(InvalidInput, match="user"):
        names.parse_principal(text, "user")


def test_digits_of_other_scripts_are_no_number() -> None:
    assert names.parse_principal("\u0661", "user") == "\u0661"


@given(st.integers(-(2**70), 2**70))
def test_a_numeral_is_a_number_in_range_or_refused(number: int) -> None:
    try:
        assert names.parse_principal(str(number), "group") == number
        assert 0 <= number < 2**32 - 1
    except InvalidInput:
        assert not 0 <= number < 2**32 - 1


@pytest.mark.parametrize("text", ["A", "_", "PATH", "a.b", "a-b", "_1", "http_proxy"])
def test_environment_names(text: str) -> None:
    assert names.check_environment_name(text) == text


@pytest.mark.parametrize(
    "text", ["", "1A", ".a", "-a", "A=B", "A B", "A\n", "A\0", "\u00c4", "A[0]", "${A}", "BASH_%%"]
)
def test_what_is_no_environment_name(text: str) -> None:
    with pytest.raises(InvalidInput):
        names.check_environment_name(text)


@given(st.text(alphabet="aZ_0.-=\u00e9 ", max_size=6))
def test_environment_names_are_those_of_the_expression(text: str) -> None:
    expression = re.compile(r"[A-Za-z_][A-Za-z_0-9.-]*")
    assert names.is_environment_name(text) == (expression.fullmatch(text) is not None)


def test_absolute_paths() -> None:
    assert names.check_absolute("/a/../b", "path") == "/a/../b"
    assert names.check_absolute("/a..b/...", "path", parents=False) == "/a..b/..."
    for path in ("", "a", "./a", "\0/a"):
        with pytest.raises(InvalidInput):
            names.check_absolute(path, "path")
    for path in ("/..", "/a/..", "/../a", "/a/../b"):
        with pytest.raises(InvalidInput, match=r"\.\."):
            names.check_absolute(path, "path", parents=False)


@pytest.mark.parametrize("name", ["box", "a.b-c_d.E9", "h" * 64, "1"])
def test_names_of_hosts(name: str) -> None:
    assert names.check_hostname(name) == name


@pytest.mark.parametrize(
    "name", ["", "a b", "a\nb", "-a", "a-", "a..b", ".a", "a.", "h" * 65, "é", "a/b", "a\0"]
)
def test_what_cannot_be_the_name_of_a_host(name: str) -> None:
    with pytest.raises(InvalidInput, match="hostname"):
        names.check_hostname(name)
