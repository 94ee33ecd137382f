"""Credential helpers: programs `docker-credential-NAME` that keep passwords
(docker/docker-credential-helpers; `get` reads a server's URL and answers with JSON).

They run before anything from outside is read, with the caller's rights, in a clean environment and
for a limited time. What they print to standard error is lost: it may hold a secret.
"""

from __future__ import annotations

import os
import select
import signal
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from podctl.errors import ManifestInvalid, UsageError
from podctl.model import jsontext
from podctl.model.fields import Fields
from podctl_fetch_docker.secret import Secret
from podctl_fetch_docker.trusted import is_roots_alone

if TYPE_CHECKING:
    from subprocess import Popen

    from podctl_fetch_docker.trusted import Surroundings

#: seconds: it may ask a person to unlock a keyring.
DEADLINE = 60.0
MAX_OUTPUT = 64 << 10
#: what a helper may know of our environment, beside where programs are.
_PASSED = (
    "DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "GNUPGHOME", "HOME", "LOGNAME", "PASSWORD_STORE_DIR",
    "USER", "WAYLAND_DISPLAY", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR",
)  # fmt: skip
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOT_FOUND = b"credentials not found"
#: the user name of who has a token instead of a password
_TOKEN_USER = "<token>"


def is_helper_name(name: str) -> bool:
    """Whether `name` can stand in `docker-credential-NAME` and mean a program of that name."""
    plain = name.replace("-", "a").replace("_", "a").replace(".", "a")
    return len(name) <= 64 and plain.isascii() and plain.isalnum() and name[0].isalnum()


def ask_helper(
    name: str, server: str, around: Surroundings, deadline: float = DEADLINE
) -> Secret | None:
    """Ask a helper for the credentials of a server; None where it has none.

    Args:
        server: as the helper knows it, a URL or host[:port].
        deadline: seconds it may take.

    Raises:
        UsageError: there is no such helper, or it failed; what it said is not repeated.
    """
    program = f"docker-credential-{name}"
    if not is_helper_name(name):
        raise UsageError(f"credential helper {name[:64]!r} is no name of a program")
    path = _find(program, around)
    if path is None:
        where = "a directory of root's in $PATH" if around.uid == 0 else "$PATH"
        raise UsageError(f"credential helper {program} is not in {where}")
    code, output = _run(path, server, around, deadline)
    if code != 0:
        if _NOT_FOUND in output.lower():
            return None
        raise UsageError(f"credential helper {program} failed with exit code {code}")
    return _parsed(output, program)


def _find(program: str, around: Surroundings) -> str | None:
    """Where the program is. For root, only what nobody else could have put there."""
    for directory in around.environment.get("PATH", _SYSTEM_PATH).split(":"):
        path = f"{directory}/{program}"
        if not directory.startswith("/") or not os.access(path, os.X_OK):
            continue
        if not stat.S_ISREG(os.stat(path).st_mode):
            continue
        if around.uid == 0 and not (is_roots_alone(directory) and is_roots_alone(path)):
            continue
        return path
    return None


def _run(path: str, server: str, around: Surroundings, deadline: float) -> tuple[int, bytes]:
    import subprocess

    search = around.environment.get("PATH", _SYSTEM_PATH) if around.uid else _SYSTEM_PATH
    passed = {name: around.environment[name] for name in _PASSED if name in around.environment}
    with subprocess.Popen(
        [path, "get"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**passed, "PATH": search, "LC_ALL": "C.UTF-8"},
        cwd="/",
        start_new_session=True,
    ) as process:
        try:
            output = _converse(process, server.encode(), time.monotonic() + deadline)
        except TimeoutError:
            raise UsageError(
                f"credential helper {os.path.basename(path)} took longer than {deadline:g} s"
            ) from None
        finally:
            # Before it is reaped, so that the number is still its own; what it started goes too.
            os.killpg(process.pid, signal.SIGKILL)
        return process.wait(), output


def _converse(process: Popen[bytes], server: bytes, until: float) -> bytes:
    """Send the question, read the answer, and see the helper end.

    Raises:
        TimeoutError: it has not by then.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        # Shorter than what a pipe holds, so that it cannot block.
        process.stdin.write(server + b"\n")
        process.stdin.close()
    output = b""
    while True:
        _await(process.stdout.fileno(), until)
        data = os.read(process.stdout.fileno(), MAX_OUTPUT)
        if not data:
            break
        output += data
        if len(output) > MAX_OUTPUT:
            raise UsageError(f"credential helper prints more than {MAX_OUTPUT} bytes")
    with open(os.pidfd_open(process.pid), "rb", buffering=0) as ended:
        _await(ended.fileno(), until)
    return output


def _await(fd: int, until: float) -> None:
    left = until - time.monotonic()
    if left <= 0 or not select.select([fd], [], [], left)[0]:
        raise TimeoutError


def _parsed(output: bytes, program: str) -> Secret:
    try:
        fields = Fields(jsontext.loads(output, what=program), program, "ServerURL Username Secret")
        user, secret = fields.need("Username", str), fields.need("Secret", str)
    except ManifestInvalid:
        # Its message could quote what should stay secret.
        raise UsageError(f"credential helper {program} printed no credentials") from None
    if user == _TOKEN_USER:
        return Secret(program, identity_token=secret)
    return Secret(program, user, secret)
