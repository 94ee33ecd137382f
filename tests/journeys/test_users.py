"""Who may do what, and that root believes nothing a member of the group could have written."""

from __future__ import annotations

import stat
import subprocess
from typing import TYPE_CHECKING

import pytest
from home import fingerprint
from people_world import PEOPLE, People

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from site_world import Site

    from podctl.testing.httpserver import Server

pytestmark = pytest.mark.root

NAME = "apps.example/shared"
FLY = "--stage1=fly"


@pytest.fixture(scope="module")
def people(published: Site, live_server: Server) -> Iterator[People]:
    """Three people and root; a signed image of the site, and its key trusted."""
    people = People(published)
    try:
        people.make_people()
        image = published.publish(NAME, app={"exec": ["/bin/echo", "genuine"]})
        signer = published.keyring.make("shared <shared@example.com>")
        published.keyring.sign(signer, image)
        published.keyring.export(signer, people.top / "key.asc")
        people.must("trust", "--prefix", NAME, "--skip-fingerprint-review", f"{people.top}/key.asc")
        yield people
    finally:
        people.close()


class Scene:
    """A pod that runs."""

    def __init__(self, people: People) -> None:
        saved = people.top / "uuid"
        words = ["run", FLY, NAME, "--insecure-options=image", f"--uuid-file-save={saved}"]
        self.app = people.start(*words, "--exec=/bin/sleep", "--", "1000")
        # The UUID is written before the pod counts as running.
        people.must("status", "--wait-ready=20s", f"--uuid-file={_existing(saved)}")
        self.running = saved.read_text().strip()

    def close(self) -> None:
        self.app.kill()
        self.app.wait()


def _existing(path: Path) -> Path:
    import time

    while not path.exists() or not path.read_text():
        time.sleep(0.01)
    return path


@pytest.fixture(scope="module")
def scene(people: People) -> Iterator[Scene]:
    scene = Scene(people)
    yield scene
    scene.close()


def test_root_only_refusals_say_so(people: People, scene: Scene) -> None:
    for line in ("run", "prepare", "rm x", "stop x", "gc", "enter x", "run-prepared x"):
        done = people.by("member", *line.split())
        assert "cannot run as unprivileged user" in done.stderr


def test_d9_a_member_fetches_and_verifies_and_root_needs_no_network(people: People) -> None:
    people.podctl("image", "rm", NAME)
    done = people.by("member", "fetch", NAME)
    assert done.returncode == 0, done
    assert "signature verified: shared <shared@example.com>" in done.stderr
    offline = ["unshare", "--net", "--", *people.line("run", FLY, NAME)[len(people.prefix) :]]
    ran = subprocess.run(
        [*people.prefix, *offline], capture_output=True, text=True, check=False, stdin=-3
    )
    assert ran.returncode == 0, ran
    assert ran.stdout == "genuine\n"
    assert "verifying stored image" in ran.stderr
    assert "signature verified: shared <shared@example.com>" in ran.stderr


def test_d9_a_member_is_held_to_the_signature(people: People, published: Site) -> None:
    published.publish("apps.example/unsigned")
    before = fingerprint(people.data / "cas/images")
    for words in (["apps.example/unsigned"], ["--insecure-options=none", "apps.example/unsigned"]):
        done = people.by("member", "fetch", *words)
        assert done.returncode == 254
        assert "signature" in done.stderr
    assert fingerprint(people.data / "cas/images") == before


def test_what_a_member_let_in_unverified_root_does_not_run(people: People, published: Site) -> None:
    published.publish("apps.example/unsigned")
    done = people.by("member", "--insecure-options=image", "fetch", "apps.example/unsigned")
    assert done.returncode == 0, done
    line = people.refused("run", FLY, "apps.example/unsigned")
    assert "without a signature" in line
    people.must("image", "rm", "apps.example/unsigned")


def test_keys_and_configuration_are_not_the_groups(people: People) -> None:
    for path in (people.local, *people.local.rglob("*")):
        status = path.stat()
        for name in ("member", "other"):
            can = subprocess.run(people.as_user(name, "test", "-w", str(path)), check=False)
            assert can.returncode == 1, (name, path)
        if path.is_file():
            assert not status.st_mode & stat.S_IWOTH
    script = f"echo x > {people.local}/trustedkeys/root.d/{'0' * 40}"
    assert subprocess.run(people.as_user("member", "sh", "-c", script), check=False,
                          capture_output=True).returncode != 0  # fmt: skip


def test_s3_other_people_see_nothing_of_it(people: People, scene: Scene) -> None:
    for name in ("", "cas", "pods", "layers", "verified", f"pods/run/{scene.running}"):
        path = str(people.data / name)
        tried = subprocess.run(
            people.as_user("other", "ls", path), check=False, capture_output=True
        )
        assert tried.returncode != 0, path
    for name in ("layers", "verified", f"pods/run/{scene.running}/rootfs"):
        path = str(people.data / name)
        tried = subprocess.run(
            people.as_user("member", "ls", path), check=False, capture_output=True
        )
        assert tried.returncode != 0, path


def test_the_hosts_own_accounts_are_untouched(people: People) -> None:
    import pwd

    for name in PEOPLE:
        if name != "root":
            with pytest.raises(KeyError):
                pwd.getpwnam(name)
