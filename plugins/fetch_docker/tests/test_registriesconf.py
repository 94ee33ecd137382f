"""registries.conf: where an image is looked for, and under which name."""

from __future__ import annotations

from typing import Any

import pytest

from podctl.errors import PodctlError, Refused, UsageError
from podctl.model.reference import parse
from podctl_fetch_docker.configure import places
from podctl_fetch_docker.registriesconf import Mirror, covered, load_registries
from podctl_fetch_docker.shortnames import complete

MAIN = "etc/containers/registries.conf"


def looked_for(host: Any, text: str) -> list[str]:
    """The places of a reference, in order."""
    return [one.location for one in places(parse(text), load_registries(host.around))]


@pytest.mark.parametrize(
    ("prefix", "name", "length"),
    [
        ("a.example", "a.example/x", 9),
        ("a.example", "a.example:5000/x", 0),
        ("a.example", "a.example.evil/x", 0),
        ("a.example/foo", "a.example/foo", 13),
        ("a.example/foo", "a.example/foo/bar", 13),
        ("a.example/foo", "a.example/foobar", 0),
        ("*.example", "a.example/x", 9),
        ("*.example", "b.a.example/x", 11),
        ("*.example", "example/x", 0),
        ("*.example", "a.example:5000/x", 0),
        ("*.a.example", "evil-a.example/x", 0),
        ("*.example:5000", "a.example:5000/x", 14),
    ],
)
def test_a_prefix_speaks_for_whole_components(prefix: str, name: str, length: int) -> None:
    assert covered(prefix, name) == length


def test_without_configuration_a_name_is_its_place(host: Any) -> None:
    assert looked_for(host, "docker://a.example/x:1") == ["a.example/x"]
    assert looked_for(host, "docker://docker.io/busybox") == ["docker.io/library/busybox"]


def test_the_longest_prefix_counts(host: Any) -> None:
    host.write(
        MAIN,
        """
        [[registry]]
        prefix = "a.example"
        location = "b.example/all"
        [[registry]]
        prefix = "a.example/foo"
        location = "c.example"
        [[registry]]
        prefix = "*.example"
        location = "d.example"
        """,
    )
    assert looked_for(host, "docker://a.example/x:1") == ["b.example/all/x"]
    assert looked_for(host, "docker://a.example/foo/bar:1") == ["c.example/bar"]
    assert looked_for(host, "docker://a.example/foobar:1") == ["b.example/all/foobar"]
    assert looked_for(host, "docker://z.example/x:1") == ["d.example/x"]


def test_docker_hub_has_one_name_in_files(host: Any) -> None:
    host.write(MAIN, '[[registry]]\nprefix = "docker.io"\nlocation = "mirror.gcr.io"\n')
    for name in ("docker.io/library/x", "docker.io/x", "index.docker.io/library/x"):
        assert looked_for(host, f"docker://{name}") == ["mirror.gcr.io/library/x"]
    host.write(MAIN, '[[registry]]\nprefix = "registry-1.docker.io"\nlocation = "m.example"\n')
    assert looked_for(host, "docker://docker.io/x") == ["m.example/library/x"]


def test_mirrors_come_first_in_their_order(host: Any) -> None:
    host.write(
        MAIN,
        """
        [[registry]]
        location = "a.example"
        [[registry.mirror]]
        location = "b.example:5000/cache"
        insecure = true
        [[registry.mirror]]
        location = "c.example"
        """,
    )
    found = places(parse("docker://a.example/x:1"), load_registries(host.around))
    assert found == [
        Mirror("b.example:5000/cache/x", insecure=True),
        Mirror("c.example/x"),
        Mirror("a.example/x"),
    ]


def test_mirrors_by_digest_only(host: Any) -> None:
    host.write(
        MAIN,
        """
        [[registry]]
        location = "a.example"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "b.example"
        """,
    )
    digest = "sha256:" + "0" * 64
    assert looked_for(host, "docker://a.example/x:1") == ["a.example/x"]
    assert looked_for(host, f"docker://a.example/x@{digest}") == ["b.example/x", "a.example/x"]


def test_a_blocked_registry_is_refused_with_who_says_so(host: Any) -> None:
    path = host.write(MAIN, '[[registry]]\nlocation = "a.example/foo"\nblocked = true\n')
    with pytest.raises(Refused, match='registry of "a.example/foo/x" is blocked') as caught:
        looked_for(host, "docker://a.example/foo/x:1")
    assert str(path) in str(caught.value.hint)
    assert looked_for(host, "docker://a.example/bar:1") == ["a.example/bar"]


def test_drop_ins_override_item_by_item(host: Any) -> None:
    host.write(
        MAIN,
        """
        unqualified-search-registries = ["a.example"]
        [[registry]]
        location = "a.example"
        blocked = true
        [[registry]]
        location = "b.example"
        blocked = true
        [aliases]
        one = "x.example/one"
        two = "x.example/two"
        """,
    )
    host.write(f"{MAIN}.d/20.conf", '[[registry]]\nlocation = "a.example"\n')
    host.write(f"{MAIN}.d/10.conf", 'unqualified-search-registries = []\n[aliases]\none = ""\n')
    host.write(f"{MAIN}.d/30.toml", "not read at all")
    conf = load_registries(host.around)
    assert conf.search == ()
    assert dict(conf.aliases) == {"two": "x.example/two"}
    assert not conf.registries["a.example"].blocked
    assert conf.registries["b.example"].blocked


def test_a_variable_names_another_main_file(host: Any) -> None:
    host.write(MAIN, "nonsense")
    host.write(f"{MAIN}.d/10.conf", '[aliases]\none = "x.example/one"\n')
    path = host.write("other.conf", 'unqualified-search-registries = ["a.example"]\n')
    conf = load_registries(host.having(CONTAINERS_REGISTRIES_CONF=str(path)).around)
    assert (conf.search, dict(conf.aliases)) == (("a.example",), {"one": "x.example/one"})
    with pytest.raises(UsageError, match="there is no /nonexistent"):
        load_registries(host.having(CONTAINERS_REGISTRIES_CONF="/nonexistent").around)


def test_a_user_has_a_file_of_their_own_and_root_has_not(host: Any) -> None:
    host.write(MAIN, 'unqualified-search-registries = ["system.example"]\n')
    own = "home/.config/containers/registries.conf"
    host.write(own, 'unqualified-search-registries = ["own.example"]\n')
    user = host._replace(around=host.around._replace(uid=1000))
    assert load_registries(user.around).search == ("own.example",)
    assert load_registries(host.around).search == ("system.example",)


@pytest.mark.root
@pytest.mark.parametrize("spoil", ["owner", "mode", "directory"])
def test_root_uses_no_file_that_others_could_have_written(host: Any, spoil: str) -> None:
    import os

    path = host.write("shared/other.conf", "")
    root = host.having(CONTAINERS_REGISTRIES_CONF=str(path))
    assert load_registries(root.around).sources == (str(path),), "the control"
    if spoil == "owner":
        os.chown(path, 65534, 65534)
    elif spoil == "mode":
        path.chmod(0o666)
    else:
        os.chown(path.parent, 65534, 65534)
    with pytest.raises(UsageError, match="somebody else than root could have written it"):
        load_registries(root.around)


@pytest.mark.parametrize("kind", ["directory", "fifo"])
def test_what_is_no_file_is_refused_at_once(host: Any, kind: str) -> None:
    import os

    path = host.top / MAIN
    path.parent.mkdir(parents=True)
    path.mkdir() if kind == "directory" else os.mkfifo(path)
    with pytest.raises(UsageError, match="is no regular file"):
        load_registries(host.around)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "no TOML"),
        ("a = 1\na = 2", "no TOML"),
        ("\xff", "no TOML"),
        ("a = " + "[" * 5000, "no TOML"),
        ("[registries.search]\nregistries = ['a.example']", "is of version 1"),
        ("[registries.block]\nregistries = []\n[[registry]]\nlocation = 'a'", "is of version 1"),
        ("unknown = true", "'unknown' is not known here"),
        ("[[registry]]\nlocation = 'a.example'\nblcoked = true", "'blcoked' is not known here"),
        (
            "[[registry]]\nlocation = 'a.example'\nunqualified-search-registries = []",
            "'unqualified-search-registries' is not known here",
        ),
        ("[[registry]]", "neither prefix nor location"),
        ("[registry]\nlocation = 'a.example'", "must be an array of tables"),
        ("[[registry]]\nlocation = 5", "location must be a string"),
        ("[[registry]]\nlocation = 'a.example'\nblocked = 'true'", "blocked must be true or false"),
        ("[[registry]]\nlocation = 'https://a.example'", "is no registry"),
        ("[[registry]]\nlocation = 'a.example/x:tag'", "is no registry"),
        ("[[registry]]\nlocation = 'a.example/../x'", "is no registry"),
        ("[[registry]]\nlocation = 'a.example/x@sha256:1'", "is no registry"),
        ("[[registry]]\nlocation = 'a example'", "is no registry"),
        ("[[registry]]\nprefix = 'a.*.example'\nlocation = 'b.example'", "is no registry"),
        ("[[registry]]\nprefix = '*.example/x'\nlocation = 'b.example'", "is no registry"),
        ("[[registry]]\nlocation = 'a.example'\n[[registry.mirror]]", "has no location"),
        (
            "[[registry]]\nlocation = 'a.example'\n"
            "[[registry.mirror]]\nlocation = 'b.example'\npull-from-mirror = 'never'",
            "is none of: all, digest-only, tag-only",
        ),
        (
            "[[registry]]\nlocation = 'a.example'\nmirror-by-digest-only = true\n"
            "[[registry.mirror]]\nlocation = 'b.example'\npull-from-mirror = 'all'",
            "contradict",
        ),
        (
            "[[registry]]\nlocation = 'a.example'\n[[registry]]\nlocation = 'a.example/'",
            "two .* are for the prefix",
        ),
        ("unqualified-search-registries = 'a.example'", "must be an array of strings"),
        ("unqualified-search-registries = ['a.example/x']", "is no registry"),
        ("unqualified-search-registries = ['host']", "is no registry"),
        ("short-name-mode = 'maybe'", "is none of: enforcing"),
        ("[aliases]\nx = 'y'", "alias 'x' must lead from a name without a registry"),
        ("[aliases]\n'a.example/x' = 'b.example/x'", "alias"),
        ("[aliases]\nx = 'b.example/x:tag'", "alias"),
        ("[aliases]\n'x:tag' = 'b.example/x'", "alias"),
        ("[aliases]\nx = 5", "alias"),
        ("credential-helpers = 'x'", "must be an array of strings"),
    ],
)
def test_a_malformed_file_is_named_with_what_is_wrong(host: Any, text: str, says: str) -> None:
    path = host.write(MAIN, text.encode("latin-1"))
    with pytest.raises(UsageError, match=says) as caught:
        load_registries(host.around)
    assert str(path) in caught.value.message
    assert "\n" not in str(caught.value)


def test_a_location_that_leaves_no_repository_is_refused(host: Any) -> None:
    host.write(MAIN, '[[registry]]\nprefix = "a.example/x"\nlocation = "b.example"\n')
    with pytest.raises(UsageError, match="no repository"):
        looked_for(host, "docker://a.example/x:1")
    assert looked_for(host, "docker://a.example/x/y:1") == ["b.example/y"]


# -- names without a registry ----------------------------------------------------------------------


def completed(host: Any, text: str) -> str:
    reference = complete(parse(text), host.around)
    assert reference.text == text
    assert not reference.short
    return reference.path_or_url


def test_a_short_name_is_docker_hubs_by_default(host: Any) -> None:
    assert completed(host, "docker://busybox") == "registry-1.docker.io/library/busybox:latest"
    assert completed(host, "docker:me/x:1") == "registry-1.docker.io/me/x:1"


def test_one_search_registry_is_taken(host: Any) -> None:
    host.write(MAIN, 'unqualified-search-registries = ["a.example:5000"]\n')
    assert completed(host, "docker://x") == "a.example:5000/x:latest"
    assert completed(host, "docker://me/x:1") == "a.example:5000/me/x:1"
    digest = "sha256:" + "0" * 64
    assert completed(host, f"docker://x@{digest}") == f"a.example:5000/x@{digest}"


def test_several_search_registries_are_no_answer(host: Any) -> None:
    host.write(MAIN, 'unqualified-search-registries = ["docker.io", "quay.io"]\n')
    with pytest.raises(Refused, match='"me/x" names no registry') as caught:
        complete(parse("docker://me/x:1"), host.around)
    assert caught.value.hint == "write docker://docker.io/me/x or docker://quay.io/me/x"


def test_an_alias_comes_before_any_search(host: Any) -> None:
    host.write(
        MAIN,
        'unqualified-search-registries = ["docker.io", "quay.io"]\n'
        '[aliases]\nfedora = "registry.fedoraproject.org/fedora"\n"me/x" = "docker.io/me/y"\n',
    )
    assert completed(host, "docker://fedora:40") == "registry.fedoraproject.org/fedora:40"
    assert completed(host, "docker://me/x") == "registry-1.docker.io/me/y:latest"
    with pytest.raises(Refused):
        complete(parse("docker://library/fedora"), host.around)


@pytest.mark.parametrize("name", ["a.example/x", "localhost/x:1", "docker.io/x"])
def test_a_name_with_a_registry_stays_as_it_is(host: Any, name: str) -> None:
    host.write(MAIN, "no TOML at all, and nobody looks")
    reference = parse(f"docker://{name}")
    assert complete(reference, host.around) == reference


def test_any_file_is_read_or_refused(host: Any) -> None:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    text = "[[registry]] [aliases] location prefix mirror blocked = true 'a.example' '*.x' [ ] ,"
    words = st.sampled_from([*text.split(), "\n"])

    @settings(suppress_health_check=list(HealthCheck), max_examples=200, deadline=None)
    @given(st.lists(words, max_size=30).map(" ".join) | st.text(max_size=100))
    def check(text: str) -> None:
        host.write(MAIN, text.encode(errors="replace"))
        try:
            load_registries(host.around)
        except PodctlError as error:
            assert "\n" not in str(error)

    check()
