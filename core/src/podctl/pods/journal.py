"""The output of pods that went to the host's journal, by way of journalctl(1)."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from podctl.errors import HostLacks, PodctlError
from podctl.pods.logs import Record, Wanted
from podctl.sys.logfiles import stamp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podctl.pods.directories import Pod

_COMMAND = ("journalctl", "--quiet", "--no-pager", "--output=json", "--all")
_FIELDS = "MESSAGE,PRIORITY,__REALTIME_TIMESTAMP"
#: a priority of syslog up to which a message came from standard error
_ERROR = 3


def identifier(uuid: str, app: str) -> str:
    """SYSLOG_IDENTIFIER of an app's output."""
    return f"podctl-{uuid}/{app}"


def read_journal(pod: Pod, wanted: Wanted) -> Iterator[Record]:
    """The output of a pod, in order.

    Raises:
        HostLacks: there is no journalctl.
        PodctlError: it failed.
    """
    from podctl.pods.logs import apps_of

    line = [*_COMMAND, f"--output-fields={_FIELDS}"]
    if wanted.since:
        line.append(f"--since={wanted.since[:19].decode().replace('T', ' ')} UTC")
    if wanted.tail is not None:
        line.append(f"--lines={wanted.tail}")
    elif wanted.follow:
        line.append("--no-tail")
    if wanted.follow:
        line.append("--follow")
    line += [f"SYSLOG_IDENTIFIER={identifier(pod.uuid, app)}" for app in apps_of(pod, wanted.app)]
    return _records(line, wanted.since)


def _records(line: list[str], since: bytes) -> Iterator[Record]:
    try:
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    except FileNotFoundError:
        raise HostLacks("there is no journalctl to read the journal with") from None
    assert process.stdout is not None
    with process:
        try:
            for text in process.stdout:
                record = _record(text)
                if record.when >= since:
                    yield record
        finally:
            process.terminate()
    if process.returncode > 0:
        raise PodctlError(f"journalctl failed with exit code {process.returncode}")


def _record(text: bytes) -> Record:
    entry = json.loads(text)
    message = entry.get("MESSAGE") or ""
    # What is no UTF-8 comes as a list of numbers.
    data = bytes(message) if isinstance(message, list) else str(message).encode()
    stream = b"stderr" if int(entry.get("PRIORITY", 6)) <= _ERROR else b"stdout"
    return Record(stamp(int(entry["__REALTIME_TIMESTAMP"]) * 1000), stream, True, data)
