"""A systemd unit for a pod, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: exit code of podctl where nothing of the pod has run (exit-codes-and-messages)
_REFUSED = 254
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@+=:,./_-")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "%": "%%", "$": "$$", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


class Unit(NamedTuple):
    """What a unit says.

    Args:
        description: one line.
        start: program (an absolute path) and arguments of the main process.
        after_stop: the same of what is run once it has ended; empty for nothing.
        notifies: whether the main process tells when it is ready.
        hears_apps: whether apps of the pod may tell.
        restart: value of Restart=.
        stop_seconds: after which systemd kills what has not ended.
        slice: the slice it is in.
        memory: value of MemoryMax=.
        cpu_percent: of one processor.
        tasks: processes and threads.
    """

    description: str
    start: tuple[str, ...]
    after_stop: tuple[str, ...] = ()
    notifies: bool = True
    hears_apps: bool = False
    restart: str = "on-failure"
    stop_seconds: int = 15
    slice: str = "machine.slice"
    memory: str | None = None
    cpu_percent: int | None = None
    tasks: int | None = None

    def text(self) -> str:
        """The file.

        Raises:
            UsageError: an argument cannot stand in a unit.
        """
        lines = [
            "# Written by podctl generate-unit.",
            "[Unit]",
            f"Description={_escaped(self.description).replace('$$', '$')}",
            "Wants=network-online.target",
            "After=network-online.target",
            "",
            "[Service]",
            f"Type={'notify' if self.notifies else 'exec'}",
            *(["NotifyAccess=all"] if self.hears_apps else []),
            f"ExecStart={command_line(self.start)}",
            *([f"ExecStopPost=-{command_line(self.after_stop)}"] if self.after_stop else []),
            "# The signal goes to the pod, which stops its apps by theirs.",
            "KillMode=mixed",
            f"TimeoutStopSec={self.stop_seconds}",
            f"Restart={self.restart}",
            "# The pod was refused: it would be again.",
            f"RestartPreventExitStatus={_REFUSED}",
            "# Its control groups, with the limits of its apps, are made inside the unit's.",
            "Delegate=yes",
            f"Slice={self.slice}",
            *self._limits(),
            "",
            "[Install]",
            "WantedBy=multi-user.target",
        ]
        return "\n".join(lines) + "\n"

    def _limits(self) -> list[str]:
        found = []
        if self.memory is not None:
            found.append(f"MemoryMax={self.memory}")
        if self.cpu_percent is not None:
            found.append(f"CPUQuota={self.cpu_percent}%")
        if self.tasks is not None:
            found.append(f"TasksMax={self.tasks}")
        return found


def command_line(words: Sequence[str]) -> str:
    """A command as ExecStart= has it (systemd.service(5), "Command lines").

    Every word but a Raw one reaches the program as it is.

    Raises:
        UsageError: a word holds what no unit can hold.
    """
    return " ".join(word.raw if isinstance(word, Raw) else _quoted(word) for word in words)


class Raw(str):
    """A word with specifiers of systemd's (systemd.unit(5)) that are to be resolved."""

    __slots__ = ()

    @property
    def raw(self) -> str:
        """The word as it is written."""
        return str(self)


def _quoted(word: str) -> str:
    escaped = _escaped(word)
    return escaped if word and _PLAIN.issuperset(word) else f'"{escaped}"'


def _escaped(text: str) -> str:
    if any(not char.isprintable() and char not in _ESCAPES for char in text):
        shown = ascii(text)
        raise UsageError(f"{shown} cannot stand in a unit", hint="leave control characters out")
    return "".join(_ESCAPES.get(char, char) for char in text)
