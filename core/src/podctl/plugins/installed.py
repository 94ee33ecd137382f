"""What the installed distributions say: the one importer of importlib.metadata and stevedore."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from podctl.plugins.families import BY_GROUP
from podctl.plugins.provider import Provider

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def scan() -> list[Provider]:
    """All entry points of podctl's groups, sorted; nothing is imported.

    Of a distribution that is found twice on sys.path only the first counts.
    """
    from importlib.metadata import entry_points

    found = entry_points()
    providers = {_provider(entry) for group in BY_GROUP for entry in found.select(group=group)}
    return sorted(providers)


def _provider(entry: EntryPoint) -> Provider:
    distribution = entry.dist
    return Provider(
        group=entry.group,
        name=entry.name,
        module=entry.module,
        attribute=entry.attr,
        distribution=distribution.name if distribution else "an unknown distribution",
        version=distribution.version if distribution else "?",
    )


def fingerprint() -> str:
    """A text that changes when the result of `scan` may change.

    It holds the interpreter, every entry of sys.path, and in each the names of the installed
    distributions with size and modification time of their entry points.
    """
    parts = [sys.prefix, sys.version, *BY_GROUP]
    for directory in sys.path:
        parts.append(directory)
        try:
            entries = os.scandir(directory or ".")
        except OSError:
            continue
        with entries:
            parts += sorted(
                _distribution_state(entry.path)
                for entry in entries
                if entry.name.endswith((".dist-info", ".egg-info"))
            )
    return "\n".join(parts)


def _distribution_state(path: str) -> str:
    try:
        state = os.stat(f"{path}/entry_points.txt")
    except OSError:
        return path
    return f"{path} {state.st_mtime_ns} {state.st_size}"


def load_through_stevedore(provider: Provider) -> object:
    """Import a provider by name with stevedore's driver semantics.

    Raises:
        Exception: whatever the import raised, unchanged.
    """
    _refuse_stevedore_cache()
    from stevedore.driver import DriverManager

    failures: list[BaseException] = []
    try:
        manager: DriverManager[object] = DriverManager(
            provider.group,
            provider.name,
            invoke_on_load=False,
            on_load_failure_callback=lambda _manager, _entry, error: failures.append(error),
        )
    except Exception:
        # A driver that could not be imported counts as none for stevedore; say why instead.
        if failures:
            raise failures[0] from None
        raise
    if manager.extensions[0].entry_point_target != provider.target:
        raise LookupError(
            f"stevedore found {manager.extensions[0].entry_point_target} under this name"
        )
    return manager.driver


def _refuse_stevedore_cache() -> None:
    """Import stevedore so that it neither reads nor writes a cache of its own.

    It believes what stands in $XDG_CACHE_HOME/python-entrypoints, which belongs to the caller.
    The directory is chosen, and `.disable` looked for, once, while stevedore is imported.
    """
    name = "XDG_CACHE_HOME"
    kept = os.environ.get(name)
    os.environ[name] = os.path.join(os.path.dirname(__file__), "nocache")
    try:
        import stevedore  # noqa: F401  (imported for the cache object it makes)
    finally:
        if kept is None:
            del os.environ[name]
        else:
            os.environ[name] = kept
