"""The program an app names: found inside its root, and explained when it will not start."""

from __future__ import annotations

import errno
import os
import stat
import struct
from typing import TYPE_CHECKING

from podctl.errors import AppNotExecutable, AppNotFound, PodctlError
from podctl.sys.inroot import open_in_root

if TYPE_CHECKING:
    from collections.abc import Mapping

#: ELF e_machine -> machine name of uname(2)
_MACHINES = {
    3: "i686",
    8: "mips",
    21: "ppc64le",
    22: "s390x",
    40: "armv7l",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
    258: "loongarch64",
}
_HEAD = 4096


def find_program(
    root_fd: int, program: str, environment: Mapping[str, str], working_directory: str
) -> str:
    """Return the path to execute, as seen with `root_fd` as root.

    An absolute path is taken as it is, one with a slash from the working directory, a bare name
    is searched in the app's PATH (working directory, /bin, /usr/bin without one).

    Raises:
        AppNotFound: there is no such file.
        AppNotExecutable: what is there is no executable file.
    """
    problem: PodctlError | None = None
    for path in _candidates(program, environment, working_directory):
        try:
            _check(root_fd, path)
        except AppNotExecutable as error:
            problem = problem or error
        except FileNotFoundError:
            continue
        else:
            return path
    if problem is not None:
        raise problem
    where = "" if "/" in program else f" in the app's PATH ({environment.get('PATH', 'unset')})"
    raise AppNotFound(f"{program}: no such program in the image{where}")


def _candidates(program: str, environment: Mapping[str, str], working_directory: str) -> list[str]:
    if program in ("", ".", ".."):
        raise AppNotFound(f"{program!r} names no program")
    if "/" in program:
        return [os.path.join("/", working_directory, program)]
    search = environment.get("PATH")
    directories = [working_directory, "/bin", "/usr/bin"] if search is None else search.split(":")
    return [os.path.join("/", working_directory, directory, program) for directory in directories]


def _check(root_fd: int, path: str) -> None:
    try:
        fd = open_in_root(root_fd, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError from None
    except OSError as error:
        # A magic link (/proc/self/exe) would run a program of the host.
        raise AppNotExecutable(f"{path}: {os.strerror(error.errno or 0)}") from None
    try:
        mode = os.fstat(fd).st_mode
    finally:
        os.close(fd)
    if stat.S_ISDIR(mode):
        raise AppNotExecutable(f"{path} is a directory")
    if not stat.S_ISREG(mode):
        raise AppNotExecutable(f"{path} is not a regular file")
    if not mode & 0o111:
        raise AppNotExecutable(f"{path} has no execute permission")


def open_program(root_fd: int, path: str) -> int:
    """A descriptor to read the found program by, should its execution fail; -1 where that is
    denied. Opened while privileges still allow it."""
    try:
        return open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return -1


def explain(error: OSError, root_fd: int, path: str, fd: int) -> tuple[int, str]:
    """Say why execve(2) of `path` failed: (exit code 126 or 127, one line).

    Runs in the app's root, possibly without privileges: every look may be denied.
    """
    head = _read(fd, _HEAD, 0)
    if head[:2] == b"#!":
        found = _explain_script(root_fd, path, head, error)
    elif head[:4] == b"\x7fELF":
        found = _explain_elf(root_fd, path, fd, head, error)
    elif error.errno == errno.ENOEXEC and fd >= 0:
        kind = "is empty" if head == b"" else "is neither an ELF program nor a #! script"
        found = (126, f"{path} {kind}")
    else:
        found = None
    if found is not None:
        return found
    return (127 if error.errno == errno.ENOENT else 126, f"{path}: {os.strerror(error.errno or 0)}")


def _explain_script(root_fd: int, path: str, head: bytes, error: OSError) -> tuple[int, str] | None:
    # As the kernel does: blanks and tabs separate, a carriage return is part of the name.
    line = head[2:].split(b"\n", 1)[0].replace(b"\t", b" ").strip(b" ")
    if not line:
        return 126, f"{path} has an empty #! line"
    interpreter = os.fsdecode(line.split(b" ", 1)[0])
    if error.errno == errno.ENOENT and not _exists(root_fd, interpreter):
        tail = " (the line ends with a carriage return)" if interpreter.endswith("\r") else ""
        return 127, f"{path}: its #! interpreter {interpreter} is not in the image{tail}"
    if error.errno in (errno.EACCES, errno.ENOEXEC):
        return 126, f"{path} or its #! interpreter {interpreter}: {os.strerror(error.errno)}"
    return None


def _explain_elf(
    root_fd: int, path: str, fd: int, head: bytes, error: OSError
) -> tuple[int, str] | None:
    host = os.uname().machine
    try:
        machine, loader = _elf_facts(fd, head)
    except struct.error:
        return 126, f"{path} is a damaged ELF file"
    if error.errno == errno.ENOEXEC:
        name = _MACHINES.get(machine, f"machine {machine}")
        if name != host:
            return 126, f"{path} is built for {name}, this host is {host}"
        return 126, f"{path} is a damaged ELF file"
    if error.errno == errno.ENOENT and loader and not _exists(root_fd, loader):
        return 127, f"{path}: its loader {loader} is not in the image"
    if error.errno == errno.ELIBBAD:
        return 126, f"{path}: its loader {loader} is damaged or built for another machine"
    return None


def _elf_facts(fd: int, head: bytes) -> tuple[int, str]:
    """Machine number and path of the loader (empty for a static program) of an ELF file."""
    order = "<" if head[5] == 1 else ">"
    (machine,) = struct.unpack_from(order + "H", head, 18)
    if head[4] == 2:
        (offset,) = struct.unpack_from(order + "Q", head, 32)
        size, count = struct.unpack_from(order + "HH", head, 54)
        place, form = 8, order + "Q16xQ"
    else:
        (offset,) = struct.unpack_from(order + "I", head, 28)
        size, count = struct.unpack_from(order + "HH", head, 42)
        place, form = 4, order + "I8xI"
    for index in range(min(count, 128)):
        entry = _read(fd, 56, offset + index * size)
        (kind,) = struct.unpack_from(order + "I", entry)
        if kind == 3:  # PT_INTERP
            start, length = struct.unpack_from(form, entry, place)
            loader = _read(fd, min(length, _HEAD), start).split(b"\0", 1)[0]
            return machine, os.fsdecode(loader)
    return machine, ""


def _read(fd: int, size: int, offset: int) -> bytes:
    try:
        return os.pread(fd, size, offset) if fd >= 0 else b""
    except (OSError, OverflowError):
        return b""


def _exists(root_fd: int, path: str) -> bool:
    try:
        os.close(open_in_root(root_fd, path, os.O_PATH))
    except OSError:
        return False
    return True
