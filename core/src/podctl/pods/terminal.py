"""A terminal of its own for what is run inside a pod, relayed to and from ours.

The pod never gets the caller's terminal: whoever holds one can type into it (TIOCSTI) and outlive
the command on it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import termios
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from podctl.sys.files import flush_streams, write_all
from podctl.sys.results import describe_error, read_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHUNK = 1 << 14
_SIZE = 8  # bytes of struct winsize
_PASSED_ON = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


def run_on_terminal(function: Callable[[], object], *, with_input: bool, session: bool) -> int:
    """Call `function` in a child that has a new terminal as 0, 1 and 2; it should become something
    else. Returns its exit code.

    Args:
        with_input: whether what is typed here reaches it.
        session: whether the terminal becomes the child's controlling one; what begins a session of
            its own takes it itself.

    Raises:
        PodctlError: what `function` raised.
    """
    flush_streams()
    failure, failure_end = os.pipe2(os.O_CLOEXEC)
    controller, side = os.openpty()
    for fd in (controller, side):
        os.set_inheritable(fd, False)
    _copy_size(controller)
    child = os.fork()
    if child == 0:
        _become(function, controller, side, failure_end, session=session)
    os.close(side)
    os.close(failure_end)
    with raw_terminal(with_input):
        _relay(controller, child, with_input=with_input)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    error = read_error(failure, "the command")
    if error is not None:
        raise error
    return code if code >= 0 else 128 - code


def _become(
    function: Callable[[], object], controller: int, side: int, failure: int, *, session: bool
) -> NoReturn:
    try:
        os.close(controller)
        os.setsid()
        if session:
            fcntl.ioctl(side, termios.TIOCSCTTY, 0)
        for number in range(3):
            os.dup2(side, number, inheritable=True)
        function()
    except BaseException as error:
        os.write(failure, describe_error(error))
    finally:
        os._exit(254)


@contextmanager
def raw_terminal(wanted: bool) -> Iterator[None]:
    """Our terminal, if there is one and it is `wanted`, passes every key on while this lasts."""
    if not wanted or not os.isatty(0):
        yield
        return
    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSANOW)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def terminal_size() -> bytes | None:
    """Our terminal's struct winsize; None where there is no terminal."""
    for fd in (0, 1, 2):
        try:
            return fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * _SIZE)
        except OSError:
            continue
    return None


def _copy_size(controller: int) -> None:
    size = terminal_size()
    if size is not None:
        fcntl.ioctl(controller, termios.TIOCSWINSZ, size)


def _relay(controller: int, child: int, *, with_input: bool) -> None:
    """Until the child has ended and what it wrote is read."""
    signal.signal(signal.SIGWINCH, lambda _number, _frame: _copy_size(controller))
    for number in _PASSED_ON:
        signal.signal(number, lambda received, _frame: os.kill(child, received))
    pidfd = os.pidfd_open(child)
    poll = select.poll()
    poll.register(controller, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    if with_input:
        poll.register(0, select.POLLIN)
    ended = False
    while True:
        found = dict(poll.poll(0 if ended else None))
        if controller in found and not _pass_on(controller, 1):
            return
        if 0 in found and not _pass_on(0, controller):
            poll.unregister(0)
        if ended and controller not in found:
            # Something it left in the background still has the terminal.
            return
        ended = ended or pidfd in found


def _pass_on(source: int, target: int) -> bool:
    """False at the end."""
    try:
        data = os.read(source, _CHUNK)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return False
    if data:
        write_all(target, data)
    return bool(data)
