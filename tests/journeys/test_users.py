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
    """Pods in three states, and an image fetched by root."""

    def __init__(self, people: People) -> None:
        run = ["run", FLY, NAME]
        people.must(*run)
        (self.exited,) = people.pods()
        self.prepared = people.must("prepare", FLY, "--quiet", NAME).strip()
        saved = people.top / "uuid"
        words = ["--insecure-options=image", f"--uuid-file-save={saved}"]
        self.app = people.start(*run, *words, "--exec=/bin/sleep", "--", "1000")
        # The UUID is written before the pod counts as running.
        people.must("status", "--wait-ready=20s", f"--uuid-file={_existing(saved)}")
        self.running = saved.read_text().strip()
        (self.image,) = people.images()

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


ALL, GROUP, ROOT = {"root", "member", "admin", "other"}, {"root", "member"}, {"root"}
#: command line -> who may; those that change something come last
ALLOWED: dict[str, set[str]] = {
    "version": ALL,
    "help run": ALL,
    "plugins": ALL,
    "completion bash": ALL,
    "config": ALL,
    "list": GROUP,
    "status {exited}": GROUP,
    "cat-manifest {exited}": GROUP,
    "image list": GROUP,
    "image cat-manifest {image}": GROUP,
    "image verify {image}": GROUP,
    "image export {image} {mine}/exported.aci": GROUP,
    "fsck": GROUP,
    "fetch apps.example/shared": GROUP,
    "image extract {image} {mine}/extracted": ROOT,
    "image render {image} {mine}/rendered": ROOT,
    "export {exited} {mine}/exited.aci": ROOT,
    "enter {running} /bin/true": ROOT,
    "run --stage1=fly apps.example/shared": ROOT,
    "run --stage1=fly --dry-run apps.example/shared": ROOT,
    "prepare --stage1=fly apps.example/shared": ROOT,
    "run-prepared {prepared}": ROOT,
    "setup-data-dir": ROOT,
    "trust --prefix=apps.example/x --skip-fingerprint-review {top}/key.asc": {"root", "admin"},
    "gc": ROOT,
    "image gc": ROOT,
    "rm {exited}": ROOT,
    "stop {running}": ROOT,
    "image rm {image}": GROUP,
}


@pytest.mark.parametrize("line", ALLOWED)
def test_who_may(people: People, scene: Scene, line: str) -> None:
    # Root last: what only root may do has to find its object still there.
    for name in ("other", "admin", "member", "root"):
        if line.startswith("image rm") and name == "root":
            people.must("fetch", NAME)
        mine = people.top / f"of-{name}"
        mine.mkdir(exist_ok=True, mode=0o777)
        mine.chmod(0o777)
        words = line.format(**vars(scene), top=people.top, mine=mine).split()
        before = protected(people)
        done = people.by(name, *words)
        if name in ALLOWED[line]:
            assert done.returncode == 0, (name, done)
        else:
            assert done.returncode == 254, (name, done)
            command = " ".join(words[: 1 + (words[0] == "image")])
            assert done.stderr.splitlines()[-1].startswith(f"{command}: "), (name, done.stderr)
            assert "unexpected" not in done.stderr, (name, done.stderr)
            assert done.stdout == "", (name, done)
            assert protected(people) == before, name


def protected(people: People) -> str:
    """What nobody but root, or nobody but an admin, can have changed."""
    places = [people.data / name for name in ("pods", "layers", "verified", "trees", "locks")]
    return fingerprint(*places, people.local)


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
