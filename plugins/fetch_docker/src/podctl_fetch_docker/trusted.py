"""Configuration files of this host, read with the caller's rights.

Root's registries, credentials and helper programs are root's to choose: whoever else could have
written a file has no say (a home directory that sudo kept is somebody else's).
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_FILE = 1 << 20


class ConfigFile(NamedTuple):
    """A file's content, and who may read it.

    Args:
        exposed: others than its owner may.
    """

    path: str
    data: bytes
    exposed: bool

    def __repr__(self) -> str:
        """The content may be credentials."""
        return f"ConfigFile(path={self.path!r})"


class Surroundings(NamedTuple):
    """Who configures: the user's ids and directories, as the environment has them.

    Args:
        uid: effective user id.
        home: home directory, empty where there is none.
        config: $XDG_CONFIG_HOME or what it is by default.
        environment: the process's environment.
        root: put before the paths of the system's directories.
    """

    uid: int
    home: str
    config: str
    environment: Mapping[str, str]
    root: str = ""

    def etc(self, path: str) -> str:
        """A path below /etc."""
        return f"{self.root}/etc/{path}"


def surroundings(environment: Mapping[str, str] | None = None) -> Surroundings:
    """Return those of this process. A relative path in a variable is as good as none (XDG)."""
    variables = os.environ if environment is None else environment

    def absolute(name: str) -> str:
        value = variables.get(name, "")
        return value if value.startswith("/") else ""

    home = absolute("HOME")
    config = absolute("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
    return Surroundings(os.geteuid(), home, config, variables)


def read_config(path: str, uid: int) -> ConfigFile | None:
    """Read a configuration file; None where there is none.

    Raises:
        UsageError: it cannot be read, is no regular file, is too large, or for root: somebody
            else could have written it.
    """
    try:
        # O_NONBLOCK: the open itself must not wait for a FIFO's writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path}: is no regular file")
        if uid == 0 and not (_is_roots(status) and is_roots_alone(path)):
            raise UsageError(
                f"{path}: somebody else than root could have written it, so root does not use it",
                hint="make it root's, writable by nobody else, or do not point to it",
            )
        with open(fd, "rb", closefd=False) as file:
            data = file.read(MAX_FILE + 1)
    finally:
        os.close(fd)
    if len(data) > MAX_FILE:
        raise UsageError(f"{path}: larger than {MAX_FILE} bytes")
    return ConfigFile(path, data, bool(status.st_mode & (stat.S_IRGRP | stat.S_IROTH)))


def is_roots_alone(path: str) -> bool:
    """Whether a path leads, through directories that are root's alone, to what is root's alone.

    On the way there may be directories where everybody has files of their own (/tmp).
    """
    real = os.path.realpath(path)
    parts = real.split("/")
    try:
        return all(
            _is_roots(os.stat("/".join(parts[:length]) or "/"), sticky=length < len(parts) - 1)
            for length in range(1, len(parts) + 1)
        )
    except OSError:
        return False


def list_config(directory: str, suffix: str) -> list[str]:
    """The files of a directory whose names end in `suffix`, sorted; none where there is none."""
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UsageError(f"{directory}: cannot be read: {error.strerror}") from None
    return [f"{directory}/{name}" for name in sorted(names) if name.endswith(suffix)]


def _is_roots(status: os.stat_result, *, sticky: bool = False) -> bool:
    if status.st_uid != 0:
        return False
    if sticky and status.st_mode & stat.S_ISVTX:
        return True
    others = stat.S_IWOTH | (stat.S_IWGRP if status.st_gid != 0 else 0)
    return not status.st_mode & others
