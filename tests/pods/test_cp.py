"""`podctl cp` on real pods of every flavor."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from kept_pods import detach, ended, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import World

pytestmark = pytest.mark.root
IDLE = "touch /ready; exec sleep 600"


@pytest.fixture(params=["fly", "nspawn"])
def pod(world: World, request: pytest.FixtureRequest) -> Iterator[str]:
    """A running pod of root's."""
    uuid = detach(world, IDLE, flavor=request.param)
    yield uuid
    world.must("stop", "--force", "--timeout=1", uuid)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with one of everything, not root's."""
    top = tmp_path / "tree"
    (top / "sub").mkdir(parents=True)
    (top / "file").write_text("content")
    (top / "file").chmod(0o4751)
    os.link(top / "file", top / "sub/again")
    (top / "link").symlink_to("/etc/passwd")
    (top / "sub").chmod(0o2700)
    for path in (top, top / "file", top / "sub"):
        os.chown(path, 1001, 1002)
    (top / "file").chmod(0o4751)
    (top / "sub").chmod(0o2700)
    return top


def listing(world: World, pod: str, path: str) -> str:
    return world.must(
        "exec", pod, "sh", "-c", f"cd {path} && find . | sort | xargs stat -c '%n %u:%g %a'"
    )


def on_host(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


def test_into_a_pod_and_out_again(world: World, pod: str, tree: Path, tmp_path: Path) -> None:
    world.must("cp", str(tree), f"{pod}:/dir1")
    assert listing(world, pod, "/dir1/tree").splitlines() == [
        ". 0:0 755",
        "./file 0:0 4751",
        "./link 0:0 777",
        "./sub 0:0 2700",
        "./sub/again 0:0 4751",
    ]
    world.must("cp", f"{pod}:/dir1/tree", str(tmp_path / "back"))
    back = tmp_path / "back"
    assert (back / "file").read_text() == (back / "sub/again").read_text() == "content"
    assert (back / "file").stat().st_ino == (back / "sub/again").stat().st_ino
    assert os.readlink(back / "link") == "/etc/passwd"
    assert on_host(back / "file") == (0, 0, 0o751)
    assert on_host(back / "sub") == (0, 0, 0o700)


def test_archives_keep_owners_as_the_pod_numbers_them(
    world: World, pod: str, tree: Path, tmp_path: Path
) -> None:
    world.must("cp", "--archive", f"{tree}/.", f"{pod}:/dir1")
    assert "./file 1001:1002 4751" in listing(world, pod, "/dir1")
    world.must("cp", "-a", f"{pod}:/dir1/file", str(tmp_path / "file"))
    assert on_host(tmp_path / "file") == (1001, 1002, 0o4751)
    world.must("cp", f"{pod}:/dir1/file", str(tmp_path / "plain"))
    assert on_host(tmp_path / "plain") == (0, 0, 0o751)


def test_streams(world: World, pod: str, tree: Path, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.add(tree, "tree")
    subprocess.run(world.command("cp", "-", f"{pod}:/dir1"), input=stream.getvalue(), check=True)
    assert "./file 1001:1002 4751" in listing(world, pod, "/dir1/tree")
    got = subprocess.run(
        world.command("cp", f"{pod}:/dir1/tree", "-"), stdout=subprocess.PIPE, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(got)) as archive:
        members = {member.name: member for member in archive}
    assert set(members) == {"tree", "tree/file", "tree/link", "tree/sub", "tree/sub/again"}
    assert (members["tree/file"].uid, members["tree/file"].gid) == (1001, 1002)


def test_names_are_those_of_cp(world: World, pod: str, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    one = str(tmp_path / "one")
    for target, path in (("/dir1", "/dir1/one"), ("/dir1/two", "/dir1/two"), ("/three", "/three")):
        world.must("cp", one, f"{pod}:busybox:{target}")
        assert world.must("exec", pod, "cat", path) == "1"
    (tmp_path / "one").write_text("again")
    world.must("cp", one, f"{pod}:/three")
    assert world.must("exec", pod, "cat", "/three") == "again"
    for line, message in (
        ((one, f"{pod}:/nope/"), "/nope/ is no directory"),
        ((one, f"{pod}:/nope/x"), "/nope: no such directory"),
        ((f"{tmp_path}/", f"{pod}:/three"), "/three is no directory"),
        ((f"{pod}:/nope", one), "/nope: no such file"),
        ((f"{tmp_path}/nope", f"{pod}:/"), "no such file"),
        ((one, one), "one of both must be in a pod"),
        ((f"{pod}:/three", f"{pod}:/four"), "one of both must be in a pod"),
        ((f"{pod}:three", one), "begins with /"),
        ((f"{pod}:x:/three", one), 'no app "x"'),
    ):
        done = world.podctl("cp", *line)
        assert done.code == 254
        assert message in done.err


def test_a_directory_is_never_replaced(world: World, pod: str, tmp_path: Path) -> None:
    (tmp_path / "from/name").mkdir(parents=True)
    (tmp_path / "to").mkdir()
    (tmp_path / "to/name").write_text("mine")
    world.must("cp", str(tmp_path / "from"), f"{pod}:/dir1")
    assert (
        "what is there is no directory"
        in world.podctl("cp", f"{pod}:/dir1/from/.", str(tmp_path / "to")).err
    )
    (tmp_path / "to/name").unlink()
    (tmp_path / "to/name/precious").mkdir(parents=True)
    world.must("exec", pod, "sh", "-c", "rm -r /dir1/from/name; echo x > /dir1/from/name")
    assert (
        "what is there is a directory"
        in world.podctl("cp", f"{pod}:/dir1/from/.", str(tmp_path / "to")).err
    )
    assert (tmp_path / "to/name/precious").is_dir()


def test_of_a_pod_that_does_not_run(world: World, tmp_path: Path) -> None:
    for flavor in ("fly", "nspawn"):
        uuid = ended(world, "echo left > /dir1/left", flavor=flavor)
        world.must("cp", f"{uuid}:/dir1/left", str(tmp_path / flavor))
        assert (tmp_path / flavor).read_text() == "left\n"
        assert str(world.data) not in Path("/proc/self/mountinfo").read_text()
    (tmp_path / "config").write_text("for later")
    uuid = world.prepare("--exec=/bin/cat", "--", "/config")
    world.must("cp", str(tmp_path / "config"), f"{uuid}:/")
    assert world.must("run-prepared", uuid) == "for later"


class TestHostile:
    """What the pod holds leads nowhere (CVE-2018-15664)."""

    def test_links_stay_inside(self, world: World, pod: str, tmp_path: Path) -> None:
        canary = tmp_path / "canary"
        canary.mkdir()
        (canary / "secret").write_text("the host's")
        script = (
            f"ln -s {canary} /out; ln -s ../../../../../../..{canary} /up;"
            f" mkdir -p {canary}; echo the pod\\'s > {canary}/secret; mkdir /d; ln -s {canary} /d/l"
        )
        world.must("exec", pod, "sh", "-c", script)
        for link in ("/out", "/up", "/d/l"):
            world.must("cp", f"{pod}:{link}/secret", str(tmp_path / "got"))
            assert (tmp_path / "got").read_text() == "the pod's\n"
            (tmp_path / "new").write_text("new")
            world.must("cp", str(tmp_path / "new"), f"{pod}:{link}/planted")
            assert os.listdir(canary) == ["secret"]
        # The control: by its path on the host, the link leads to the host's file.
        root = f"/proc/{_first(world, pod)}/root"
        assert Path(root, "out/secret").read_text() == "the host's"

    def test_what_waits_or_gives_for_ever_is_not_opened(
        self, world: World, pod: str, tmp_path: Path
    ) -> None:
        subprocess.run(world.command("cp", "-", f"{pod}:/dir1"), input=_tar_with_fifo(), check=True)
        done = world.podctl("cp", f"{pod}:/dir1", str(tmp_path / "out"))
        assert done.code == 0, done.err
        assert stat.S_ISFIFO((tmp_path / "out/fifo").lstat().st_mode)
        assert "device left out" in world.podctl("cp", f"{pod}:/dev/null", str(tmp_path / "n")).err
        assert not (tmp_path / "n").exists()

    def test_links_in_the_way_on_the_host_are_not_followed(
        self, world: World, pod: str, tmp_path: Path
    ) -> None:
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious/file").write_text("mine")
        (tmp_path / "to/tree").mkdir(parents=True)
        (tmp_path / "to/tree/sub").symlink_to(tmp_path / "precious")
        (tmp_path / "to/tree/link").symlink_to(tmp_path / "precious/file")
        world.must(
            "exec", pod, "sh", "-c", "mkdir -p /tree/sub; echo evil > /tree/sub/file;"
            " echo evil > /tree/link",
        )  # fmt: skip
        world.podctl("cp", f"{pod}:/tree", str(tmp_path / "to"))
        assert (tmp_path / "precious/file").read_text() == "mine"

    def test_a_directory_swapped_for_a_link_all_the_time(
        self, world: World, pod: str, tmp_path: Path
    ) -> None:
        canary = tmp_path / "canary"
        canary.mkdir()
        (canary / "file").write_text("the host's")
        script = (
            f"mkdir /real; echo mine > /real/file; ln -s {canary} /evil; touch /swapping;"
            " while :; do mv -T /real /x; mv -T /evil /x2; ln -s x2 /x 2>/dev/null;"
            f" rm -rf /race; ln -s {canary} /race; rm /race; mkdir /race; echo mine > /race/file;"
            " mv -T /x /real; mv -T /x2 /evil; done"
        )
        swapper = world.start("exec", pod, "sh", "-c", script)
        until(lambda: world.podctl("exec", pod, "test", "-e", "/swapping").code == 0)
        (tmp_path / "planted").write_text("planted")
        for number in range(20):
            out = tmp_path / f"got-{number}"
            world.podctl("cp", f"{pod}:/race/file", str(out))
            assert not out.exists() or out.read_text() in ("mine\n", "")
            world.podctl("cp", str(tmp_path / "planted"), f"{pod}:/race/")
            assert os.listdir(canary) == ["file"]
        swapper.kill()

    @pytest.mark.parametrize("name", ["../evil", "/../evil", "a/../../evil"])
    def test_a_stream_that_leads_out_is_refused(self, world: World, pod: str, name: str) -> None:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            archive.addfile(tarfile.TarInfo(name))
        done = subprocess.run(
            world.command("cp", "-", f"{pod}:/dir1"),
            input=stream.getvalue(), stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
        assert done.returncode == 254
        assert b"leads out of the directory" in done.stderr
        assert world.podctl("exec", pod, "test", "-e", "/evil").code == 1


def _first(world: World, pod: str) -> int:
    import json

    found: int = json.loads(world.must("top", "--format=json", pod))[0]["pid"]
    return found


def _tar_with_fifo() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("fifo")
        entry.type = tarfile.FIFOTYPE
        archive.addfile(entry)
    return stream.getvalue()
