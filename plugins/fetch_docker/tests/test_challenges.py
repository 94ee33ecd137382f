"""WWW-Authenticate: one reading, or none (row R3)."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podctl.errors import FetchFailed
from podctl_fetch_docker.challenges import MAX_HEADER, Challenge, parse_challenges


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("", []),
        ("Basic", [("basic", {})]),
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        ("basic realm=x", [("basic", {"realm": "x"})]),
        ('Basic realm=""', [("basic", {"realm": ""})]),
        (
            'Bearer realm="https://a.example/token",service="a b",scope="repository:x:pull,push"',
            [
                (
                    "bearer",
                    {
                        "realm": "https://a.example/token",
                        "service": "a b",
                        "scope": "repository:x:pull,push",
                    },
                )
            ],
        ),
        ('Bearer realm = "x" , service= y', [("bearer", {"realm": "x", "service": "y"})]),
        (r'Basic realm="a \"b\" \\c"', [("basic", {"realm": r'a "b" \c'})]),
        (
            'Basic realm="x", Bearer realm="y"',
            [("basic", {"realm": "x"}), ("bearer", {"realm": "y"})],
        ),
        ("Negotiate, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        (', ,Basic realm="x",', [("basic", {"realm": "x"})]),
    ],
)
def test_a_challenge_is_read(value: str, read: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges(value, "x") == [Challenge(*one) for one in read]


@pytest.mark.parametrize(
    "value",
    [
        'realm="x"',
        'Bearer realm="x",realm="y"',
        'Bearer realm="x",REALM="y"',
        'Bearer realm="x',
        'Bearer realm="x" service="y"',
        "Bearer realm=",
        "Bearer realm=a b",
        'Bearer realm="x"\r\nSet-Cookie: a=b',
        'Bearer realm="x"\n ,service="y"',
        'Bearer realm="a\x00b"',
        'Bearer realm="a\x85b"',
        'Bearer "x"',
        "Negotiate YII=",
        "Bearer realm=https://a.example/",
        "x" * (MAX_HEADER + 1),
    ],
)
def test_what_can_be_misread_is_refused(value: str) -> None:
    with pytest.raises(FetchFailed, match="WWW-Authenticate"):
        parse_challenges(value, "https://registry.example/")


@given(st.text(max_size=300) | st.from_regex(r'(Bearer|Basic|[a-z=", \\]){0,60}', fullmatch=True))
def test_any_header_is_read_or_refused(value: str) -> None:
    try:
        challenges = parse_challenges(value, "x")
    except FetchFailed:
        return
    assert all(one.scheme == one.scheme.lower() for one in challenges)


@pytest.mark.parametrize("unit", ["a", "a ", 'a="', 'a="\\', "a=b,", ", ", " \t", '"', "\\", "a,"])
def test_a_header_made_for_backtracking_is_read_or_refused(unit: str) -> None:
    """Within the test's time limit: each step moves forward."""
    with suppress(FetchFailed):
        parse_challenges(unit * (MAX_HEADER // len(unit)), "x")
