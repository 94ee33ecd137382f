"""Whether each installed provider works, found out where it can do no harm.

Every provider is imported and validated in a child of its own, with a time limit: one that hangs,
exits, prints or starts processes spoils only its own line.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import PluginConflict, PodctlError
from podctl.plugins.discovery import refuse_conflict
from podctl.plugins.families import BY_GROUP, FORMAT, STAGE1

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podctl.plugins.discovery import Installed
    from podctl.plugins.provider import Provider
    from podctl.sys.child import Child

#: Seconds all providers together may take; they are loaded side by side.
LIMIT = 10.0

_MAX_ANSWER = 1 << 16


class State(NamedTuple):
    """One provider's health.

    Args:
        provider: which one.
        state: `ok`, `broken` or `conflict`.
        reason: one line, empty when it works.
        lacks: what a stage1 flavor says this host lacks.
    """

    provider: Provider
    state: str
    reason: str = ""
    lacks: tuple[str, ...] = ()


def probe(installed: Installed, limit: float = LIMIT) -> list[State]:
    """The state of every installed provider, in the order of family and name."""
    probes = [_Probe(provider, installed) for provider in installed.providers]
    try:
        _wait(probes, limit)
        states = [probe.state(limit) for probe in probes]
    finally:
        for one in probes:
            one.end()
    order = list(BY_GROUP)
    return sorted(states, key=lambda state: (order.index(state.provider.group), state.provider))


class _Probe:
    """One provider being loaded in a child; contested ones are not loaded at all."""

    def __init__(self, provider: Provider, installed: Installed) -> None:
        self.provider = provider
        self.child: Child | None = None
        self.finished = False
        self._answer = -1
        self.conflict = _conflict(provider, installed.providers)
        if self.conflict is None:
            self._start(installed.indexed)

    def _start(self, indexed: bool) -> None:
        from podctl.sys.child import Privileges, spawn

        # The result pipe alone will not do: what the provider started may hold it open.
        self._answer = os.memfd_create("podctl-probe", os.MFD_CLOEXEC)
        self.child = spawn(
            lambda: _load_and_answer(self.provider, self._answer, indexed=indexed),
            privileges=Privileges.SAME,
            keep=[self._answer],
            name=str(self.provider),
        )

    def end(self) -> None:
        """Kill the child and all it started."""
        if self.child is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.child.pid, 9)
            self.child.kill()
            self.child = None
        if self._answer != -1:
            os.close(self._answer)
            self._answer = -1

    def state(self, limit: float) -> State:
        """What the child said, or what its silence means."""
        if self.conflict is not None:
            return State(self.provider, "conflict", self.conflict)
        if not self.finished:
            return State(self.provider, "broken", f"did not load within {limit:g} seconds")
        try:
            return self._read()
        except (ValueError, TypeError, KeyError):
            return State(self.provider, "broken", "ended the process while it was loaded")

    def _read(self) -> State:
        import json

        answer = json.loads(os.pread(self._answer, _MAX_ANSWER, 0))
        lacks = tuple(str(line) for line in answer["lacks"])
        return State(self.provider, str(answer["state"]), str(answer["reason"]), lacks)


def _conflict(provider: Provider, others: Sequence[Provider]) -> str | None:
    try:
        refuse_conflict([other for other in others if other[:2] == provider[:2]])
    except PluginConflict as conflict:
        return str(conflict)
    return None


def _wait(probes: list[_Probe], limit: float) -> None:
    """Wait until every child has answered or died, at most `limit` seconds."""
    import select
    import time

    poll = select.poll()
    waiting = {}
    for one in probes:
        if one.child is not None:
            poll.register(one.child, select.POLLIN)
            waiting[one.child.fileno()] = one
    deadline = time.monotonic() + limit
    while waiting:
        left = deadline - time.monotonic()
        if left <= 0:
            return
        for fd, _ in poll.poll(left * 1000):
            poll.unregister(fd)
            waiting.pop(fd).finished = True


def _load_and_answer(provider: Provider, answer: int, *, indexed: bool) -> None:
    """In the child: load, ask what is asked without a pod or an image, write the answer."""
    import json

    # A session of its own, so that what the provider starts can be found and killed.
    os.setsid()
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    result: dict[str, object] = {"state": "ok", "reason": "", "lacks": ()}
    try:
        result["lacks"] = _examine(provider, indexed=indexed)
    except PodctlError as error:
        result.update(state="broken", reason=error.message.removeprefix(f"{provider} "))
    os.pwrite(answer, json.dumps(result).encode()[:_MAX_ANSWER], 0)


def _examine(provider: Provider, *, indexed: bool) -> tuple[str, ...]:
    from podctl.plugins.handles import FlavorHandle, FormatHandle
    from podctl.plugins.loading import load

    manager = load(provider, indexed=indexed)
    if provider.group == STAGE1.group:
        flavor = FlavorHandle(provider, manager)
        flavor.describe()
        return flavor.check_host()
    if provider.group == FORMAT.group:
        FormatHandle(provider, manager).layout()
    return ()
