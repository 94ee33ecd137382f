"""setup-data-dir: modes and owners, repeats, and what a group member may have planted."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from podctl.config.installation import CONFIG_PLACES, DATA_PLACES, set_up, share
from podctl.errors import Refused
from podctl.testing.reach import as_user

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give directories to a group"),
]

#: a group nobody is in
GROUP = 54321


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def data(tmp_path: Path, said: list[str]) -> Path:
    """A data directory as setup-data-dir leaves it."""
    set_up(str(tmp_path / "data"), DATA_PLACES, GROUP, said.append)
    return tmp_path / "data"


def ownership(path: Path) -> tuple[int, int, int]:
    state = path.lstat()
    return stat.S_IMODE(state.st_mode), state.st_uid, state.st_gid


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", (0o2750, 0, GROUP)),
        ("cas", (0o2770, 0, GROUP)),
        ("cas/blobs/sha256", (0o2770, 0, GROUP)),
        ("cas/tmp", (0o2770, 0, GROUP)),
        ("layers", (0o700, 0, 0)),
        ("verified", (0o700, 0, 0)),
        ("trees", (0o700, 0, 0)),
        ("pods", (0o2750, 0, GROUP)),
        ("pods/run", (0o2750, 0, GROUP)),
    ],
)
def test_every_place_has_its_owner_and_mode(
    data: Path, path: str, expected: tuple[int, int, int]
) -> None:
    assert ownership(data / path) == expected


def test_the_mask_of_the_caller_does_not_matter(tmp_path: Path, said: list[str]) -> None:
    before = os.umask(0o077)
    try:
        set_up(str(tmp_path / "data"), DATA_PLACES, GROUP, said.append)
    finally:
        os.umask(before)
    assert ownership(tmp_path / "data/cas/blobs") == (0o2770, 0, GROUP)


def test_a_repeat_changes_and_says_nothing(data: Path, said: list[str]) -> None:
    assert len(said) == len(DATA_PLACES)
    said.clear()
    set_up(str(data), DATA_PLACES, GROUP, said.append)
    assert said == []


def test_wrong_modes_are_corrected(data: Path, said: list[str]) -> None:
    said.clear()
    (data / "layers").chmod(0o777)
    os.chown(data / "cas/images", 0, 0)
    set_up(str(data), DATA_PLACES, GROUP, said.append)
    assert ownership(data / "layers") == (0o700, 0, 0)
    assert ownership(data / "cas/images") == (0o2770, 0, GROUP)
    assert len(said) == 2


def test_a_data_directory_that_is_a_link_is_resolved_first(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    set_up(str(tmp_path / "link"), DATA_PLACES, GROUP, said.append)
    assert ownership(tmp_path / "real/cas") == (0o2770, 0, GROUP)


@pytest.mark.parametrize("place", ["cas/blobs", "cas/blobs/sha256", "cas/tmp", "pods"])
def test_a_link_in_place_of_a_directory_is_refused(
    data: Path, tmp_path: Path, said: list[str], place: str
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o700)
    (data / place).rename(data / "moved")
    (data / place).symlink_to(victim)
    with pytest.raises(Refused, match="symbolic link"):
        set_up(str(data), DATA_PLACES, GROUP, said.append)
    assert ownership(victim) == (0o700, 0, 0)
    assert list(victim.iterdir()) == []
    # What following the link would have done.
    (data / place / "made").mkdir()
    os.chown(data / place, 0, GROUP)
    assert ownership(victim) == (0o700, 0, GROUP)
    assert [child.name for child in victim.iterdir()] == ["made"]


def test_a_file_in_place_of_a_directory_is_refused(data: Path, said: list[str]) -> None:
    (data / "cas/remotes").rmdir()
    (data / "cas/remotes").write_text("")
    with pytest.raises(Refused, match="cas/remotes"):
        set_up(str(data), DATA_PLACES, GROUP, said.append)


def test_a_directory_of_another_user_is_refused_where_members_cannot_write(
    data: Path, said: list[str]
) -> None:
    os.chown(data / "pods", 1234, -1)
    with pytest.raises(Refused, match="belongs to user 1234"):
        set_up(str(data), DATA_PLACES, GROUP, said.append)
    os.chown(data / "pods", 0, -1)
    os.chown(data / "cas/remotes", 1234, -1)
    set_up(str(data), DATA_PLACES, GROUP, said.append)
    assert ownership(data / "cas/remotes") == (0o2770, 0, GROUP)


def test_what_root_fetched_before_is_shared(data: Path) -> None:
    images = data / "cas/images/key"
    images.mkdir(mode=0o700)
    (images / "record.json").write_text("{}")
    (images / "record.json").chmod(0o600)
    os.chown(images, 0, 0)
    os.chown(images / "record.json", 0, 0)
    assert share(str(data), GROUP) == 2
    assert ownership(images) == (0o2770, 0, GROUP)
    assert ownership(images / "record.json") == (0o640, 0, GROUP)
    assert share(str(data), GROUP) == 0


def test_what_a_member_linked_in_is_not_shared(data: Path, tmp_path: Path) -> None:
    secret = tmp_path / "shadow"
    secret.write_text("secret")
    secret.chmod(0o600)
    os.link(secret, data / "cas/tmp/hard")
    (data / "cas/tmp/soft").symlink_to(secret)
    os.mkfifo(data / "cas/tmp/pipe", 0o600)
    assert share(str(data), GROUP) == 0
    assert ownership(secret) == (0o600, 0, 0)
    # The same file would have been given away had it one name only.
    secret.unlink()
    assert share(str(data), GROUP) == 1


def test_the_configuration_belongs_to_the_administrators(tmp_path: Path, said: list[str]) -> None:
    set_up(str(tmp_path / "etc"), CONFIG_PLACES, GROUP, said.append)
    assert ownership(tmp_path / "etc") == (0o2775, 0, GROUP)
    assert ownership(tmp_path / "etc/trustedkeys/prefix.d") == (0o2775, 0, GROUP)


SCRIPT = """
set -eu
cp -a /etc "$1/etc-copy"
mount --bind "$1/etc-copy" /etc
sed -i '/^podctl/d' /etc/group /etc/gshadow
for turn in first second; do
    echo "== $turn"
    "$2" -I -m podctl "--dir=$1/data" "--local-config=$1/config" setup-data-dir
done
echo "== result"
stat -c '%G %a %n' "$1/data" "$1/data/cas" "$1/config"
setpriv --reuid=12345 --regid=12345 --groups="$(getent group podctl | cut -d: -f3)" \
    sh -c 'touch "$0/data/cas/tmp/mine" && stat -c %G "$0/data/cas/tmp/mine";
           touch "$0/data/pods/mine" 2>/dev/null || echo denied pods;
           ls "$0/data/layers" 2>/dev/null || echo denied layers;
           touch "$0/config/mine" 2>/dev/null || echo denied config' "$1"
setpriv --reuid=12345 --regid=12345 --groups="$(getent group podctl-admin | cut -d: -f3)" \
    sh -c 'touch "$0/config/trustedkeys/mine" && echo allowed config;
           ls "$0/data" 2>/dev/null || echo denied data' "$1"
"""


def test_members_get_what_they_need_and_no_more(tmp_path: Path) -> None:
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(directory.stat().st_mode | 0o011)
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "slave", "sh", "-c", SCRIPT, "sh",
         str(tmp_path), sys.executable],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second, result = done.stdout.split("== ")[1:]
    assert 'created group "podctl"' in first
    assert 'created group "podctl-admin"' in first
    assert second == "second\n"
    assert result.replace(str(tmp_path), "").splitlines()[1:] == [
        "podctl 2750 /data",
        "podctl 2770 /data/cas",
        "podctl-admin 2775 /config",
        "podctl",
        "denied pods",
        "denied layers",
        "denied config",
        "allowed config",
        "denied data",
    ]


def test_it_needs_root(tmp_path: Path) -> None:
    done = subprocess.run(
        as_user(12345, 12345,
                sys.executable, "-I", "-m", "podctl", f"--dir={tmp_path}", "setup-data-dir"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 254
    assert done.stderr.startswith("setup-data-dir: cannot run as unprivileged user")
