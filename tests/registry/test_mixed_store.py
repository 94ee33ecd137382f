"""Images of registries beside App Container Images: one store, one list, one policy, one pod."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from small import runnable

from podctl.testing.ociimages import DOCKER, OCI
from podctl.testing.ocilayers import file

if TYPE_CHECKING:
    from clean_home import Clean

    from podctl.testing.ociimages import Image
    from podctl.testing.registry import Registry

pytestmark = pytest.mark.root

FLY = "--stage1=fly"
ACI, ASKED = "local.example/tool", "docker://registry.example/team/app:1.0"
NAME = "registry.example/team/app"


@pytest.fixture(params=[OCI, DOCKER], ids=["oci", "docker"])
def made(request: pytest.FixtureRequest, registry: Registry) -> Image:
    """An image in the registry that says what it is."""
    made = runnable(
        file("words", "from a registry\n"), kind=request.param, shell="cat /words; echo $COLOUR",
        Env=["COLOUR=red"], Labels={"org.example.team": "one"}, ExposedPorts={"80/tcp": {}},
    )  # fmt: skip
    registry.put("team/app", made, "1.0")
    return made


@pytest.fixture
def both(home: Clean, made: Image) -> Clean:
    """An installation that has an ACI and an image of a registry."""
    script = {"exec": ["/bin/sh", "-c", "cat /words"], "user": "0", "group": "0"}
    home.install(ACI, {"words": b"from an archive\n"}, app=script)
    home.must("fetch", ASKED)
    return home


def test_each_runs_under_fly(both: Clean) -> None:
    assert both.must("run", FLY, ACI) == "from an archive\n"
    assert both.must("run", FLY, f"{NAME}:1.0") == "from a registry\nred\n"
    assert both.must("run", FLY, ASKED) == "from a registry\nred\n"


def test_the_store_lists_both(both: Clean) -> None:
    listed = json.loads(both.must("image", "list", "--format=json"))
    assert sorted(image["name"] for image in listed) == [f"{ACI}:1", f"{NAME}:1.0"]
    assert len({image["id"] for image in listed}) == 2
    for image in listed:
        assert image["id"].startswith("sha512-")


def test_either_manifest_can_be_seen(both: Clean, made: Image) -> None:
    assert json.loads(both.must("image", "cat-manifest", ACI))["name"] == ACI
    shown = json.loads(both.must("image", "cat-manifest", f"{NAME}:1.0"))
    assert shown == made.manifest.value or shown["name"] == NAME


#: podctl with a fly that takes any number of apps: composing, listing and inspecting is core's
SEVERAL = """
import sys
from podctl.model import plan

class Description(plan.FlavorDescription):
    def __new__(cls, **fields):
        return super().__new__(cls, **{**fields, "max_apps": None})

plan.FlavorDescription = Description
from podctl_stage1_fly import refusals
refusals.refuse_unsupported = lambda pod: None
from podctl.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


def test_fly_refuses_a_pod_of_both_by_its_limit(both: Clean) -> None:
    assert "at most 1 app" in both.refused("prepare", FLY, ACI, f"{NAME}:1.0")
    assert both.pods() == {}


def test_a_pod_of_both_is_listed_and_inspected(both: Clean) -> None:
    line = [*both.prefix, sys.executable, "-I", "-c", SEVERAL, *both.options]
    words = ["prepare", "--quiet", FLY, ACI, f"{NAME}:1.0"]
    done = subprocess.run([*line, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    uuid = done.stdout.strip()
    assert both.pods() == {uuid: "prepared"}
    first, second = both.must("list", "--no-legend").splitlines()
    assert first.split()[1:3] == ["tool", f"{ACI}:1"]
    assert second.split()[:2] == ["app", f"{NAME}:1.0"]
    assert "state=prepared" in both.must("status", uuid)
    manifest = json.loads(both.must("cat-manifest", uuid))
    named = {app["name"]: app["image"] for app in manifest["apps"]}
    assert {name: image["name"] for name, image in named.items()} == {"tool": ACI, "app": NAME}
    assert {image["id"] for image in named.values()} == set(both.images())
    assert [app["app"]["userLabels"] for app in manifest["apps"][1:]] == [
        {"org.example.team": "one"}
    ]
    both.must("rm", uuid)
    assert both.pods() == {}


def test_an_image_in_use_stays_until_its_pod_is_gone(both: Clean) -> None:
    uuid = both.must("prepare", "--quiet", FLY, f"{NAME}:1.0").strip()
    both.must("image", "gc", "--grace-period=0s")
    assert both.must("run-prepared", uuid) == "from a registry\nred\n"
    both.must("rm", uuid)
    both.must("image", "rm", f"{NAME}:1.0")
    both.must("image", "gc", "--grace-period=0s")
    both.must("fsck")
    # The layers of the other are all that is left.
    layers = [path for path in (both.data / "layers").iterdir() if path.is_dir()]
    assert len(layers) <= 1


def test_images_that_share_layers_keep_them(both: Clean, registry: Registry, made: Image) -> None:
    other = runnable(file("words", "another\n"), shell="cat /words")
    registry.put("team/other", other, "1.0")
    both.must("fetch", "docker://registry.example/team/other:1.0")
    both.must("image", "rm", f"{NAME}:1.0")
    both.must("image", "gc", "--grace-period=1h")
    both.must("fsck")
    assert both.must("run", FLY, "registry.example/team/other:1.0") == "another\n"


@pytest.mark.parametrize("option", [[], ["--no-overlay"]], ids=["overlay", "copied"])
def test_changes_of_a_pod_stay_in_it(option: list[str], both: Clean) -> None:
    change = ["--exec=/bin/sh", "--", "-c", "echo changed >/words; cat /words"]
    assert both.must("run", FLY, *option, f"{NAME}:1.0", *change) == "changed\n"
    assert both.must("run", FLY, *option, f"{NAME}:1.0") == "from a registry\nred\n"
    both.must("image", "verify", f"{NAME}:1.0")
    both.must("fsck")
