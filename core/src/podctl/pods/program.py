"""What to execute: account, working directory and program, resolved inside a root."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import InvalidInput, PodctlError, Refused
from podctl.model.plan import LOGIN_VARIABLES, Account, Identity
from podctl.pods.lookup import find_program, open_program
from podctl.pods.users import check_identity, login_environment, resolve
from podctl.sys.inroot import open_in_root

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podctl.model.plan import AppLaunch, EnterPlan, LaunchPlan, UserRange


class Program(NamedTuple):
    """What to execute, all of it resolved inside the root but nothing changed yet."""

    root_fd: int
    directory_fd: int
    file_fd: int
    path: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    identity: Identity
    no_new_privileges: bool


def prepare_program(
    root_fd: int,
    plan: LaunchPlan | EnterPlan | AppLaunch,
    *,
    no_new_privileges: bool,
    users: UserRange | None = None,
) -> Program:
    """Resolve account, working directory and program inside the root, which belongs to `users`."""
    identity, environment = plan.identity, dict(plan.environment)
    if isinstance(identity, Account):
        if any(name not in environment for name in LOGIN_VARIABLES):
            environment = {**login_environment(root_fd, identity, users), **environment}
        identity = resolve(root_fd, identity, users)
    if users is not None:
        check_identity(identity, users)
    path = plan.working_directory
    try:
        directory_fd = open_in_root(root_fd, path, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise PodctlError(f"working directory {path} in the image: {reason}") from None
    program = find_program(root_fd, plan.argv[0], environment, path)
    return Program(
        root_fd,
        directory_fd,
        open_program(root_fd, program),
        program,
        plan.argv,
        environment,
        identity,
        no_new_privileges,
    )


def check_strings(argv: tuple[str, ...], environment: Mapping[str, str]) -> None:
    """What execve(2) cannot carry is refused while there is somebody to tell."""
    if not argv:
        raise InvalidInput("there is nothing to execute", hint="try --exec=BINARY")
    for word in argv:
        if "\0" in word:
            raise InvalidInput(f"argument {word!r} holds a NUL byte")
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name + value:
            raise InvalidInput(f"environment variable {name!r} cannot be passed to a program")


def check_standard_descriptors() -> None:
    """0, 1 and 2 go to the app: none may be missing (the next file opened would take its place)
    and none may be a directory (it would lead out of the root)."""
    for fd in range(3):
        try:
            mode = os.fstat(fd).st_mode
        except OSError:
            # The lowest free number is the one just found missing.
            os.set_inheritable(os.open("/dev/null", os.O_RDWR), True)
            continue
        if stat.S_ISDIR(mode):
            raise Refused(f"descriptor {fd} is a directory", hint="redirect from and to files")
