"""Pod manifests: every field, what rkt writes, and what is refused (row M20)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podctl.errors import ManifestInvalid, UsageError
from podctl.model.isolators import MEMORY, make_isolator
from podctl.model.manifest import App, MountPoint, Port
from podctl.model.podmanifest import (
    PodManifest,
    RuntimeApp,
    check_app_names,
    check_has_apps,
    parse_pod_manifest,
)
from podctl.model.ports import ExposedPort
from podctl.model.volumes import Mount, Volume

if TYPE_CHECKING:
    from collections.abc import Callable

    Build = Callable[..., bytes]

ID = "sha512-" + "ab" * 32

FULL = PodManifest(
    apps=(
        RuntimeApp(
            "reduce-worker",
            ID,
            "example.com/reduce-worker",
            {"version": "1.0.0"},
            App(("/bin/x",), "1000", "www", mount_points=(MountPoint("work", "/mnt", True),)),
            True,
            (
                Mount("work", "/mnt/foo"),
                Mount("own", "/own", Volume("own", "host", "/srv", recursive=False)),
            ),
            {"foo": "baz"},
        ),
        RuntimeApp("register", ID),
    ),
    volumes=(
        Volume("work", "host", "/opt/tenant1/work", read_only=True, recursive=True),
        Volume("scratch", "empty", read_only=False, mode=0o1770, uid=9991, gid=9992),
    ),
    isolators=(make_isolator(MEMORY, {"limit": "4G"}),),
    annotations={"ip-address": "10.1.2.3"},
    ports=(
        ExposedPort("ftp", 2121, "127.0.0.1"),
        ExposedPort("web", 80, "", Port("web", "tcp", 8080)),
    ),
    user_annotations={"any": "thing"},
    user_labels={"a b": ""},
)


def test_manifest_survives_writing_and_reading() -> None:
    assert parse_pod_manifest(FULL.to_json()) == FULL
    assert parse_pod_manifest(FULL.to_json(pretty=True)) == FULL
    assert parse_pod_manifest(PodManifest().to_json()) == PodManifest()


def test_json_has_appcs_spelling() -> None:
    value = json.loads(FULL.to_json())
    assert (value["acKind"], value["acVersion"]) == ("PodManifest", "0.8.11")
    assert value["apps"][0]["image"] == {
        "name": "example.com/reduce-worker",
        "id": ID,
        "labels": [{"name": "version", "value": "1.0.0"}],
    }
    assert value["apps"][0]["readOnlyRootFS"] is True
    assert value["apps"][0]["mounts"][0] == {"volume": "work", "path": "/mnt/foo"}
    assert value["volumes"][1] == {
        "name": "scratch",
        "kind": "empty",
        "readOnly": False,
        "mode": "1770",
        "uid": 9991,
        "gid": 9992,
    }
    assert value["ports"][0] == {"name": "ftp", "hostPort": 2121, "hostIP": "127.0.0.1"}
    assert json.loads(PodManifest().to_json())["apps"] == []


def test_what_rkt_writes_is_read() -> None:
    data = json.dumps(
        {
            "acVersion": "1.30.0+git",
            "acKind": "PodManifest",
            "apps": [
                {
                    "name": "busybox",
                    "image": {"name": "a.io/busybox", "id": ID, "labels": None},
                    "app": {"exec": ["sh"], "user": "0", "group": "0", "environment": []},
                    "mounts": [{"volume": "v", "path": "/v", "appVolume": None}],
                }
            ],
            "volumes": [
                {"name": "v", "kind": "empty", "mode": "0755", "uid": 0, "gid": 0},
                {"name": "h", "kind": "host", "source": "/srv", "readOnly": False},
            ],
            "isolators": None,
            "annotations": [{"name": "coreos.com/rkt/stage1/mutable", "value": "false"}],
            "ports": [],
        }
    ).encode()
    manifest = parse_pod_manifest(data)
    assert manifest.ac_version == "1.30.0+git"
    assert manifest.apps[0].app is not None
    assert manifest.volumes[1].read_only is False


def test_the_group_may_be_the_user_s_own() -> None:
    app = {"exec": ["/x"], "user": "web", "group": ""}
    data = json.dumps(
        {"acKind": "PodManifest", "acVersion": "0.8.11", "apps": [{**APP, "app": app}]}
    ).encode()
    manifest = parse_pod_manifest(data)
    assert manifest.apps[0].app is not None
    assert manifest.apps[0].app.group == ""
    assert parse_pod_manifest(manifest.to_json()) == manifest


def test_apps_are_found_by_name() -> None:
    assert FULL.app_named("register") is FULL.apps[1]
    assert FULL.app_named("nothing") is None


VOLUME = {"name": "v", "kind": "empty"}
HOST = {"name": "v", "kind": "host", "source": "/srv"}
APP = {"name": "a", "image": {"id": ID}}

BAD: list[tuple[dict[str, Any], str]] = [
    ({"acKind": "ImageManifest"}, "acKind must be PodManifest"),
    ({"acVersion": "one"}, "semantic version"),
    ({"acVersion": ...}, "acVersion is required"),
    ({"apps": ...}, "apps is required"),
    ({"apps": {}}, "apps must be an array"),
    ({"apps": [APP, APP]}, 'duplicate apps of name "a"'),
    ({"apps": [{**APP, "name": "A"}]}, "name 'A'"),
    ({"apps": [{**APP, "name": "../../etc"}]}, "name '../../etc'"),
    ({"apps": [{**APP, "name": ".."}]}, "name '..'"),
    ({"apps": [{**APP, "name": ""}]}, "name is empty"),
    ({"apps": [{**APP, "name": "x" * 256}]}, "longer than 255"),
    ({"apps": [{"name": "a"}]}, "image is required"),
    ({"apps": [{"name": "a", "image": {}}]}, "id is required"),
    ({"apps": [{"name": "a", "image": {"id": "sha512-../../x"}}]}, "image id"),
    ({"apps": [{"name": "a", "image": {"id": "../../../etc"}}]}, "image id"),
    ({"apps": [{"name": "a", "image": {"id": ID, "name": "A"}}]}, "name 'A'"),
    ({"apps": [{**APP, "app": {"exec": ["/x"], "user": "0"}}]}, "group is required"),
    ({"apps": [{**APP, "app": {"exec": ["/x"], "user": "", "group": ""}}]}, "user is required"),
    ({"apps": [{**APP, "readOnlyRootFs": True}]}, "must be spelt 'readOnlyRootFS'"),
    ({"apps": [{**APP, "readOnly": True}]}, "unknown key 'readOnly'"),
    (
        {"apps": [{**APP, "app": {"exec": [], "user": "0", "group": "0", "isolator": []}}]},
        "unknown key 'isolator'",
    ),
    ({"volume": []}, "unknown key 'volume'"),
    ({"volumes": [VOLUME, VOLUME]}, 'duplicate volume name "v"'),
    ({"volumes": [VOLUME, HOST]}, 'duplicate volume name "v"'),
    ({"volumes": [{**VOLUME, "name": "V"}]}, "name 'V'"),
    ({"volumes": [{**VOLUME, "name": "a/b"}]}, "name 'a/b'"),
    ({"volumes": [{"name": "v"}]}, "kind is required"),
    ({"volumes": [{**VOLUME, "kind": "bind"}]}, "unrecognized volume kind"),
    ({"volumes": [{**VOLUME, "source": "/srv"}]}, "source for empty volume cannot be set"),
    ({"volumes": [{**VOLUME, "recursive": True}]}, "recursive for empty volume"),
    ({"volumes": [{**VOLUME, "mode": "0888"}]}, "mode '0888'"),
    ({"volumes": [{**VOLUME, "mode": "rwx"}]}, "mode 'rwx'"),
    ({"volumes": [{**VOLUME, "mode": "77777"}]}, "mode '77777'"),
    ({"volumes": [{**VOLUME, "mode": ""}]}, "mode ''"),
    ({"volumes": [{**VOLUME, "mode": 493}]}, "mode must be a string"),
    ({"volumes": [{**VOLUME, "uid": -1}]}, "uid -1"),
    ({"volumes": [{**VOLUME, "gid": 4294967296}]}, "gid 4294967296"),
    ({"volumes": [{"name": "v", "kind": "host"}]}, "source for host volume cannot be empty"),
    ({"volumes": [{**HOST, "source": "srv"}]}, "must be an absolute path"),
    ({"volumes": [{**HOST, "source": "/srv/../etc"}]}, r"must not hold \.\."),
    ({"volumes": [{**HOST, "mode": "0755"}]}, "mode for host volume cannot be set"),
    ({"volumes": [{**HOST, "uid": 0}]}, "uid for host volume cannot be set"),
    ({"volumes": [{**HOST, "readonly": True}]}, "spelt 'readOnly'"),
    ({"isolators": [{"name": "resource/memory", "value": {"limit": "1e999"}}]}, "memory"),
    ({"annotations": [{"name": "a", "value": "1"}] * 2}, "duplicate annotations"),
    ({"ports": [{"name": "a"}]}, "hostPort is required"),
    ({"ports": [{"name": "a", "hostPort": 0}]}, "hostPort must be in 1-65535"),
    ({"ports": [{"name": "a", "hostPort": 70000}]}, "hostPort must be in 1-65535"),
    ({"ports": [{"name": "a", "hostPort": 80, "hostIP": "1.2.3"}]}, "no IP address"),
    ({"ports": [{"name": "a", "hostPort": 80, "hostIP": "fe80::1%eth0"}]}, "interface"),
    ({"ports": [{"name": "a", "hostPort": 80}] * 2}, "mapped to port a twice"),
    ({"ports": [{"name": "a", "hostPort": 80, "podPort": {"name": "a"}}]}, "podPort"),
    ({"userLabels": {"a": None}}, "userLabels.a must be a string"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_refused_manifests(pod_bytes: Build, changes: dict[str, Any], message: str) -> None:
    parse_pod_manifest(pod_bytes())  # control: the unchanged manifest is good
    with pytest.raises(ManifestInvalid, match=message):
        parse_pod_manifest(pod_bytes(**changes))


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ({"volume": "c", "path": "/x"}, 'dangling mount point "/x": volume "c" not found'),
        ({"volume": "a", "path": "x"}, "must be an absolute path"),
        ({"volume": "a"}, "path is required"),
        ({"path": "/x"}, "volume is required"),
        ({"volume": "a", "path": "/x", "appVolume": {"name": "a"}}, "kind is required"),
        ({"volume": "../a", "path": "/x"}, "volume '../a'"),
    ],
)
def test_refused_mounts(pod_app_bytes: Build, mount: dict[str, Any], message: str) -> None:
    parse_pod_manifest(pod_app_bytes(mounts=[{"volume": "a", "path": "/x"}]))
    with pytest.raises(ManifestInvalid, match=message):
        parse_pod_manifest(pod_app_bytes(mounts=[mount]))


def test_mount_with_its_own_volume_needs_no_pod_volume(pod_app_bytes: Build) -> None:
    mount = {"volume": "z", "path": "/z/../y", "appVolume": {"name": "z", "kind": "empty"}}
    app = parse_pod_manifest(pod_app_bytes(mounts=[mount])).apps[0]
    assert app.mounts == (Mount("z", "/z/../y", Volume("z", "empty")),)


def test_one_target_twice_is_allowed(pod_app_bytes: Build) -> None:
    mounts = [{"volume": "a", "path": "/mnt"}, {"volume": "b", "path": "/mnt/"}]
    assert len(parse_pod_manifest(pod_app_bytes(mounts=mounts)).apps[0].mounts) == 2


def test_pod_without_apps_is_a_manifest_but_does_not_run() -> None:
    check_has_apps(FULL)
    with pytest.raises(UsageError, match="pod must contain at least one application"):
        check_has_apps(parse_pod_manifest(PodManifest().to_json()))


def test_app_names_are_unique() -> None:
    check_app_names(["a", "b"])
    with pytest.raises(UsageError, match="multiple apps with name a"):
        check_app_names(["a", "b", "a"])


NAMES = st.from_regex(r"[a-z0-9]{1,4}(-[a-z0-9]{1,3}){0,2}", fullmatch=True)
PATHS = st.lists(st.sampled_from(["a", "b c", "\u00e9", "..", "."]), max_size=3).map(
    lambda parts: "/" + "/".join(parts)
)
SAFE_PATHS = PATHS.filter(lambda path: ".." not in path)
FLAGS = st.none() | st.booleans()
IDS = st.integers(0, 2**32 - 2)
# Through functions: hypothesis would make up the fields of a named tuple that have defaults.
VOLUMES = st.builds(
    lambda name, source, ro, recursive: Volume(name, "host", source, ro, recursive),
    NAMES,
    SAFE_PATHS,
    FLAGS,
    FLAGS,
) | st.builds(
    lambda name, ro, mode, uid, gid: Volume(name, "empty", None, ro, None, mode, uid, gid),
    NAMES,
    FLAGS,
    st.integers(0, 0o7777),
    IDS,
    IDS,
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
MAPS = st.dictionaries(TEXTS, TEXTS, max_size=3)


APPS = st.builds(
    lambda argv, user, labels, environment: App(
        tuple(argv), user, user_labels=labels, environment=environment
    ),
    st.lists(TEXTS.filter(bool), max_size=3),
    st.sampled_from(["0", "root", "/bin/x"]),
    MAPS,
    st.dictionaries(st.sampled_from(["A", "B_1", "c.d"]), TEXTS),
)


@st.composite
def manifests(draw: st.DrawFn) -> PodManifest:
    volumes = draw(st.lists(VOLUMES, max_size=3, unique_by=lambda volume: volume.name))
    mounts = st.builds(lambda volume, path: Mount(volume.name, path, volume), VOLUMES, PATHS)
    if volumes:
        names = st.sampled_from([volume.name for volume in volumes])
        mounts |= st.builds(lambda name, path: Mount(name, path), names, PATHS)
    apps = st.builds(
        lambda name, image, labels, app, ro, mounts: RuntimeApp(
            name, ID, image, labels, app, ro, tuple(mounts)
        ),
        NAMES,
        st.none() | NAMES,
        st.dictionaries(st.sampled_from(["version", "channel"]), TEXTS),
        st.none() | APPS,
        st.booleans(),
        st.lists(mounts, max_size=3),
    )
    return PodManifest(
        apps=tuple(draw(st.lists(apps, max_size=3, unique_by=lambda app: app.name))),
        volumes=tuple(volumes),
        user_annotations=draw(MAPS),
        user_labels=draw(MAPS),
    )


@given(manifests())
def test_any_manifest_survives_writing_and_reading(manifest: PodManifest) -> None:
    assert parse_pod_manifest(manifest.to_json()) == manifest
