"""Importing one provider, validating it against its spec, and calling it, each contained.

Whatever a provider does wrong ends as PluginBroken that names distribution, version and entry
point. `PodctlError` passes: that is how a provider refuses.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from podctl.errors import PluginBroken, PodctlError
from podctl.plugins.families import BY_GROUP

if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Any

    import pluggy

    from podctl.plugins.provider import Provider

#: Seconds a provider may take to be imported.
LOAD_LIMIT = 30.0


class _LoadTimeout(BaseException):
    """The import took too long. Not an Exception: a provider's own handlers must not see it."""


class Contained:
    """Run a provider's code: its failures become PluginBroken, its prints leave stdout alone.

    Args:
        provider: whom to blame.
        doing: what it was asked for, e.g. `failed to import`.
    """

    __slots__ = ("_doing", "_provider", "_stdout")

    def __init__(self, provider: Provider, doing: str) -> None:
        self._provider = provider
        self._doing = doing

    def __enter__(self) -> None:
        # stdout carries podctl's results only.
        self._stdout = sys.stdout
        sys.stdout = sys.stderr

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        sys.stdout = self._stdout
        if error is None or isinstance(error, PodctlError | KeyboardInterrupt):
            return
        raise PluginBroken(
            f"{self._provider} {self._doing}: {_describe(error)}",
            hint=f"update or remove {self._provider.distribution}, or tell its author",
        ) from error


def _describe(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it tried to exit with {error.code!r}"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def load(provider: Provider, *, indexed: bool, limit: float = LOAD_LIMIT) -> pluggy.PluginManager:
    """Import a provider and check it against its family's spec.

    Returns:
        A plugin manager with this provider alone, ready to be called.

    Raises:
        PluginBroken: the import fails, exits or takes longer than `limit` seconds, or the
            provider has an unknown hook or argument, or no hook at all.
    """
    with Contained(provider, "failed to load"), _TimeLimit(limit):
        instance = _import(provider) if indexed else _ask_stevedore(provider)
    return _register(provider, instance)


def _import(provider: Provider) -> object:
    from importlib import import_module

    found: object = import_module(provider.module)
    for name in filter(None, provider.attribute.split(".")):
        found = getattr(found, name)
    return found


def _ask_stevedore(provider: Provider) -> object:
    from podctl.plugins.installed import load_through_stevedore

    return load_through_stevedore(provider)


def _register(provider: Provider, instance: object) -> pluggy.PluginManager:
    import pluggy

    from podctl.api import hookspecs

    with Contained(provider, "does not fit its hook specs"):
        manager = pluggy.PluginManager("podctl")
        spec = BY_GROUP[provider.group].spec
        manager.add_hookspecs(getattr(hookspecs, str(spec)))
        if isinstance(instance, type):
            raise TypeError(f"{provider.target} is a class, an instance is expected")
        manager.register(instance, name=provider.name)
        manager.check_pending()
        if not manager.get_hookcallers(instance):
            raise TypeError(f"{provider.target} implements no hook of {spec}")
    return manager


class _TimeLimit:
    """Interrupt the block after some seconds; without effect outside of the main thread."""

    __slots__ = ("_active", "_limit", "_previous")

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._active = False

    def __enter__(self) -> None:
        import signal

        try:
            self._previous: Any = signal.signal(signal.SIGALRM, self._expire)
        except ValueError:
            # Only the main thread may set a handler.
            return
        self._active = True
        # Again and again: a bare `except:` in the provider swallows the first.
        signal.setitimer(signal.ITIMER_REAL, self._limit, 1.0)

    def __exit__(self, *_: object) -> None:
        import signal

        if self._active:
            # A timer would survive execve and kill the app.
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._previous)

    def _expire(self, number: int, frame: FrameType | None) -> None:
        raise _LoadTimeout(f"not done after {self._limit:g} seconds")
