"""Users of a pod's own: whether it has any, and which of the host's ids they are.

A range is claimed by a link whose name is the range's number and whose text is the pod's directory.
The links of all data directories lie in one place that a reboot empties, as it ends all pods;
what a pod has claimed is also recorded in its directory. On the disk nothing belongs to the range
(podctl.sys.idmap), so it may be another pod's as soon as no process has it any more.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import HostLacks, InvalidInput, PodctlError
from podctl.model.plan import UserRange
from podctl.pods.directories import PLACES
from podctl.pods.directories import USERS as RECORD
from podctl.sys.locks import lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podctl.model.plan import FlavorDescription, PreparedPod

OPTION = "private-users"
CLAIMS = "/run/podctl/users"
SIZE = 65536
#: systemd's range for containers (systemd-nspawn(1), --private-users=pick), by number: 524288 is
#: the first, and from 2^31 on devpts and others take ids for negative
FIRST, LAST = 524288 // SIZE, 1879048191 // SIZE
#: the kernel lays overlays over mapped layers from here on
_KERNEL = (5, 19)
#: magic numbers (statfs(2)) of filesystems that can be mapped in every such kernel
_MAPPABLE = frozenset({0xEF53, 0x58465342, 0x9123683E, 0xF2F52010})


def users_of(
    pod: PreparedPod,
    description: FlavorDescription,
    say: Callable[[str], None],
    *,
    imagined: bool = False,
) -> UserRange | None:
    """The users a pod is to have; None for the host's. Their range is claimed and recorded.

    Unless it was said, a pod has users of its own where flavor and host can do that and it shares
    neither network nor IPC namespace with the host: with those nobody but the host's root has a
    say.

    Args:
        say: prints one line of what is going on.
        imagined: nothing is written; the range is one it might get.

    Raises:
        HostLacks: it is to have them and cannot.
    """
    wanted = pod.options.get(OPTION)
    if wanted == "false" or OPTION not in description.options:
        return None
    if wanted is None and shares_with_host(pod):
        return None
    problem = users_problem(pod)
    if problem is not None:
        if wanted is not None:
            raise HostLacks(f"no users of the pod's own: {problem}", hint="--private-users=no")
        say(f'disabling private users: "{problem}"')
        return None
    if imagined:
        return next(_candidates(pod.uuid)).ids
    return claim(pod.directory)


def shares_with_host(pod: PreparedPod) -> bool:
    """Whether the pod has a namespace of the host's that a user namespace would have to own."""
    return "host" in pod.networks or pod.options.get("ipc") == "parent"


def users_problem(pod: PreparedPod) -> str | None:
    """Why a pod cannot have users of its own; None when it can."""
    return kernel_problem() or mapping_problem(pod.directory)


def kernel_problem() -> str | None:
    """Why no pod can have users of its own; None when the kernel lets them."""
    try:
        with open("/proc/sys/user/max_user_namespaces") as file:
            if int(file.read()) == 0:
                return "user.max_user_namespaces is 0"
    except (OSError, ValueError):
        return "the kernel has no user namespaces"
    if _kernel() < _KERNEL:
        return "the kernel cannot lay overlays over mapped layers (Linux 5.19 can)"
    return _namespace_problem()


def _namespace_problem() -> str | None:
    """In a chroot the kernel makes none (EPERM, user_namespaces(7)). That is tried only where our
    root is not that of process 1, for it takes a process."""
    with suppress(OSError):
        if os.path.samestat(os.stat("/proc/1/root"), os.stat("/")):
            return None
    from podctl.sys.idmap import MappedUsers

    try:
        with MappedUsers(FIRST * SIZE, SIZE):
            return None
    except OSError as error:
        return f"no user namespace can be made here, as in a chroot ({error.strerror})"


def mapping_problem(directory: str, *, trust: bool = True) -> str | None:
    """Why owners cannot be mapped in the filesystem of a directory, or where it will be; None when
    they can be.

    Args:
        trust: filesystems that are known to do it are not tried.
    """
    from podctl.sys.calls import filesystem_magic

    directory = os.path.abspath(directory)
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if trust and filesystem_magic(fd) in _MAPPABLE:
            return None
    finally:
        os.close(fd)
    from podctl.sys.idmap import MappedUsers

    try:
        with MappedUsers(FIRST * SIZE, SIZE) as users:
            os.close(users.clone(directory))
    except OSError as error:
        return f"owners cannot be mapped in the filesystem of {directory} ({error.strerror})"
    return None


def _kernel() -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    except ValueError:
        return (0, 0)


def claim(directory: str, claims: str = CLAIMS) -> UserRange:
    """Claim a range for the pod in `directory`, and record it there.

    Raises:
        PodctlError: none is free, or the claim cannot be written down.
    """
    from podctl.sys.files import write_atomic

    try:
        os.makedirs(claims, 0o755, exist_ok=True)
        fd = os.open(claims, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            lock(fd, exclusive=True)
            ids = _kept(directory, fd) or _take(directory, fd)
        finally:
            os.close(fd)
        text = f"{ids}\n".encode()
        write_atomic(f"{directory}/{RECORD}", text, mode=0o640, durable=False)
    except OSError as error:
        raise PodctlError(
            f"cannot claim users for the pod in {claims}: {error.strerror}",
            hint="use --private-users=no",
        ) from error
    return ids


def recorded(directory: str) -> UserRange | None:
    """The range of the pod in `directory`; None when it has the host's users.

    Raises:
        InvalidInput: the record is none.
    """
    from podctl.sys.files import read_small

    try:
        text = read_small(f"{directory}/{RECORD}", 64).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    base, colon, size = text.partition(":")
    if not (colon and base.isdecimal() and size == str(SIZE) and _is_range(int(base))):
        raise InvalidInput(f"{RECORD}: {text!r} is no range of users")
    return UserRange(int(base))


def release(directory: str, ids: UserRange, claims: str = CLAIMS) -> None:
    """Give a range back. It may have become another pod's meanwhile: then it stays theirs."""
    name = str(ids.base // SIZE)
    try:
        fd = os.open(claims, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        lock(fd, exclusive=True)
        owner = _owner(name, fd)
        if owner is not None and os.path.basename(owner) == os.path.basename(directory):
            os.unlink(name, dir_fd=fd)
    finally:
        os.close(fd)


def sweep(claims: str = CLAIMS) -> None:
    """Give back every range whose pod was deleted by other hands, with all of its data directory
    perhaps."""
    try:
        fd = os.open(claims, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        lock(fd, exclusive=True)
        alive = _with_processes()
        for name in os.listdir(fd):
            owner = _owner(name, fd)
            if owner is not None and name not in alive and not _exists(owner):
                os.unlink(name, dir_fd=fd)
    finally:
        os.close(fd)


def _is_range(base: int) -> bool:
    return base % SIZE == 0 and FIRST <= base // SIZE <= LAST


class _Candidate(NamedTuple):
    name: str
    ids: UserRange


def _candidates(uuid: str) -> Iterator[_Candidate]:
    """Every range, beginning at one that the UUID decides: most pods get the first they try."""
    count = LAST - FIRST + 1
    start = int(uuid[:8], 16)
    for step in range(count):
        number = FIRST + (start + step) % count
        yield _Candidate(str(number), UserRange(number * SIZE))


def _kept(directory: str, claims_fd: int) -> UserRange | None:
    """What a pod has claimed that then was not started."""
    ids = recorded(directory)
    owner = None if ids is None else _owner(str(ids.base // SIZE), claims_fd)
    is_ours = owner is not None and os.path.basename(owner) == os.path.basename(directory)
    return ids if is_ours else None


def _take(directory: str, claims_fd: int) -> UserRange:
    foreign = None
    for name, ids in _candidates(os.path.basename(directory)):
        owner = _owner(name, claims_fd)
        if owner is not None:
            if _exists(owner) or name in _with_processes():
                continue
            os.unlink(name, dir_fd=claims_fd)
        if foreign is None:
            from podctl.pods.foreignids import ForeignIds

            foreign = ForeignIds()
        if foreign.overlap(ids):
            continue
        os.symlink(directory, name, dir_fd=claims_fd)
        return ids
    raise PodctlError("every range of users is taken", hint="remove pods: podctl gc")


def _owner(name: str, claims_fd: int) -> str | None:
    try:
        return os.readlink(name, dir_fd=claims_fd)
    except FileNotFoundError:
        return None


def _exists(directory: str) -> bool:
    """Whether the pod still is, wherever it has moved to. It moves on in this order."""
    places, uuid = os.path.dirname(os.path.dirname(directory)), os.path.basename(directory)
    return any(os.path.isdir(f"{places}/{place}/{uuid}") for place in PLACES)


def _with_processes() -> set[str]:
    """Names of the ranges that any process has an id of: a pod's directory may be out of our
    sight."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with suppress(OSError):
                found.add(str(os.stat(f"/proc/{name}").st_uid // SIZE))
    return found
