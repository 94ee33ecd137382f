"""Who the app runs as: names of an app section resolved in the app's own root filesystem.

Files of an image are read through the in-root walk, capped, regular files only (CVE-2024-9676);
a number is a number even where a user has digits for a name (CVE-2016-3697).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import InvalidInput, NotFound, Refused
from podctl.model.plan import Account, Identity
from podctl.sys.inroot import open_in_root, read_file_in_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podctl.model.plan import UserRange

#: bytes of /etc/passwd or /etc/group
_MAX_FILE = 1 << 20
#: (uid_t) -1 means "no change" to setresuid(2)
_MAX_ID = 0xFFFFFFFE


def resolve(root_fd: int, account: Account, users: UserRange | None = None) -> Identity:
    """Turn names into numbers inside `root_fd`, whose files belong to `users`.

    Raises:
        NotFound: a user, a group or a file is not in the image.
        InvalidInput: a number is out of range, or the image's file is unusable.
    """
    groups = tuple(_in_range("supplementary group", number) for number in account.groups)
    if account.group != "":
        uid = _user(root_fd, account.user, users).uid
        return Identity(uid, _group(root_fd, account.group, users), groups)
    user = _user(root_fd, account.user, users, own_groups=True)
    return Identity(user.uid, user.gid, (*groups, *_memberships(root_fd, user.name)))


def check_identity(identity: Identity, users: UserRange) -> None:
    """Check that a pod with these ids has the user and the groups.

    Raises:
        Refused: one has a number that is too high.
    """
    for number in (identity.uid, identity.gid, *identity.groups):
        if number >= users.size:
            raise Refused(
                f"user or group {number} is not among the {users.size} that a pod has",
                hint="use --private-users=no",
            )


def login_environment(
    root_fd: int, account: Account, users: UserRange | None = None
) -> dict[str, str]:
    """LOGIN_VARIABLES by the user's entry in the root's /etc/passwd, as runc and login(1) do.

    Without an entry, HOME is `/`, and only root has a name.

    Raises:
        NotFound, InvalidInput: as `resolve`.
    """
    user = _user(root_fd, account.user, users, own_groups=True)
    if user.name is None:
        user = _entry_of_number(root_fd, user.uid) or user
    name = user.name or (b"root" if user.uid == 0 else b"")
    found = {"HOME": user.home if user.home.startswith(b"/") else b"/"}
    if name:
        found.update(LOGNAME=name, USER=name)
    # What no program can be given is left out.
    return {key: os.fsdecode(value) for key, value in found.items() if b"\0" not in value}


class _User(NamedTuple):
    """A user, with group and home of its entry; `name` is None for one without an entry."""

    uid: int
    gid: int = 0
    name: bytes | None = None
    home: bytes = b"/"


def _user(root_fd: int, user: str, users: UserRange | None, *, own_groups: bool = False) -> _User:
    """Find a user; `own_groups`: also what /etc/passwd says of a number."""
    if _is_number(user):
        uid = _in_range("user", int(user))
        found = _entry_of_number(root_fd, uid) if own_groups else None
        return found or _User(uid)
    if user.startswith("/"):
        return _User(*_owner(root_fd, user, users))
    fields = _entry(root_fd, "/etc/passwd", user)
    if fields is None:
        if user == "root":
            return _User(0)
        raise NotFound(
            f'user "{user}" is not in the image\'s /etc/passwd', hint="give a number with --user"
        )
    return _of_entry(fields)


def _of_entry(fields: list[bytes]) -> _User:
    uid, gid = (_field(fields, index, "/etc/passwd") for index in (2, 3))
    return _User(uid, gid, fields[0], fields[5] if len(fields) > 5 else b"/")


def _entry_of_number(root_fd: int, uid: int) -> _User | None:
    """The first user of that number. Its name is looked for in /etc/group, never the number."""
    for fields in _lines(root_fd, "/etc/passwd"):
        # As text: int() is slow on endless digits, and refuses some.
        if fields[2].isdigit() and fields[2].lstrip(b"0") == str(uid).encode().lstrip(b"0"):
            return _of_entry(fields)
    return None


def _memberships(root_fd: int, name: bytes | None) -> tuple[int, ...]:
    """The groups that list the user."""
    if not name:
        return ()
    listing = [fields for fields in _lines(root_fd, "/etc/group") if name in fields[3].split(b",")]
    return tuple(_field(fields, 2, "/etc/group") for fields in listing)


def _group(root_fd: int, group: str, users: UserRange | None) -> int:
    if _is_number(group):
        return _in_range("group", int(group))
    if group.startswith("/"):
        return _owner(root_fd, group, users)[1]
    fields = _entry(root_fd, "/etc/group", group)
    if fields is None:
        if group == "root":
            return 0
        raise NotFound(
            f'group "{group}" is not in the image\'s /etc/group', hint="give a number with --group"
        )
    return _field(fields, 2, "/etc/group")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _in_range(what: str, number: int) -> int:
    if not 0 <= number <= _MAX_ID:
        raise InvalidInput(f"{what} {number} is not between 0 and {_MAX_ID}")
    return number


def _owner(root_fd: int, path: str, users: UserRange | None) -> tuple[int, int]:
    """User and group of the file itself, not of what it may point to; links on the way are
    followed in-root."""
    try:
        fd = open_in_root(root_fd, path, os.O_PATH | os.O_NOFOLLOW)
    except OSError as error:
        raise NotFound(f"{path}, whose owner the app runs as: {error.strerror}") from None
    try:
        found = os.fstat(fd)
    finally:
        os.close(fd)
    if users is None:
        return found.st_uid, found.st_gid
    if not all(0 <= number - users.base < users.size for number in (found.st_uid, found.st_gid)):
        raise Refused(
            f"{path}, whose owner the app runs as, belongs to none of the pod's users",
            hint="use --private-users=no or give a number with --user",
        )
    return found.st_uid - users.base, found.st_gid - users.base


def _entry(root_fd: int, path: str, name: str) -> list[bytes] | None:
    """The first line of the database for `name`, split; None when there is none."""
    wanted = name.encode(errors="surrogateescape")
    return next((fields for fields in _lines(root_fd, path) if fields[0] == wanted), None)


def _lines(root_fd: int, path: str) -> Iterator[list[bytes]]:
    """The lines of a database that have the four fields all have, split; none without a file."""
    try:
        data = read_file_in_root(root_fd, path, _MAX_FILE)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InvalidInput(f"the image's {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InvalidInput(f"the image's {error}") from None
    for line in data.split(b"\n"):
        fields = line.split(b":")
        if len(fields) >= 4:
            yield fields


def _field(fields: list[bytes], index: int, path: str) -> int:
    text = fields[index].decode("ascii", "replace")
    if not _is_number(text) or len(text) > 20 or int(text) > _MAX_ID:
        raise InvalidInput(f"the image's {path} gives {text[:40]!r} as the number of an entry")
    return int(text)
