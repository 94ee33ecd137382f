"""Start-up: a clean interpreter, the version fast path, and a last report for what goes wrong."""

from __future__ import annotations

import os
import sys


def isolate() -> None:
    """Under root, start again with `-I` unless the interpreter is isolated already.

    PYTHON* variables, user site-packages and the current directory belong to the caller; with
    `sudo -E` they would choose what root imports.
    """
    if os.geteuid() != 0 or sys.flags.isolated:
        return
    interpreter = sys.executable or "/proc/self/exe"
    os.execv(interpreter, [interpreter, "-I", "-m", "podctl", *sys.argv[1:]])


def open_standard_descriptors() -> None:
    """Occupy closed descriptors 0, 1 and 2 with /dev/null.

    Otherwise the next file opened would become somebody's standard output. Writing to a stdout
    that was closed fails as it should: the descriptor is open for reading only.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The kernel hands out the lowest free number, which is this one.
            os.open("/dev/null", os.O_RDWR if number == 2 else os.O_RDONLY)
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 (lives on)


def start(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        if arguments == ["--version"]:
            from podctl import __version__

            sys.stdout.write(f"podctl {__version__}\n")
            return 0
        from podctl.cli.main import run

        return run(arguments)
    except BaseException as error:
        from podctl.cli.report import report

        return report(error)


def main() -> None:
    """Entry point of `python -m podctl`."""
    isolate()
    open_standard_descriptors()
    code = start(sys.argv[1:])
    try:
        # Buffered results may still meet a full disk or a reader that has gone.
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except BaseException as error:
        if isinstance(error, OSError):
            error.filename = "standard output"
        # After a failure that was reported, a second complaint about the same output is noise.
        if code == 0:
            from podctl.cli.report import report

            code = report(error)
    # Tearing the interpreter down costs milliseconds and has nothing left to save.
    os._exit(code)


if __name__ == "__main__":
    main()
