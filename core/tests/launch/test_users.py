"""Accounts in an image whose databases are hostile."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from podctl.errors import InvalidInput, NotFound
from podctl.model.plan import Account, Identity
from podctl.pods.users import login_environment, resolve

if TYPE_CHECKING:
    from pathlib import Path

PASSWD = """\
# comment
root:x:0:0:root:/root:/bin/sh
web:x:1001:1002::/:/bin/sh
web:x:1:1:the first entry counts:/:/bin/sh
1000:x:0:0:digits for a name:/:/bin/sh
short:x:5
big:x:4294967296:1::/:
minus:x:-1:0::/:
hex:x:0x10:0::/:
endless:x:{endless}:0::/:
+nis::::::
""".replace("{endless}", "9" * 5000)
GROUP = """\
root:x:0:
web:x:2002:
1000:x:0:
nobody-s:x:
logs:x:30:other,web
tapes:x:31:web,1001
digits:x:32:77,1001
webs:x:33:webs,we
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "etc").mkdir(parents=True)
    (tmp_path / "root" / "etc" / "passwd").write_text(PASSWD)
    (tmp_path / "root" / "etc" / "group").write_text(GROUP)
    return tmp_path / "root"


def look_up(root: Path, user: str, group: str = "0", groups: tuple[int, ...] = ()) -> Identity:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        return resolve(fd, Account(user, group, groups))
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("user", "group", "expected"),
    [
        ("0", "0", (0, 0)),
        ("web", "web", (1001, 2002)),
        ("web", "5", (1001, 5)),
        ("web", "", (1001, 1002)),
        ("77", "", (77, 0)),
        ("1000", "1000", (1000, 1000)),
        ("0001", "007", (1, 7)),
        ("4294967294", "4294967294", (4294967294, 4294967294)),
        ("root", "root", (0, 0)),
    ],
)
def test_names_and_numbers(root: Path, user: str, group: str, expected: tuple[int, int]) -> None:
    found = look_up(root, user, group, (5, 6))
    assert (found.uid, found.gid) == expected
    assert found.groups[:2] == (5, 6)


@pytest.mark.parametrize(
    ("user", "group", "expected"),
    [
        ("web", "", Identity(1001, 1002, (5, 30, 31))),
        ("1001", "", Identity(1001, 1002, (5, 30, 31))),
        # A given group takes the place of the user's own ones, as in docker.
        ("web", "web", Identity(1001, 2002, (5,))),
        ("1001", "0", Identity(1001, 0, (5,))),
        # A number is no name, neither of a user nor in a list of members.
        ("77", "", Identity(77, 0, (5,))),
        ("1000", "", Identity(1000, 0, (5,))),
    ],
)
def test_an_empty_group_is_the_user_s_own_groups(
    root: Path, user: str, group: str, expected: Identity
) -> None:
    assert look_up(root, user, group, (5,)) == expected


def test_own_groups_of_a_malformed_database_are_refused(root: Path) -> None:
    (root / "etc" / "group").write_text("logs:x:4294967296:web\n")
    with pytest.raises(InvalidInput, match="/etc/group"):
        look_up(root, "web", "")
    assert look_up(root, "web", "5") == Identity(1001, 5)
    (root / "etc" / "passwd").write_text("web:x:1001:-1::/:\n")
    with pytest.raises(InvalidInput, match="/etc/passwd"):
        look_up(root, "1001", "")


@pytest.mark.parametrize("number", ["4294967295", "4294967296", "99999999999999999999999"])
def test_number_out_of_range_is_refused(root: Path, number: str) -> None:
    with pytest.raises(InvalidInput, match=number):
        look_up(root, number)
    with pytest.raises(InvalidInput, match=number):
        look_up(root, "0", number)
    with pytest.raises(InvalidInput, match=number):
        look_up(root, "0", "0", (int(number),))


@pytest.mark.parametrize("user", ["-1", "+1", "1000:1000", "1_000", "١", " 0", "0x0", "short", ""])
def test_what_looks_like_a_number_is_a_name_nobody_has(root: Path, user: str) -> None:
    with pytest.raises(NotFound, match="passwd"):
        look_up(root, user)


@pytest.mark.parametrize("user", ["big", "minus", "hex", "+nis", "endless"])
def test_entry_without_a_proper_number_is_refused(root: Path, user: str) -> None:
    with pytest.raises(InvalidInput, match="/etc/passwd"):
        look_up(root, user)


def test_root_needs_no_database(root: Path) -> None:
    (root / "etc" / "passwd").unlink()
    (root / "etc" / "group").unlink()
    assert look_up(root, "root", "root") == Identity(0, 0)
    with pytest.raises(NotFound, match='user "web"'):
        look_up(root, "web")
    with pytest.raises(NotFound, match='group "web"'):
        look_up(root, "0", "web")


def test_path_stands_for_the_owner_of_the_file_itself(root: Path, tmp_path: Path) -> None:
    (root / "bin").mkdir()
    (root / "bin" / "app").touch()
    os.chown(root / "bin" / "app", 33, 44)
    (root / "link").symlink_to("/bin")
    (root / "bin" / "out").symlink_to(tmp_path)
    os.chown(root / "bin" / "out", 55, 66, follow_symlinks=False)
    assert look_up(root, "/bin/app", "/link/app") == Identity(33, 44)
    assert look_up(root, "/bin/out", "") == Identity(55, 66)
    with pytest.raises(NotFound, match="/bin/nothing"):
        look_up(root, "/bin/nothing")


def test_linked_database_is_the_image_s_own(root: Path, tmp_path: Path) -> None:
    """The host's file of the same path is not read (the control: it is there to be read)."""
    outside = tmp_path / "passwd"
    outside.write_text("evil:x:0:0::/:\n")
    (root / "etc" / "passwd").unlink()
    (root / "etc" / "passwd").symlink_to(outside)
    assert "evil" in (root / "etc" / "passwd").read_text()
    with pytest.raises(NotFound):
        look_up(root, "evil")
    (root / str(outside.parent).lstrip("/")).mkdir(parents=True)
    (root / str(outside).lstrip("/")).write_text("evil:x:5:6::/:\n")
    assert look_up(root, "evil", "") == Identity(5, 6)


@pytest.mark.parametrize("kind", ["fifo", "zero", "huge", "directory", "loop", "magic"])
def test_database_that_is_no_sensible_file(root: Path, kind: str) -> None:
    path = root / "etc" / "passwd"
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "zero":
        os.mknod(path, 0o20644, os.makedev(1, 5))
    elif kind == "huge":
        with path.open("w") as file:
            file.truncate(10 << 30)
    elif kind == "directory":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to("passwd")
    else:
        path.symlink_to("/proc/self/root/etc/passwd")
    with pytest.raises((InvalidInput, NotFound), match="/etc/passwd"):
        look_up(root, "web")


# HOME, LOGNAME, USER


def log_in(root: Path, user: str) -> dict[str, str]:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        return login_environment(fd, Account(user, ""))
    finally:
        os.close(fd)


HOMES = """\
root:x:0:0:root:/root:/bin/sh
toor:x:0:0::/toor:/bin/sh
app:x:1000:1000::/srv/app:/bin/sh
1000:x:0:0::/wrong:/bin/sh
bare:x:1001:1001::
short:x:1002:1002
empty:x:1003:1003:::
relative:x:1004:1004::tmp:/bin/sh
odd:x:1005:1005::/a b é:/bin/sh
nul:x:1006:1006::/a\0b:/bin/sh
:x:1007:1007::/nameless:
"""


@pytest.mark.parametrize(
    ("user", "name", "home"),
    [
        ("0", "root", "/root"),
        ("root", "root", "/root"),
        ("toor", "toor", "/toor"),
        ("app", "app", "/srv/app"),
        ("1000", "app", "/srv/app"),
        ("bare", "bare", "/"),
        ("short", "short", "/"),
        ("empty", "empty", "/"),
        ("relative", "relative", "/"),
        ("odd", "odd", "/a b é"),
        ("nul", "nul", None),
        ("1007", None, "/nameless"),
        ("4711", None, "/"),
    ],
)
def test_login_is_by_the_user_s_entry(
    root: Path, user: str, name: str | None, home: str | None
) -> None:
    (root / "etc" / "passwd").write_text(HOMES)
    expected = {"HOME": home, "LOGNAME": name, "USER": name}
    assert log_in(root, user) == {key: value for key, value in expected.items() if value}


@pytest.mark.parametrize("user", ["0", "root"])
def test_root_has_a_name_in_an_image_without_users(root: Path, user: str) -> None:
    (root / "etc" / "passwd").unlink()
    assert log_in(root, user) == {"HOME": "/", "LOGNAME": "root", "USER": "root"}


def test_login_of_the_owner_of_a_file(root: Path) -> None:
    (root / "etc" / "passwd").write_text(HOMES)
    (root / "file").touch()
    os.chown(root / "file", 1000, 5)
    assert log_in(root, "/file")["HOME"] == "/srv/app"


def test_a_list_of_users_that_leads_out_is_not_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text(HOMES)
    (root / "etc" / "passwd").unlink()
    (root / "etc" / "passwd").symlink_to(tmp_path / "outside")
    assert log_in(root, "1000") == {"HOME": "/"}
