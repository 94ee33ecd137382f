"""The grammar of image arguments: `IMAGE [flags] [-- args [---]] IMAGE ...`."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podctl.cli.imageargs import NO_VALUE, VALUE, ParsedImages, parse_images
from podctl.errors import UsageError
from podctl.model.volumes import Mount, Volume

OWN = {
    "--net": NO_VALUE,
    "--inherit-env": NO_VALUE,
    "--dns": VALUE,
    "--set-env": VALUE,
    "-i": NO_VALUE,
    "-t": NO_VALUE,
    "-e": VALUE,
}


def of(line: str | list[str], **changes: bool) -> ParsedImages:
    """Parse a line, words split at blanks."""
    return parse_images(line.split() if isinstance(line, str) else line, OWN, **changes)


def shape(line: str | list[str]) -> list[tuple[str, tuple[str, ...] | None]]:
    """Images and their arguments."""
    return [(image.image, image.arguments) for image in of(line).images]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", []),
        ("a", [("a", None)]),
        ("a b c", [("a", None), ("b", None), ("c", None)]),
        ("a --", [("a", ())]),
        ("a -- x y", [("a", ("x", "y"))]),
        ("a -- x --- b", [("a", ("x",)), ("b", None)]),
        ("a -- x --- b -- y ---", [("a", ("x",)), ("b", ("y",))]),
        ("a -- --- b -- z", [("a", ()), ("b", ("z",))]),
        ("a -- --net --exec -x -- - y", [("a", ("--net", "--exec", "-x", "--", "-", "y"))]),
        ("a --- b", [("a", None), ("b", None)]),
        ("--- a", [("a", None)]),
        ("a --- ---", [("a", None)]),
        ("a b -- x", [("a", None), ("b", ("x",))]),
        ("--net a --dns 1.1.1.1 b --net=host", [("a", None), ("b", None)]),
        ("a --memory 1Mi -- x --- --net b", [("a", ("x",)), ("b", None)]),
        ("a -- x --- --memory 1Mi", [("a", ("x",))]),
        (["", "a", "", "--", "", "x", ""], [("a", ("", "x", ""))]),
    ],
)
def test_images_and_arguments(
    line: str | list[str], expected: list[tuple[str, tuple[str, ...] | None]]
) -> None:
    assert shape(line) == expected


@pytest.mark.parametrize(
    ("line", "rest"),
    [
        ("--net a", ("--net",)),
        ("--net=host a --inherit-env=false", ("--net=host", "--inherit-env=false")),
        ("a --net b", ("--net",)),
        ("--dns 1.1.1.1 a --dns=2.2.2.2", ("--dns", "1.1.1.1", "--dns=2.2.2.2")),
        ("--dns -- a", ("--dns", "--")),
        ("--set-env A=--x a --set-env --net", ("--set-env", "A=--x", "--set-env", "--net")),
        ("-i -t a", ("-i", "-t")),
        ("-it a", ("-it",)),
        ("-ite A=b a", ("-ite", "A=b")),
        ("-eA=b a -e C=d", ("-eA=b", "-e", "C=d")),
        ("-i=false a", ("-i=false",)),
        ("a -- --net -i", ()),
    ],
)
def test_own_flags_are_handed_on_as_written(line: str, rest: tuple[str, ...]) -> None:
    parsed = of(line)
    assert parsed.rest == rest
    assert parsed.images[0].image == "a"


def test_flags_belong_to_the_image_before_them() -> None:
    parsed = of(
        "a --exec /bin/x --memory=1Mi b --user 5 --readonly-rootfs c --readonly-rootfs=false"
    )
    one, two, three = (image.settings for image in parsed.images)
    assert (one.exec, one.user, one.read_only_root_fs) == ("/bin/x", None, False)
    assert (two.exec, two.user, two.read_only_root_fs) == (None, "5", True)
    assert three.read_only_root_fs is False
    assert parsed.images[0].flags == (("--exec", "/bin/x"), ("--memory", "1Mi"))


def test_value_of_a_flag_may_look_like_anything() -> None:
    parsed = of("a --exec --net --name=b --user-label x=--")
    assert parsed.images[0].settings.exec == "--net"
    assert parsed.images[0].settings.user_labels == {"x": "--"}
    assert parsed.rest == ()
    assert of("a --exec --").images[0].settings.exec == "--"


def test_volumes_are_the_pods_and_mounts_of_pod_or_image() -> None:
    line = (
        "--volume=v,kind=empty --mount volume=v,target=/all a --mount volume=w,target=/one "
        "--volume w,kind=host,source=/srv b --mount=volume=v,target=/two"
    )
    parsed = of(line)
    assert parsed.volumes == (Volume("v", "empty"), Volume("w", "host", "/srv"))
    assert parsed.mounts == (Mount("v", "/all"),)
    assert [image.settings.mounts for image in parsed.images] == [
        (Mount("w", "/one"),),
        (Mount("v", "/two"),),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--exec x", "--exec must follow an image"),
        ("--memory=1Mi a", "--memory must follow an image"),
        ("--net --user 0 a", "--user must follow an image"),
        ("--cap-retain=CAP_KILL a", "--caps-retain must follow an image"),
        ("--readonly-rootfs a", "--readonly-rootfs must follow an image"),
        ("--", "an image is required before any app arguments"),
        ("-- x", "an image is required before any app arguments"),
        ("--net -- a", "an image is required before any app arguments"),
        ("a -- x --- -- y", "only one set of app arguments allowed per image"),
        ("a -- --- --", "only one set of app arguments allowed per image"),
        ("a --exec x --exec y", "--exec may be given only once per image"),
        ("a --signature x b --signature x --signature y", "--signature may be given only once"),
        ("a --nonsense", "unknown flag: --nonsense"),
        ("--nonsense=1 a", "unknown flag: --nonsense"),
        ("a --ne", "unknown flag: --ne"),
        ("a ---x", "unknown flag: ---x"),
        ("a -x", "unknown shorthand flag: 'x' in -x"),
        ("a -ix", "unknown shorthand flag: 'x' in -ix"),
        ("a --exec", "flag needs an argument: --exec"),
        ("a --dns", "flag needs an argument: --dns"),
        ("a -e", "flag needs an argument: -e"),
        ("--volume=v,kind=empty a --volume=v,kind=empty", 'duplicate volume name "v"'),
        ("a --memory=16m", "less than 4096"),
        ("a --mount=volume=v", "target is required"),
        ("--mount=x a", "^--mount"),
        ("--volume=x a", "^--volume"),
    ],
)
def test_refused_lines(line: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        of(line)


def test_exec_once_per_image_allows_one_for_each() -> None:
    parsed = of("a --exec x b --exec y")
    assert [image.settings.exec for image in parsed.images] == ["x", "y"]


def test_commands_without_app_arguments_refuse_them() -> None:
    assert of("a b", arguments=False).images[1].image == "b"
    with pytest.raises(UsageError, match="app arguments unsupported"):
        of("a -- x", arguments=False)


def test_commands_choose_the_flags_of_their_images() -> None:
    parsed = parse_images(["a", "--signature", "x.asc"], {}, app_flags={"--signature": True})
    assert parsed.images[0].settings.signature == "x.asc"
    for word in ("--exec=x", "--volume=v,kind=empty", "--mount=volume=v,target=/x"):
        with pytest.raises(UsageError, match="unknown flag"):
            parse_images(["a", word], {}, app_flags={"--signature": True})


WORDS = st.sampled_from(
    ["a", "b", "--", "---", "", "-", "-i", "--net", "--net=x", "--dns", "--exec", "--exec=x", "x=y"]
)


@settings(deadline=None)
@given(st.lists(WORDS, max_size=10))
def test_no_word_is_lost_or_invented(words: list[str]) -> None:
    try:
        parsed = of(words)
    except UsageError:
        return
    found = [*parsed.rest]
    for image in parsed.images:
        found += [image.image, *(image.arguments or ())]
        found += [word for flag in image.flags for word in flag]
    assert _pieces(found) == _pieces(words)


def _pieces(words: list[str]) -> list[str]:
    """What words consist of, however flags were joined to their values."""
    pieces = [piece for word in words for piece in word.split("=")]
    return sorted(piece for piece in pieces if piece not in ("--", "---", ""))
