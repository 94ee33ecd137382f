"""The good path: images of real tools, in Debian's docker-registry, over TLS, with a password.

What podctl makes of them is compared file by file with what umoci unpacks.
"""

from __future__ import annotations

import base64
import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from podctl.testing.dockerregistry import PASSWORD, USER
from podctl.testing.trees import Snapshot, differences, snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from clean_home import Clean

    from podctl.testing.dockerregistry import DockerRegistry
    from podctl.testing.realimages import Workshop

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

#: nodes of the layered image; podctl makes none, for no pod's devices come from an image
DEVICES = {"srv/devices/null", "srv/devices/loop"}


@pytest.fixture
def known(home: Clean) -> Clean:
    """An installation that has the registry's password."""
    log_in(home)
    return home


def log_in(home: Clean, password: str = PASSWORD) -> None:
    """Put credentials where rkt has them."""
    place = home.local / "auth.d"
    place.mkdir(mode=0o700, exist_ok=True)
    document = {
        "rktKind": "dockerAuth",
        "rktVersion": "v1",
        "registries": ["real.example"],
        "credentials": {"user": USER, "password": password},
    }
    path = place / "real.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(document))


def umoci_tree(source: str, work: Path) -> Snapshot:
    """What umoci unpacks of an image that skopeo can name."""
    copy = ["skopeo", "copy", "--quiet", "--insecure-policy", source, f"oci:{work}/layout:t"]
    subprocess.run(copy, check=True, capture_output=True)
    words = ["umoci", "unpack", "--image", f"{work}/layout:t", f"{work}/bundle"]
    subprocess.run(words, check=True, capture_output=True)
    return snapshot(work / "bundle/rootfs")


def our_tree(home: Clean, name: str) -> Snapshot:
    """What podctl renders of a stored image."""
    home.must("image", "extract", "--rootfs-only", name, str(home.top / "ours"))
    return snapshot(home.top / "ours")


@pytest.mark.parametrize("kind", ["docker", "oci"])
def test_an_image_of_buildah_runs_as_its_configuration_says(
    kind: str, real: DockerRegistry, workshop: Workshop, known: Clean
) -> None:
    real.push(workshop.busybox(kind), f"team/busybox-{kind}:1")
    ran = known.must("run", "--stage1=fly", f"docker://{real.name}/team/busybox-{kind}:1")
    assert ran.splitlines() == ["hello there from /srv/data", "kept", "kept"]


@pytest.mark.parametrize("kind", ["docker", "oci"])
def test_an_image_of_buildah_is_umocis_tree(
    kind: str, real: DockerRegistry, workshop: Workshop, known: Clean, tmp_path: Path
) -> None:
    source = workshop.busybox(kind)
    real.push(source, f"tree/busybox-{kind}:1")
    known.must("fetch", f"docker://{real.name}/tree/busybox-{kind}:1")
    ours = our_tree(known, f"{real.name}/tree/busybox-{kind}:1")
    theirs = umoci_tree(source, tmp_path)
    assert len(ours) > 250
    assert "srv/data/gone" not in ours
    assert differences(ours, theirs) == []


def test_a_debian_userland_is_umocis_tree(
    real: DockerRegistry, workshop: Workshop, known: Clean, tmp_path: Path
) -> None:
    source = workshop.debian()
    real.push(source, "debian:12")
    known.must("fetch", f"docker://{real.name}/debian:12")
    ours = our_tree(known, f"{real.name}/debian:12")
    theirs = umoci_tree(source, tmp_path)
    assert len(ours) > 5000
    devices = {path for path, row in theirs.items() if row.mode[0] in "bc"}
    assert (
        differences(ours, {path: row for path, row in theirs.items() if path not in devices}) == []
    )
    ran = known.must(
        "run", "--stage1=fly", f"{real.name}/debian:12", "--exec=/usr/bin/dpkg", "--", "-s", "apt"
    )
    assert "Status: install ok installed" in ran


def test_a_many_layer_image_is_umocis_tree(
    real: DockerRegistry, workshop: Workshop, known: Clean, tmp_path: Path
) -> None:
    """Whiteouts, opaque directories, hard links, xattrs, device nodes, long names."""
    source = workshop.layered()
    real.push(source, "layered:1")
    done = known.podctl("fetch", f"docker://{real.name}/layered:1")
    assert done.returncode == 0, done.stderr
    for path in DEVICES:
        assert f"'{path}'" in done.stderr and "is left out" in done.stderr, done.stderr
    ours = our_tree(known, f"{real.name}/layered:1")
    theirs = umoci_tree(source, tmp_path)
    assert theirs.keys() >= DEVICES
    expected = {path: row for path, row in theirs.items() if path not in DEVICES}
    assert differences(ours, expected) == []


def test_a_wrong_password_is_refused_and_not_shown(
    real: DockerRegistry, workshop: Workshop, home: Clean
) -> None:
    real.push(workshop.busybox(), "locked:1")
    anonymous = home.refused("fetch", f"docker://{real.name}/locked:1")
    assert "401" in anonymous and real.name in anonymous
    log_in(home, "not-the-password")
    done = home.podctl("--debug", "fetch", f"docker://{real.name}/locked:1")
    assert done.returncode == 254
    for shape in ("not-the-password", base64.b64encode(b"alice:not-the-password").decode()):
        assert shape not in done.stdout + done.stderr
    assert home.images() == []
    log_in(home)
    home.must("fetch", f"docker://{real.name}/locked:1")


@pytest.mark.parametrize("name", [".config/containers/auth.json", ".docker/config.json"])
def test_what_podman_and_docker_logged_in_to_is_used(
    name: str, real: DockerRegistry, workshop: Workshop, home: Clean
) -> None:
    real.push(workshop.busybox(), "logged-in:1")
    path = home.user_home / name
    path.parent.mkdir(parents=True)
    word = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    path.touch(mode=0o600)
    path.write_text(json.dumps({"auths": {"real.example": {"auth": word}}}))
    home.must("fetch", f"docker://{real.name}/logged-in:1")
    path.unlink()
    home.must("image", "rm", f"{real.name}/logged-in:1")
    home.refused("fetch", f"docker://{real.name}/logged-in:1")
