"""Claims on ranges of ids: nobody else has one, and they end with the pod."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from podctl.errors import HostLacks, InvalidInput, PodctlError
from podctl.model.plan import FlavorDescription, PreparedPod, UserRange
from podctl.pods import userns
from podctl.pods.directories import USERS
from podctl.pods.foreignids import ForeignIds
from podctl.pods.removal import delete_tree
from podctl.sys.locks import lock

if TYPE_CHECKING:
    from pathlib import Path

NSPAWN = FlavorDescription("nspawn", None, ("*",), frozenset({"private-users"}), frozenset())
FLY = FlavorDescription("fly", 1, ("host",), frozenset(), frozenset())


@pytest.fixture
def claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = str(tmp_path / "claims")
    monkeypatch.setattr(userns, "CLAIMS", path)
    monkeypatch.setattr(userns.claim, "__defaults__", (path,))
    monkeypatch.setattr(userns.release, "__defaults__", (path,))
    return path


def pod_directory(tmp_path: Path, place: str = "run", name: str | None = None) -> str:
    directory = tmp_path / "data" / "pods" / place / (name or str(uuid.uuid4()))
    directory.mkdir(parents=True)
    return str(directory)


def test_a_thousand_pods_of_several_directories_share_no_id(tmp_path: Path, claims: str) -> None:
    """X27"""
    directories = [pod_directory(tmp_path / str(number % 3)) for number in range(1000)]
    with ThreadPoolExecutor(4) as several:
        ranges = list(several.map(userns.claim, directories))
    bases = sorted(ids.base for ids in ranges)
    assert all(after - before >= 65536 for before, after in zip(bases, bases[1:], strict=False))
    assert bases[0] >= 524288
    assert bases[-1] + 65536 <= 1879048192
    assert all(ids.size == 65536 and ids.base % 65536 == 0 for ids in ranges)
    assert [userns.recorded(directory) for directory in directories] == ranges


def test_pods_that_would_get_the_same_range_get_two(tmp_path: Path, claims: str) -> None:
    names = [f"01234567-0000-4000-8000-00000000000{digit}" for digit in range(3)]
    ranges = [userns.claim(pod_directory(tmp_path, name=name)) for name in names]
    assert len({ids.base for ids in ranges}) == 3
    # Control: the first choice is one and the same.
    assert len({next(iter(userns._candidates(name))) for name in names}) == 1


def test_a_range_is_free_again_once_the_pod_is_removed(tmp_path: Path, claims: str) -> None:
    directory = pod_directory(tmp_path)
    userns.claim(directory)
    assert len(os.listdir(claims)) == 1
    delete_tree(directory, lambda _line: None)
    assert os.listdir(claims) == []


def test_a_pod_keeps_what_it_has_claimed_wherever_it_moves(tmp_path: Path, claims: str) -> None:
    directory = pod_directory(tmp_path)
    ids = userns.claim(directory)
    moved = directory.replace("/run/", "/exited-garbage/")
    os.renames(directory, moved)
    other = pod_directory(tmp_path, name=os.path.basename(directory)[:8] + str(uuid.uuid4())[8:])
    assert userns.claim(other) != ids
    delete_tree(moved, lambda _line: None)
    assert len(os.listdir(claims)) == 1


def test_claiming_twice_gives_the_same(tmp_path: Path, claims: str) -> None:
    directory = pod_directory(tmp_path, "prepared")
    assert userns.claim(directory) == userns.claim(directory)
    assert len(os.listdir(claims)) == 1


def test_a_claim_of_a_pod_that_is_gone_is_taken_over(tmp_path: Path, claims: str) -> None:
    directory = pod_directory(tmp_path)
    ids = userns.claim(directory)
    os.rename(directory, tmp_path / "gone")
    other = pod_directory(tmp_path, name=os.path.basename(directory)[:8] + str(uuid.uuid4())[8:])
    assert userns.claim(other) == ids
    # Whoever lost it takes nothing from who has it now.
    userns.release(directory, ids)
    assert len(os.listdir(claims)) == 1


def test_gc_gives_back_what_was_deleted_by_other_hands(tmp_path: Path, claims: str) -> None:
    kept, gone = pod_directory(tmp_path), pod_directory(tmp_path)
    ids = userns.claim(kept)
    userns.claim(gone)
    os.rename(gone, tmp_path / "gone")
    userns.sweep(claims)
    assert os.listdir(claims) == [str(ids.base // 65536)]


@pytest.mark.root
def test_a_range_with_processes_is_not_taken_over(tmp_path: Path, claims: str) -> None:
    """The pod's directory is out of sight, in another mount namespace perhaps."""
    directory = pod_directory(tmp_path)
    ids = userns.claim(directory)
    os.rename(directory, tmp_path / "gone")
    release, hold = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(hold)
            os.setresuid(ids.base + 7, ids.base + 7, ids.base + 7)
            os.write(1, b"")
            os.read(release, 1)
        finally:
            os._exit(0)
    try:
        while os.stat(f"/proc/{child}").st_uid != ids.base + 7:
            pass
        name = os.path.basename(directory)[:8] + str(uuid.uuid4())[8:]
        assert userns.claim(pod_directory(tmp_path, name=name)) != ids
    finally:
        os.close(hold)
        os.close(release)
        os.waitpid(child, 0)


def test_no_range_is_left(tmp_path: Path, claims: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(userns, "LAST", userns.FIRST + 1)
    for _ in range(2):
        userns.claim(pod_directory(tmp_path))
    with pytest.raises(PodctlError, match="every range"):
        userns.claim(pod_directory(tmp_path))


def test_claims_that_cannot_be_kept_are_one_line(tmp_path: Path, claims: str) -> None:
    (tmp_path / "claims").write_text("a file")
    with pytest.raises(PodctlError, match="cannot claim") as caught:
        userns.claim(pod_directory(tmp_path))
    assert caught.value.hint


@pytest.mark.parametrize(
    "text",
    ["", "1048576", "1048577:65536", "0:65536", "65536:65536", "1048576:65537", "-1048576:65536",
     "1048576:65536:1", "2147483648:65536", "x:65536"],
)  # fmt: skip
def test_a_record_that_is_no_range_is_refused(tmp_path: Path, text: str) -> None:
    directory = pod_directory(tmp_path)
    (tmp_path / directory / USERS).write_text(text)
    with pytest.raises(InvalidInput):
        userns.recorded(directory)


def test_no_record_means_the_users_of_the_host(tmp_path: Path) -> None:
    assert userns.recorded(pod_directory(tmp_path)) is None


# Other people's ids


def overlapping(root: Path, base: int) -> bool:
    return ForeignIds(str(root)).overlap(UserRange(base))


@pytest.mark.parametrize("name", ["subuid", "subgid"])
def test_delegated_ids_are_avoided(tmp_path: Path, name: str) -> None:
    (tmp_path / "etc").mkdir()
    text = "somebody:1000000:65536\nbroken\nother:x:y\n1000:3000000:1\n"
    (tmp_path / "etc" / name).write_text(text)
    assert overlapping(tmp_path, 15 * 65536)
    assert overlapping(tmp_path, 16 * 65536)
    assert overlapping(tmp_path, 3000000 // 65536 * 65536)
    assert not overlapping(tmp_path, 17 * 65536)
    assert not overlapping(tmp_path, 14 * 65536)


@pytest.mark.parametrize("name", ["passwd", "group"])
def test_ids_of_accounts_are_avoided(tmp_path: Path, name: str) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / name).write_text("root:x:0:0::/:\nbig:x:1048600:0::/:\n+\n")
    assert overlapping(tmp_path, 16 * 65536)
    assert not overlapping(tmp_path, 17 * 65536)


def test_ids_that_a_directory_service_knows_are_avoided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not overlapping(tmp_path, 16 * 65536)
    real = pwd.getpwuid
    monkeypatch.setattr(pwd, "getpwuid", lambda number: real(0 if number == 1048576 else number))
    assert overlapping(tmp_path, 16 * 65536)


def test_ranges_nspawn_has_picked_are_avoided(tmp_path: Path) -> None:
    directory = tmp_path / "run/systemd/nspawn-uid"
    directory.mkdir(parents=True)
    (directory / "1048576").touch()
    assert not overlapping(tmp_path, 1048576)
    fd = os.open(directory / "1048576", os.O_RDONLY)
    try:
        lock(fd, exclusive=True)
        assert overlapping(tmp_path, 1048576)
    finally:
        os.close(fd)


# Whether a pod has any


def pod(tmp_path: Path, *networks: str, **options: str) -> PreparedPod:
    given = {name.replace("_", "-"): value for name, value in options.items()}
    return PreparedPod(
        "01234567-0000-4000-8000-000000000000", pod_directory(tmp_path), (),
        networks=networks or ("default",), options=given,
    )  # fmt: skip


def say_nothing(line: str) -> None:
    raise AssertionError(line)


def test_by_default_a_pod_has_users_of_its_own(tmp_path: Path, claims: str) -> None:
    assert userns.users_of(pod(tmp_path), NSPAWN, say_nothing) is not None


@pytest.mark.parametrize(
    ("networks", "options"),
    [
        (("default",), {"private_users": "false"}),
        (("host",), {}),
        (("none",), {"ipc": "parent"}),
    ],
)
def test_a_pod_that_shares_with_the_host_has_the_host_s(
    tmp_path: Path, claims: str, networks: tuple[str, ...], options: dict[str, str]
) -> None:
    assert userns.users_of(pod(tmp_path, *networks, **options), NSPAWN, say_nothing) is None


def test_a_flavor_without_them_is_not_asked(tmp_path: Path, claims: str) -> None:
    assert userns.users_of(pod(tmp_path), FLY, say_nothing) is None


def test_an_imagined_pod_claims_nothing(tmp_path: Path, claims: str) -> None:
    first = userns.users_of(pod(tmp_path), NSPAWN, say_nothing, imagined=True)
    assert first is not None
    assert not os.path.exists(claims)


def test_a_host_that_cannot_says_so(
    tmp_path: Path, claims: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(userns, "_kernel", lambda: (5, 10))
    lines: list[str] = []
    one = pod(tmp_path)
    assert userns.users_of(one, NSPAWN, lines.append) is None
    assert len(lines) == 1
    assert "5.19" in lines[0]
    with pytest.raises(HostLacks, match=r"5\.19"):
        userns.users_of(one._replace(options={"private-users": "true"}), NSPAWN, lines.append)


_LOOK = "from podctl.pods.userns import kernel_problem; print(kernel_problem())"


@pytest.mark.root
@pytest.mark.parametrize(("command", "expected"), [("chroot", "chroot"), ("env --chdir", "None")])
def test_a_chroot_has_no_users_of_its_own(tmp_path: Path, command: str, expected: str) -> None:
    """The kernel makes no user namespace in one. The control is the same tree without it."""
    script = f'mount --rbind / "$1" && exec {command} "$1" "$2" -I -c "$3"'
    arguments = [str(tmp_path), sys.executable, _LOOK]
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "slave", "sh", "-c", script, "sh", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    assert expected in done.stdout
