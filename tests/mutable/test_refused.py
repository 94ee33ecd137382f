"""What is refused, before anything of it is made."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from mutable_world import BOX

from podctl.cli.main import run as main
from podctl.errors import Refused

if TYPE_CHECKING:
    from box_world import World
    from mutable_world import MutableWorld, Sandbox

    from podctl.model.plan import AppLaunch, PreparedPod

LOGGING = [
    "coreos.com/rkt/experiment/logmode=k8s-plain",
    "coreos.com/rkt/experiment/kubernetes-log-dir=/var/log",
    "coreos.com/rkt/experiment/kubernetes-log-path=x.log",
]


def refused(world: World, *arguments: str) -> str:
    """What a command says that fails, in one line; 127 is a missing program's."""
    done = world.podctl(*arguments)
    assert done.code == (127 if "/no/program" in arguments[-1] else 254), done
    lines = done.err.decode().splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith("image: using"))
    assert text.count("\n") == 1, text
    return text


def test_fly_has_no_such_pods(world: MutableWorld) -> None:
    said = refused(world, "app", "sandbox", "--stage1=fly")
    assert "flavor fly runs no pods whose apps come and go" in said
    assert world.pods() == []


@pytest.mark.parametrize("annotation", LOGGING)
def test_logs_in_kubernetes_format_are_refused_by_name(
    world: MutableWorld, pod: Sandbox, annotation: str
) -> None:
    name = annotation.partition("=")[0]
    assert name in refused(world, "app", "sandbox", f"--annotation={annotation}")
    line = ("app", "add", pod.uuid, BOX, f"--annotation={annotation}")
    assert name in refused(world, *line)
    assert pod.states() == {}


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--name=one"], "multiple apps with name one"),
        (["--name=a-started"], "do not end in -created or -started"),
        (["--name=b", "--mount=volume=none,target=/x"], 'volume "none" not found'),
        (["--name=b", "--mnt-volume=kind=empty,target=/x"], "name is required"),
        (["--name=b", "--mnt-volume=name=v,kind=empty"], "target is required"),
        (["--name=b", "--mnt-volume=name=v,kind=odd,target=/x"], "unrecognized volume kind"),
        (["--name=b", "--mnt-volume=name=v,kind=host,source=/no,target=/x"], "No such file"),
        (["--name=b", "--mnt-volume=name=v,kind=empty,target=/proc/x"], "lies in /proc"),
        (["--name=b", "--volume=t,kind=tmpfs", "--mount=volume=t,target=/x"], "--mnt-volume"),
        (["--name=b", "--exec=/no/program"], "/no/program"),
        (["--name=b", "--user=nobody-knows"], "nobody-knows"),
        (["--name=b", "--stdin=tty", "--stdout=stream"], "either a tty or streams"),
        (["--name=b", "--caps-retain=CAP_NONE"], "CAP_NONE"),
    ],
)
def test_apps_that_cannot_be_leave_nothing(pod: Sandbox, flags: list[str], says: str) -> None:
    pod.add("one")
    before = snapshot(pod)
    assert says in refused(pod.world, "app", "add", pod.uuid, BOX, *flags)
    assert snapshot(pod) == before
    pod.add("b", "true")


def snapshot(pod: Sandbox) -> list[object]:
    """Every name in the pod's directory, and its mounts."""
    paths = map(str, pod.directory.rglob("*"))
    found = [path for path in paths if "/stage1/" not in path and not path.endswith(".lck")]
    return [
        sorted(found),
        pod.mounts(),
        pod.manifest(),
        (pod.directory / "images.json").read_text(),
    ]


def test_images_come_from_the_store_alone(pod: Sandbox) -> None:
    said = refused(pod.world, "app", "add", pod.uuid, "docker://registry.example/none")
    assert "not" in said
    assert pod.states() == {}


@pytest.mark.parametrize("words", [[], [BOX, BOX], ["--name=x", BOX]])
def test_exactly_one_image_and_its_flags_after_it(pod: Sandbox, words: list[str]) -> None:
    refused(pod.world, "app", "add", pod.uuid, *words)


def test_pods_of_run_are_immutable(world: MutableWorld) -> None:
    running = world.start(BOX, "--exec=/bin/sh", "--", "-c", "echo ready; exec sleep 600").ready()
    assert "is immutable" in refused(world, "app", "add", running.uuid, BOX)
    for what in ("start", "stop", "rm"):
        said = refused(world, "app", what, running.uuid, "--app=box")
        assert "is immutable" in said
    prepared = world.must("prepare", "--quiet", BOX).strip()
    assert "is prepared" in refused(world, "app", "add", prepared, BOX)
    assert world.must("app", "list", "--no-legend", running.uuid).split() == ["box", "running"]


def test_a_manifest_cannot_make_a_pod_of_run_mutable(world: MutableWorld) -> None:
    pod = world.sandbox()
    pod.add("one")
    file = world.top / "manifest.json"
    file.write_text(world.must("cat-manifest", pod.uuid))
    assert "app sandbox" in refused(world, "run", f"--pod-manifest={file}")


def test_a_pod_that_has_ended_gets_no_app(pod: Sandbox) -> None:
    pod.add("one")
    pod.world.must("stop", pod.uuid)
    pod.process.wait(timeout=60)
    for line in (["add", pod.uuid, BOX], ["start", pod.uuid, "--app=one"],
                 ["stop", pod.uuid, "--app=one"]):  # fmt: skip
        assert "is not running" in refused(pod.world, "app", *line)


@pytest.mark.parametrize("what", ["start", "stop", "rm", "status"])
def test_an_app_that_is_not_there(pod: Sandbox, what: str) -> None:
    pod.add("one")
    said = refused(pod.world, "app", what, pod.uuid, "--app=two")
    assert 'has no app "two" (it has one)' in said


@pytest.mark.parametrize("name", ["exits", "ready", "requests", "supervisor"])
def test_no_name_of_an_app_disturbs_the_pod(world: MutableWorld, pod: Sandbox, name: str) -> None:
    pod.run(name, "exit 5")
    assert pod.ended(name) == 5
    pod.app("rm", name)
    pod.run("other", "exit 6")
    assert pod.ended("other") == 6
    done = world.podctl("run", BOX, f"--name={name}", "--exec=/bin/sh", "--", "-c", "exit 7")
    assert done.code == 7


def test_only_root_may(world: MutableWorld) -> None:
    def drop() -> None:
        os.setgid(65534)
        os.setuid(65534)

    lines = ["sandbox", f"add x {BOX}", "exec x true"]
    for line in (*lines, *(f"{what} x --app=y" for what in ("start", "stop", "rm"))):
        done = world.podctl("app", *line.split(), preexec_fn=drop)
        assert b"cannot run as unprivileged user" in done.err


def test_site_policy_is_asked_for_each_app(
    world: MutableWorld, pod: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Policy:
        def __init__(self, _say: object) -> None:
            pass

        def app_adding(self, prepared: PreparedPod, app: AppLaunch) -> None:
            asked.append((prepared.uuid, [one.name for one in prepared.apps], app.argv))
            raise Refused("no shells here")

    pod.add("other")
    before = snapshot(pod)
    monkeypatch.setattr("podctl.plugins.events", Policy)
    words = world.command("app", "add", pod.uuid, BOX, "--exec=/bin/sh")[4:]
    assert main(words) == 254
    assert asked == [(pod.uuid, ["box"], ("/bin/sh",))]
    assert snapshot(pod) == before


def test_many_at_once(world: MutableWorld, pod: Sandbox) -> None:
    """Of equal names one comes in; of others all do."""

    def add(name: str) -> int:
        return pod.try_add(name, "exit 0").code

    names = ["same", "same", "same", "one", "two", "three"]
    with ThreadPoolExecutor(len(names)) as threads:
        codes = dict.fromkeys(names, 0)
        for name, code in zip(names, threads.map(add, names), strict=True):
            codes[name] += code == 0
        assert codes == dict.fromkeys(names, 1)
        list(threads.map(lambda name: pod.app("start", name), codes))
        assert {pod.ended(name) for name in codes} == {0}
        list(threads.map(lambda name: pod.app("rm", name), codes))
    assert pod.states() == {}
    assert [found for name in codes for found in pod.left_of(name)] == []
