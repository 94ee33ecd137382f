"""What list and status say, also of pods that are damaged."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from podctl.errors import PodStateError, StoreCorrupt
from podctl.pods.directories import EXITED_GARBAGE, PREPARE, PREPARED, RUN
from podctl.pods.summary import bare, brief, exit_codes, manifest_of, summarise

if TYPE_CHECKING:
    from conftest import Yard

    from podctl.pods.directories import Pod

MANIFEST: dict[str, Any] = {
    "acKind": "PodManifest",
    "acVersion": "0.8.11",
    "apps": [
        {
            "name": "web",
            "image": {
                "name": "example.com/web",
                "id": "sha512-abc",
                "labels": [{"name": "os", "value": "linux"}, {"name": "version", "value": "2.1"}],
            },
            "app": {
                "exec": ["/x"],
                "mountPoints": [{"name": "a", "path": "/a", "readOnly": True}],
                "userLabels": {"tier": "front"},
            },
            "mounts": [
                {"volume": "a", "path": "/a"},
                {"volume": "b", "path": "/b"},
                {"volume": "c", "path": "/c", "appVolume": {"kind": "host", "source": "/own"}},
            ],
        },
        {"name": "side", "image": {"name": "example.com/side", "id": "sha512-def"}},
    ],
    "volumes": [
        {"name": "a", "kind": "empty"},
        {"name": "b", "kind": "host", "source": "/srv", "readOnly": True},
    ],
    "userAnnotations": {"note": "x"},
}


def pod_with(yard: Yard, text: str, place: str = RUN) -> Pod:
    uuid = yard.put(place)
    (yard.path(place, uuid) / "pod").write_text(text)
    pod = yard.pods.locate(uuid)
    assert pod is not None
    return pod


def test_rkts_json_shape(yard: Yard) -> None:
    pod = pod_with(yard, json.dumps(MANIFEST))
    created = int((yard.path(RUN, pod.uuid) / "lock").stat().st_mtime)
    assert summarise(pod) == {
        "name": pod.uuid,
        "state": "exited",
        "created_at": created,
        "app_names": ["web", "side"],
        "apps": [
            {
                "name": "web",
                "state": "exited",
                "image_name": "example.com/web:2.1",
                "image_id": "sha512-abc",
                "created_at": created * 1_000_000_000,
                "mounts": [
                    {
                        "name": "a",
                        "container_path": "/a",
                        "host_path": pod.path("sharedVolumes/a"),
                        "read_only": True,
                    },
                    {
                        "name": "b",
                        "container_path": "/b",
                        "host_path": "/srv",
                        "read_only": True,
                    },
                    {
                        "name": "c",
                        "container_path": "/c",
                        "host_path": "/own",
                        "read_only": False,
                    },
                ],
                "user_labels": {"tier": "front"},
            },
            {
                "name": "side",
                "state": "exited",
                "image_name": "example.com/side",
                "image_id": "sha512-def",
                "created_at": created * 1_000_000_000,
            },
        ],
        "user_annotations": {"note": "x"},
    }


def test_table_says_the_same(yard: Yard) -> None:
    pod = pod_with(yard, json.dumps(MANIFEST))
    assert brief(pod) == [
        ("web", "example.com/web:2.1", "sha512-abc"),
        ("side", "example.com/side", "sha512-def"),
    ]


@pytest.mark.parametrize(
    ("place", "state"), [(RUN, "exited"), (PREPARED, "created"), (EXITED_GARBAGE, "exited")]
)
def test_state_of_apps_follows_the_pods(yard: Yard, place: str, state: str) -> None:
    pod = pod_with(yard, json.dumps(MANIFEST), place)
    assert {app["state"] for app in summarise(pod)["apps"]} == {state}


def test_recorded_exit_codes(yard: Yard) -> None:
    pod = pod_with(yard, json.dumps(MANIFEST))
    assert exit_codes(pod) == {}
    status = yard.path(RUN, pod.uuid) / "status"
    status.mkdir()
    (status / "web").write_text("5\n")
    (status / "side").write_text("garbage")
    assert exit_codes(pod) == {"web": 5, "side": 1}
    web, side = summarise(pod)["apps"]
    assert (web["exit_code"], side["exit_code"]) == (5, 1)
    assert web["finished_at"] > 0


def test_unknown_exit_code_is_not_invented(yard: Yard) -> None:
    """fly's app is the pod's process: nobody is left to record how it ended."""
    pod = pod_with(yard, json.dumps(MANIFEST))
    assert all("exit_code" not in app for app in summarise(pod)["apps"])


@pytest.mark.parametrize("text", ["", "{", "null", "[1]", "\x00", "[" * 100_000])
def test_damaged_manifest_is_named_and_the_pod_still_listed(yard: Yard, text: str) -> None:
    pod = pod_with(yard, text)
    for look in (summarise, brief, manifest_of):
        with pytest.raises(StoreCorrupt, match=f'pod "{pod.uuid}": manifest is damaged'):
            look(pod)
    assert bare(pod) == {"name": pod.uuid, "state": "exited"}


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"apps": null}',
        '{"apps": {"a": 1}}',
        '{"apps": [1, null, "x"]}',
        '{"apps": [{}]}',
        '{"apps": [{"name": 1, "image": [], "mounts": 3, "app": "x"}]}',
        '{"apps": [{"name": "a", "image": {"labels": [1]}, "mounts": [{"appVolume": 1}]}]}',
        '{"apps": [], "userLabels": []}',
    ],
)
def test_strange_manifest_is_summarised_without_failing(yard: Yard, text: str) -> None:
    pod = pod_with(yard, text)
    assert summarise(pod)["state"] == "exited"
    assert all(isinstance(cell, str) for app in brief(pod) for cell in app)


def test_manifest_as_link_or_directory(yard: Yard) -> None:
    pod = pod_with(yard, "{}")
    path = yard.path(RUN, pod.uuid) / "pod"
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(StoreCorrupt):
        summarise(pod)
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreCorrupt):
        summarise(pod)


def test_manifest_is_not_there_while_preparing(yard: Yard) -> None:
    pod = pod_with(yard, json.dumps(MANIFEST), PREPARE)
    assert summarise(pod) == bare(pod)
    assert brief(pod) == []
    with pytest.raises(PodStateError, match="has no manifest while it is aborted prepare"):
        manifest_of(pod)


def test_long_manifest_is_read_whole(yard: Yard) -> None:
    value = {**MANIFEST, "annotations": [{"name": f"a{n}", "value": "x" * 99} for n in range(999)]}
    pod = pod_with(yard, json.dumps(value))
    assert manifest_of(pod) == value
