"""Between App Container Images and layered ones: what is kept, and what is told of."""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING

import pytest
from exported import NAME, rich, tree
from small import runnable

from podctl.testing.trees import differences

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from home import Home


pytestmark = pytest.mark.root


def test_a_layered_image_becomes_an_aci(
    home: Home, bring: Callable[..., str], tmp_path: Path
) -> None:
    bring(rich())
    for target in ("one.aci", "two.aci"):
        home.must("image", "export", "--format=aci", NAME, str(tmp_path / target))
    assert (tmp_path / "one.aci").read_bytes() == (tmp_path / "two.aci").read_bytes()
    before = tree(home, NAME, tmp_path / "before")
    shown = json.loads(home.must("image", "cat-manifest", NAME))
    home.must("image", "rm", NAME)
    home.must("fetch", str(tmp_path / "one.aci"))
    assert differences(tree(home, NAME, tmp_path / "after"), before) == []
    manifest = json.loads(home.must("image", "cat-manifest", NAME))
    # appc wants to know the group: no line of /etc/passwd says one of user 7.
    assert shown["app"].pop("group") == "" and manifest["app"].pop("group") == "0"
    assert manifest == shown


def test_an_aci_has_the_groups_that_the_user_has_in_the_image(
    home: Home, bring: Callable[..., str], tmp_path: Path
) -> None:
    for user, ids in {"app": ("app", "1001", [77]), "1000": ("1000", "1001", [77])}.items():
        bring(runnable(shell="id", User=user))
        direct = home.must("run", "--stage1=fly", f"{NAME}:1")
        home.must("image", "export", "--overwrite", "--format=aci", NAME, f"{tmp_path}/x.aci")
        with tarfile.open(tmp_path / "x.aci") as archive:
            data = archive.extractfile("manifest")
            assert data is not None
            app = json.load(data)["app"]
        assert (app["user"], app["group"], app["supplementaryGIDs"]) == ids
        home.must("image", "rm", NAME)
        assert home.must("run", "--stage1=fly", str(tmp_path / "x.aci")) == direct
        home.must("image", "rm", NAME)


@pytest.mark.parametrize("form", ["oci", "docker"])
def test_an_aci_becomes_a_layered_image(
    home: Home, tmp_path: Path, tool: Callable[..., str], form: str
) -> None:
    app = {
        "exec": ["/bin/sh", "-c", "echo $GREETING from $PWD"],
        "user": "1000",
        "group": "100",
        "workingDirectory": "/srv",
        "environment": [{"name": "GREETING", "value": "hello"}],
        "ports": [{"name": "web", "protocol": "tcp", "port": 80}],
        "mountPoints": [{"name": "data", "path": "/data"}],
    }
    home.install("example.com/app", {"srv/x": b"x", "data/y": b"y"}, app=app)
    before = tree(home, "example.com/app", tmp_path / "before")
    direct = home.must("run", "--stage1=fly", "example.com/app")
    for target in ("one.tar", "two.tar"):
        home.must("image", "export", f"--format={form}", "example.com/app", f"{tmp_path}/{target}")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    home.must("image", "rm", "example.com/app")
    home.must("fetch", str(tmp_path / "one.tar"))
    (entry,) = json.loads(home.must("image", "list", "--format=json"))
    assert entry["name"].startswith("example.com/app:")
    assert differences(tree(home, "example.com/app", tmp_path / "after"), before) == []
    assert home.must("run", "--stage1=fly", "example.com/app") == direct == "hello from /srv\n"
    source = "docker-archive" if form == "docker" else "oci-archive"
    config = json.loads(tool("skopeo", "inspect", "--config", f"{source}:{tmp_path}/one.tar"))
    assert config["config"] == {
        "User": "1000:100",
        "ExposedPorts": {"80/tcp": {}},
        "Env": ["GREETING=hello"],
        "Entrypoint": app["exec"],
        "Volumes": {"/data": {}},
        "WorkingDir": "/srv",
    }


def test_an_aci_with_dependencies_becomes_one_layer(home: Home, tmp_path: Path) -> None:
    home.install("example.com/base", {"srv/base": b"base"})
    home.install(
        "example.com/app",
        {"srv/app": b"app"},
        app={"exec": ["/bin/cat", "/srv/base", "/srv/app"]},
        dependencies=[{"imageName": "example.com/base"}],
    )
    home.must("image", "export", "--format=oci", "example.com/app", str(tmp_path / "out"))
    for name in ("example.com/app", "example.com/base"):
        home.must("image", "rm", name)
    assert home.must("run", "--stage1=fly", f"oci:{tmp_path}/out") == "baseapp"


def test_an_aci_comes_back_from_a_layout_with_its_manifest(home: Home, tmp_path: Path) -> None:
    """What both formats can say is the same again, over and over."""
    home.install("example.com/app", {"srv/x": b"x"}, app={"exec": ["/bin/cat", "/srv/x"]})
    first = json.loads(home.must("image", "cat-manifest", "example.com/app"))
    home.must("image", "export", "--format=oci", "example.com/app", str(tmp_path / "out"))
    home.must("image", "rm", "example.com/app")
    home.must("fetch", f"oci:{tmp_path}/out")
    home.must("image", "export", "--format=aci", "example.com/app", str(tmp_path / "out.aci"))
    with tarfile.open(tmp_path / "out.aci") as archive:
        data = archive.extractfile("manifest")
        assert data is not None
        second = json.load(data)
    for key in ("exec", "user", "group"):
        assert second["app"][key] == first["app"][key]
    assert second["name"] == first["name"]


def test_names_a_layer_cannot_hold_are_refused(home: Home, tmp_path: Path) -> None:
    home.install("example.com/app", {"srv/.wh.passwd": b"x"})
    refusal = home.refused("image", "export", "--format=oci", "example.com/app", f"{tmp_path}/out")
    assert "srv/.wh.passwd" in refusal and "cannot hold" in refusal
    assert not (tmp_path / "out").exists()


def test_what_a_configuration_cannot_say_is_told(home: Home, tmp_path: Path) -> None:
    isolators = [{"name": "os/linux/no-new-privileges", "value": True}]
    home.install("example.com/app", app={"isolators": isolators, "supplementaryGIDs": [5]})
    done = home.podctl("image", "export", "--format=oci", "example.com/app", f"{tmp_path}/out")
    assert done.returncode == 0
    assert "isolators, supplementary groups" in done.stderr
    home.install("example.com/owner", app={"user": "/bin/busybox"})
    refusal = home.refused("image", "export", "--format=oci", "example.com/owner", f"{tmp_path}/o")
    assert "owns /bin/busybox" in refusal
