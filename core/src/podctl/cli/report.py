"""The last report: turns whatever ended a command into one line and an exit code."""

from __future__ import annotations

import os

from podctl.cli.output import say
from podctl.errors import PodctlError

INTERRUPTED = 130
READER_GONE = 141
FAILED = 254


def report(error: BaseException, command: str = "podctl", *, debug: bool = False) -> int:
    """Say on stderr what went wrong and return the exit code.

    Expected failures (`PodctlError`, usage errors, the operating system's refusals) are one line.
    Anything else is a bug: one line that names it, with the traceback under --debug.
    """
    if isinstance(error, SystemExit):
        return _status(error)
    if isinstance(error, BrokenPipeError) and _reader_gone():
        return READER_GONE
    if isinstance(error, KeyboardInterrupt):
        say(command, "interrupted", error=True)
        return INTERRUPTED
    if isinstance(error, PodctlError):
        say(command, str(error), error=True)
        code = error.exit_code
    elif isinstance(error, OSError):
        say(command, _describe(error), error=True)
        code = FAILED
    else:
        text = f"unexpected {type(error).__name__}: {error}"
        say(command, text if debug else f"{text} (run with --debug for a traceback)", error=True)
        code = FAILED
    if debug:
        _explain(error, command)
    return code


def _status(leaving: SystemExit) -> int:
    if leaving.code is None:
        return 0
    return leaving.code if isinstance(leaving.code, int) else FAILED


def _describe(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if _is_path(name)]
    return ": ".join([" -> ".join(names), reason]) if names else reason


def _is_path(name: object) -> bool:
    return isinstance(name, str | bytes)


def _reader_gone() -> bool:
    """Whether the broken pipe is stdout (`podctl list | head`), and not one of our own."""
    import select

    poll = select.poll()
    poll.register(1, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _explain(error: BaseException, command: str) -> None:
    import traceback

    trace = getattr(error, "debug", None)
    if isinstance(trace, str):
        for line in trace.splitlines():
            say(command, line)
    for line in traceback.format_exception(error):
        for part in line.rstrip("\n").split("\n"):
            say(command, part)
