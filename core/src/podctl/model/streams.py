"""Where an app's standard streams lead, as --stdin, --stdout and --stderr say."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import InvalidInput
from podctl.model.conversion import STREAMS

if TYPE_CHECKING:
    from collections.abc import Mapping

MODES = {
    "stdin": ("null", "tty", "stream"),
    "stdout": ("null", "log", "tty", "stream"),
    "stderr": ("null", "log", "tty", "stream"),
}
TERMINAL = "tty"


class Streams(NamedTuple):
    """What each stream of an app is.

    Args:
        stdin, stdout, stderr: `null`; `log`, the pod's own; `tty`, a terminal of the app's;
            `stream`, a pipe. Who attaches to the app reaches the latter two.
    """

    stdin: str = "null"
    stdout: str = "log"
    stderr: str = "log"

    @property
    def targets(self) -> tuple[str, ...]:
        """What can be attached to: `tty`, or names of streams."""
        if TERMINAL in self:
            return (TERMINAL,)
        return tuple(name for name, mode in self._asdict().items() if mode == "stream")

    def annotations(self) -> dict[str, str]:
        """As a pod manifest has them; what is the default is left out."""
        given = zip(self._fields, self, DEFAULT, strict=True)
        return {STREAMS + name: mode for name, mode, default in given if mode != default}

    def check(self) -> Streams:
        """Itself. Raises InvalidInput when a terminal comes with pipes (rkt's rule)."""
        if TERMINAL in self and "stream" in self:
            raise InvalidInput("an app has either a tty or streams to attach to, not both")
        return self


DEFAULT = Streams()


def streams_of(annotations: Mapping[str, str]) -> Streams:
    """The streams of an app with these annotations.

    Raises:
        InvalidInput: one is of no known mode, or they exclude each other.
    """
    for name, mode in annotations.items():
        modes = MODES.get(name.removeprefix(STREAMS), ())
        if name.startswith(STREAMS) and mode not in modes:
            known = ", ".join(modes) or "no known one"
            raise InvalidInput(f"annotation {name}: {mode!r} must be one of: {known}")
    found = {name: annotations.get(STREAMS + name) for name in MODES}
    return Streams(**{name: mode for name, mode in found.items() if mode is not None}).check()
