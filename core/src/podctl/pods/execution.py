"""Running a further program in an app of a running pod."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from podctl.errors import UsageError
from podctl.model.plan import Account

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podctl.model.plan import EnterPlan
    from podctl.pods.directories import Pod


class Execution(NamedTuple):
    """What to run, and what of it differs from the app.

    Args:
        argv: program and arguments.
        app: None for the pod's only one.
        environment: variables beside the app's.
        working_directory: None for the app's own.
        user: `USER[:GROUP]` as of an app; None for the app's own.
        with_input: whether it reads our standard input; else it reads nothing.
        terminal: whether it gets a terminal.
    """

    argv: Sequence[str]
    app: str | None = None
    environment: Mapping[str, str] = {}
    working_directory: str | None = None
    user: str | None = None
    with_input: bool = False
    terminal: bool = False


def execute(pod: Pod, wanted: Execution) -> NoReturn:
    """Become the program, or relay its terminal and exit with its code.

    Raises:
        PodStateError: the pod does not run.
        UsageError: it must be said which app is meant, or there is no terminal to relay.
    """
    from podctl.pods.enter import enter

    plan = _plan(pod, wanted)
    if not wanted.terminal:
        if not wanted.with_input:
            os.dup2(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), 0)
        enter(plan)
    if wanted.with_input and not os.isatty(0):
        raise UsageError("--tty: standard input is no terminal", hint="leave --tty out")
    from podctl.pods.terminal import run_on_terminal

    code = run_on_terminal(
        lambda: enter(plan), with_input=wanted.with_input, session=plan.through is None
    )
    raise SystemExit(code)


def _plan(pod: Pod, wanted: Execution) -> EnterPlan:
    from podctl.pods.signalling import RunningPod

    running = RunningPod(pod)
    names = running.apps(wanted.app)
    if len(names) != 1:
        raise UsageError(
            f"pod contains multiple apps: {', '.join(names)}", hint="choose one with --app"
        )
    prepared = next(app for app in running.prepared.apps if app.name == names[0])
    plan = running.flavor.enter(running.prepared, names[0], tuple(wanted.argv))
    directory = wanted.working_directory
    if directory is None:
        directory = getattr(prepared.app, "working_directory", "/")
    elif not directory.startswith("/"):
        raise UsageError(f"--workdir: {directory} is not absolute")
    plan = plan._replace(
        working_directory=directory,
        environment={**plan.environment, **wanted.environment},
        terminal=wanted.terminal,
    )
    return plan if wanted.user is None else plan._replace(identity=_account(wanted.user))


def _account(text: str) -> Account:
    """Another user comes without the app's supplementary groups."""
    user, _, group = text.partition(":")
    if not user:
        raise UsageError(f"--user: {text!r} names no user")
    return Account(user, group)
