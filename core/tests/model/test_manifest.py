"""Image manifests: every field of the schema, good and bad (row M19)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podctl.errors import ManifestInvalid, PodctlError, Refused
from podctl.model import manifest as m
from podctl.model.image import check_runnable, parse_aci_image
from podctl.model.manifest import parse_image_manifest

if TYPE_CHECKING:
    from collections.abc import Callable

    Build = Callable[..., bytes]

FULL: dict[str, Any] = {
    "acKind": "ImageManifest",
    "acVersion": "0.5.2",
    "name": "example.com/reduce-worker",
    "labels": [
        {"name": "version", "value": "1.0.0"},
        {"name": "arch", "value": "amd64"},
        {"name": "os", "value": "linux"},
    ],
    "app": {
        "exec": ["/usr/bin/reduce-worker", "--quiet", ""],
        "user": "100",
        "group": "/etc/passwd",
        "supplementaryGIDs": [400, 500],
        "eventHandlers": [
            {"exec": ["/usr/bin/data-downloader"], "name": "pre-start"},
            {"exec": ["/usr/bin/deregister-worker", "--verbose"], "name": "post-stop"},
        ],
        "workingDirectory": "/opt/work",
        "environment": [
            {"name": "REDUCE_WORKER_DEBUG", "value": "true"},
            {"name": "LINES", "value": "a\nb=c $PATH"},
        ],
        "isolators": [
            {"name": "resource/cpu", "value": {"request": "250m", "limit": "500m"}},
            {"name": "os/linux/capabilities-retain-set", "value": {"set": ["CAP_KILL"]}},
            {"name": "vendor.example/thing", "value": {"a": [1]}},
        ],
        "mountPoints": [
            {"name": "work", "path": "/var/lib/work", "readOnly": False},
            {"name": "conf", "path": "/etc/../conf", "readOnly": True},
        ],
        "ports": [
            {"name": "health", "port": 4000, "protocol": "tcp", "socketActivated": True},
            {"name": "ftp-data", "port": 20000, "count": 1000, "protocol": "tcp"},
        ],
        "userAnnotations": {"any key": "any value"},
        "userLabels": {"tier": "web"},
    },
    "dependencies": [
        {
            "imageName": "example.com/base",
            "imageID": "sha512-" + "0f" * 64,
            "labels": [{"name": "os", "value": "linux"}],
            "size": 22017258,
        },
        {"imageName": "example.com/other"},
    ],
    "pathWhitelist": ["/etc/ca/example.com/crt", "/opt/libs/", "/"],
    "annotations": [
        {"name": "authors", "value": "Carly <carly@example.com>"},
        {"name": "created", "value": "2014-10-27T19:32:27.67021798Z"},
        {"name": "documentation", "value": "https://example.com/docs"},
        {"name": "homepage", "value": "http://example.com"},
        {"name": "appc.io/executor/supports-systemd-notify", "value": "true"},
    ],
}


def test_every_field_is_read() -> None:
    data = json.dumps(FULL).encode()
    image = parse_image_manifest(data)
    assert image.data is data
    assert (image.name, image.ac_version) == ("example.com/reduce-worker", "0.5.2")
    assert image.labels == {"version": "1.0.0", "arch": "amd64", "os": "linux"}
    assert image.dependencies == (
        m.Dependency("example.com/base", "sha512-" + "0f" * 64, {"os": "linux"}, 22017258),
        m.Dependency("example.com/other"),
    )
    assert image.path_whitelist == ("/etc/ca/example.com/crt", "/opt/libs/", "/")
    assert list(image.annotations)[:2] == ["authors", "created"]
    app = image.app
    assert app is not None
    assert app.exec == ("/usr/bin/reduce-worker", "--quiet", "")
    assert (app.user, app.group, app.supplementary_gids) == ("100", "/etc/passwd", (400, 500))
    assert app.event_handlers["post-stop"] == ("/usr/bin/deregister-worker", "--verbose")
    assert app.working_directory == "/opt/work"
    assert app.environment == {"REDUCE_WORKER_DEBUG": "true", "LINES": "a\nb=c $PATH"}
    assert [isolator.known for isolator in app.isolators] == [True, True, False]
    assert app.mount_points[1] == m.MountPoint("conf", "/etc/../conf", read_only=True)
    assert app.ports == (
        m.Port("health", "tcp", 4000, 1, socket_activated=True),
        m.Port("ftp-data", "tcp", 20000, 1000),
    )
    assert (app.user_annotations, app.user_labels) == ({"any key": "any value"}, {"tier": "web"})


def test_app_section_survives_writing_and_reading() -> None:
    app = parse_image_manifest(json.dumps(FULL).encode()).app
    assert app is not None
    value = json.loads(json.dumps(m.app_value(app)))
    assert m.app_from_value(value) == app


def test_minimal_manifest(image_bytes: Build) -> None:
    image = parse_image_manifest(image_bytes(app=..., labels=...))
    assert (image.app, image.labels, image.dependencies) == (None, {}, ())


def test_null_is_absent_as_go_writes_it(image_bytes: Build, app_bytes: Build) -> None:
    keys = ["labels", "app", "dependencies", "pathWhitelist", "annotations"]
    assert parse_image_manifest(image_bytes(**dict.fromkeys(keys))).app is None
    nulls = ["exec", "eventHandlers", "environment", "isolators", "mountPoints", "ports"]
    app = parse_image_manifest(app_bytes(**dict.fromkeys(nulls))).app
    assert app == m.App(user="0", group="0")


def test_defaults_are_shared_but_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        m.App().environment["A"] = "b"  # type: ignore[index]


BAD_TOP: list[tuple[dict[str, Any], str]] = [
    ({"acKind": ...}, "acKind is required"),
    ({"acKind": "PodManifest"}, "acKind must be ImageManifest"),
    ({"acKind": "imagemanifest"}, "acKind must be"),
    ({"acVersion": ...}, "acVersion is required"),
    ({"acVersion": ""}, "semantic version"),
    ({"acVersion": "0.8"}, "semantic version"),
    ({"acVersion": "v0.8.11"}, "semantic version"),
    ({"acVersion": "1.0.0"}, "series"),
    ({"acVersion": 0.8}, "must be a string"),
    ({"name": ...}, "name is required"),
    ({"name": ""}, "name is empty"),
    ({"name": "Example.com/app"}, "name 'Example"),
    ({"name": "../../etc"}, "name '../../etc'"),
    ({"name": "a" * 300}, "longer than 255"),
    ({"name": ["a"]}, "name must be a string"),
    ({"labels": {"os": "linux"}}, "labels must be an array"),
    ({"labels": [{"name": "name", "value": "x"}]}, "invalid label name"),
    ({"labels": [{"name": "a", "value": "x"}, {"name": "a", "value": "y"}]}, "duplicate labels"),
    ({"labels": [{"name": "A", "value": "x"}]}, "label name"),
    ({"labels": [{"value": "x"}]}, r"labels\[0\]: name is required"),
    ({"labels": [{"name": "a", "value": 1}]}, r"labels\[0\].value must be a string"),
    ({"labels": ["a"]}, r"labels\[0\] must be an object"),
    ({"labels": [{"name": "os", "value": "plan9"}]}, "bad os"),
    ({"labels": [{"name": "arch", "value": "amd64"}]}, "without label os"),
    ({"app": []}, "app must be an object"),
    ({"App": {}}, "'App' must be spelt 'app'"),
    ({"ACKIND": "x"}, "'ACKIND' must be spelt 'acKind'"),
    ({"dependencies": [{}]}, "imageName is required"),
    ({"dependencies": [{"imageName": "A"}]}, "imageName 'A'"),
    ({"dependencies": [{"imageName": "a", "imageID": "sha512-../x"}]}, "image id"),
    ({"dependencies": [{"imageName": "a", "imageID": "md5-abcd"}]}, "image id"),
    ({"dependencies": [{"imageName": "a", "size": -1}]}, "size must not be negative"),
    ({"dependencies": [{"imageName": "a", "size": "1"}]}, "size must be an integer"),
    ({"dependencies": [{"imageName": "a", "labels": [{"name": "name"}]}]}, "invalid label name"),
    ({"pathWhitelist": ["etc/passwd"]}, "absolute"),
    ({"pathWhitelist": ["/a/../../etc"]}, r"must not hold \.\."),
    ({"pathWhitelist": [""]}, "absolute"),
    ({"pathWhitelist": "/etc"}, "must be an array"),
    ({"annotations": [{"name": "created", "value": "yesterday"}]}, "RFC 3339"),
    ({"annotations": [{"name": "homepage", "value": "ftp://x"}]}, "http or https"),
    ({"annotations": [{"name": "documentation", "value": "javascript:x"}]}, "http or https"),
    ({"annotations": [{"name": "a", "value": ""}, {"name": "a", "value": ""}]}, "duplicate"),
    ({"annotations": [{"name": "A B", "value": ""}]}, "annotation name"),
    (
        {"annotations": [{"name": "appc.io/executor/supports-systemd-notify", "value": "1"}]},
        "true or false",
    ),
]

BAD_APP: list[tuple[dict[str, Any], str]] = [
    ({"exec": ...}, "exec is required"),
    ({"exec": "/bin/app"}, "exec must be an array"),
    ({"exec": [""]}, r"exec\[0\] must not be empty"),
    ({"exec": ["/a", 1]}, r"exec\[1\] must be a string"),
    ({"user": ...}, "user is required"),
    ({"user": ""}, "user is required"),
    ({"user": 0}, "user must be a string"),
    ({"user": "4294967296"}, "user 4294967296 is not in"),
    ({"user": "4294967295"}, "user 4294967295 is not in"),
    ({"user": "-1"}, "user '-1' is not in"),
    ({"user": "0:0"}, "no number, name or absolute path"),
    ({"group": ...}, "group is required"),
    ({"group": ""}, "group is required"),
    ({"group": "99999999999999999999999"}, "group 9"),
    ({"supplementaryGIDs": [-1]}, "supplementaryGIDs -1"),
    ({"supplementaryGIDs": [4294967295]}, "supplementaryGIDs 4294967295"),
    ({"supplementaryGIDs": ["1"]}, "must be an integer"),
    ({"supplementaryGIDs": [True]}, "must be an integer"),
    ({"supplementaryGIDs": [1.0]}, "must be an integer"),
    ({"eventHandlers": [{"name": "pre-stop", "exec": ["/x"]}]}, "must be pre-start or post-stop"),
    ({"eventHandlers": [{"name": "pre-start", "exec": []}]}, "exec is required"),
    ({"eventHandlers": [{"name": "pre-start", "exec": ["/x"]}] * 2}, "only one event handler"),
    ({"workingDirectory": "opt"}, "workingDirectory 'opt' must be an absolute path"),
    ({"workingDirectory": "./"}, "absolute"),
    ({"environment": [{"name": "1A", "value": ""}]}, "environment variable name"),
    ({"environment": [{"name": "", "value": ""}]}, "environment variable name"),
    ({"environment": [{"name": "A=B", "value": ""}]}, "environment variable name"),
    ({"environment": [{"name": "A", "value": ""}, {"name": "A", "value": "x"}]}, "twice"),
    ({"environment": {"A": "b"}}, "must be an array"),
    ({"mountPoints": [{"name": "a", "path": "data"}]}, "path 'data' must be an absolute path"),
    ({"mountPoints": [{"name": "a"}]}, "path is required"),
    ({"mountPoints": [{"path": "/a"}]}, "name is required"),
    ({"mountPoints": [{"name": "a.b", "path": "/a"}]}, "name 'a.b'"),
    ({"mountPoints": [{"name": "a", "path": "/a", "readOnly": "true"}]}, "true or false"),
    ({"mountPoints": [{"name": "a", "path": "/a", "readonly": True}]}, "spelt 'readOnly'"),
    ({"mountPoints": [{"name": "a", "path": "/a"}, {"name": "a", "path": "/b"}]}, "twice"),
    ({"ports": [{"name": "a", "protocol": "tcp", "port": 0}]}, "port must be in 1-65535"),
    ({"ports": [{"name": "a", "protocol": "tcp", "port": 65536}]}, "port must be in 1-65535"),
    ({"ports": [{"name": "a", "protocol": "tcp", "port": -1}]}, "port must be in 1-65535"),
    ({"ports": [{"name": "a", "protocol": "tcp", "port": "80"}]}, "must be an integer"),
    ({"ports": [{"name": "a", "protocol": "tcp", "port": 80.0}]}, "must be an integer"),
    ({"ports": [{"name": "a", "protocol": "tcp", "port": True}]}, "must be an integer"),
    ({"ports": [{"name": "a", "protocol": "tcp"}]}, "port is required"),
    ({"ports": [{"name": "a", "port": 80}]}, "protocol is required"),
    ({"ports": [{"name": "a", "protocol": "", "port": 80}]}, "protocol"),
    ({"ports": [{"name": "a", "protocol": "tcp", "port": 65535, "count": 2}]}, "end of port"),
    ({"ports": [{"name": "a", "protocol": "tcp", "port": 80, "count": -1}]}, "count"),
    ({"ports": [{"name": "a", "protocol": "tcp", "port": 80}] * 2}, "appears twice"),
    ({"ports": [{"name": "a_b", "protocol": "tcp", "port": 80}]}, "name 'a_b'"),
    ({"userAnnotations": {"a": 1}}, "userAnnotations.a must be a string"),
    ({"userLabels": []}, "userLabels must be an object"),
    ({"Isolators": []}, "'Isolators' must be spelt 'isolators'"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_TOP)
def test_refused_manifests(image_bytes: Build, changes: dict[str, Any], message: str) -> None:
    parse_image_manifest(image_bytes())  # control: the unchanged manifest is good
    with pytest.raises(ManifestInvalid, match=message) as caught:
        parse_image_manifest(image_bytes(**changes))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(("changes", "message"), BAD_APP)
def test_refused_app_sections(app_bytes: Build, changes: dict[str, Any], message: str) -> None:
    parse_image_manifest(app_bytes())
    with pytest.raises(ManifestInvalid, match=message) as caught:
        parse_image_manifest(app_bytes(**changes))
    assert caught.value.message.startswith("image manifest.app")


GOOD_APP: list[dict[str, Any]] = [
    {"exec": []},
    {"exec": ["app"]},
    {"exec": ["bin/app", ""]},
    {"user": "root", "group": "adm"},
    {"user": "/bin/ping", "group": "4294967294"},
    {"workingDirectory": ""},
    {"eventHandlers": [{"name": "pre-start", "exec": ["/x"]}]},
    {"ports": [{"name": "a", "protocol": "sctp", "port": 65535, "count": 0}]},
    {"ports": [{"name": "a", "protocol": "tcp", "port": 1, "count": 65535}]},
    {"mountPoints": [{"name": "a", "path": "/"}, {"name": "b", "path": "/"}]},
    {"somethingNew": {"of": "a later version"}},
]


@pytest.mark.parametrize("changes", GOOD_APP)
def test_accepted_app_sections(app_bytes: Build, changes: dict[str, Any]) -> None:
    app = parse_image_manifest(app_bytes(**changes)).app
    assert app is not None
    assert m.app_from_value(m.app_value(app)) == app


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"1", b'"x"', b"{}", b'{"acKind":1}'])
def test_documents_that_are_no_manifest(data: bytes) -> None:
    with pytest.raises(ManifestInvalid, match="^image manifest"):
        parse_image_manifest(data)


def test_duplicate_keys_cannot_show_two_users(app_bytes: Build) -> None:
    data = app_bytes().replace(b'"user": "0"', b'"user": "1000", "user": "0"')
    assert json.loads(data)["app"]["user"] == "0"  # control: a lenient reader takes one of them
    with pytest.raises(ManifestInvalid, match="twice"):
        parse_image_manifest(data)


def test_image_carries_the_manifests_bytes(image_bytes: Build) -> None:
    data = image_bytes() + b"\n \n"
    image = parse_aci_image(data)
    assert (image.format, image.name, image.manifest) == ("aci", "example.com/app", data)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "missing os label in the image manifest"),
        ([("os", "linux")], "missing arch label in the image manifest"),
        ([("os", "freebsd"), ("arch", "amd64")], 'bad os "freebsd"'),
        ([("os", "darwin"), ("arch", "x86_64")], 'bad os "darwin"'),
    ],
)
def test_images_for_elsewhere_do_not_run(
    image_bytes: Build, labels: list[tuple[str, str]], message: str
) -> None:
    check_runnable(parse_aci_image(image_bytes()))
    written = [{"name": name, "value": value} for name, value in labels]
    with pytest.raises(Refused, match=message):
        check_runnable(parse_aci_image(image_bytes(labels=written)))


def test_arch_of_other_formats_is_checked_too(image_bytes: Build) -> None:
    image = parse_aci_image(image_bytes())._replace(labels={"os": "linux", "arch": "armv5l"})
    with pytest.raises(Refused, match='bad arch "armv5l"'):
        check_runnable(image)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70000) | st.sampled_from(["", "a", "/a", "0", "A"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "value", "path", "exec", "port", "protocol", "set"]), inner
        )
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*FULL["app"], "extra"]), JUNK, max_size=4))
def test_any_app_section_is_read_or_refused(changes: dict[str, Any]) -> None:
    value = {"exec": ["/a"], "user": "0", "group": "0", **changes}
    try:
        app = m.app_from_value(value)
    except PodctlError as error:
        assert isinstance(error, ManifestInvalid)
        return
    assert m.app_from_value(m.app_value(app)) == app
