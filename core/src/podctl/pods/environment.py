"""What an app finds in its environment.

From lowest to highest: inherited, image, --set-env-file, --set-env, --environment; below all of
them the variables every app may count on, above all what podctl says of itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from podctl.model.plan import LOGIN_VARIABLES

if TYPE_CHECKING:
    from collections.abc import Mapping

#: appc OS-SPEC, and what rkt added
DEFAULTS = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "SHELL": "/bin/sh",
    "USER": "root",
    "LOGNAME": "root",
    "HOME": "/root",
}
EXECUTOR = "podctl"


class EnvironmentSettings(NamedTuple):
    """What the command line says for all apps of a pod.

    Args:
        inherited: the caller's environment if --inherit-env was given.
        file: --set-env-file.
        given: --set-env.
    """

    inherited: Mapping[str, str]
    file: Mapping[str, str]
    given: Mapping[str, str]


def merge(
    settings: EnvironmentSettings, image: Mapping[str, str], own: Mapping[str, str]
) -> dict[str, str]:
    """The environment of one app's section in the pod manifest; `own` is its --environment."""
    from podctl.model.names import is_environment_name

    inherited = {
        name: value
        for name, value in settings.inherited.items()
        # A shell exports functions under names no manifest may hold.
        if is_environment_name(name) and _is_text(value)
    }
    return {**inherited, **image, **settings.file, **settings.given, **own}


def _is_text(value: str) -> bool:
    """Whether a value can be written down in a manifest: bytes that are not UTF-8 cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def effective(
    app_name: str, section: Mapping[str, str], *, terminal: str | None, login: bool = False
) -> dict[str, str]:
    """The environment the app is executed with.

    Args:
        section: environment of its app section.
        terminal: TERM of the caller, for an interactive app that sets none.
        login: HOME, LOGNAME and USER are its user's, found when it starts, instead of root's.
    """
    defaults = DEFAULTS
    if login:
        defaults = {name: DEFAULTS[name] for name in DEFAULTS if name not in LOGIN_VARIABLES}
    environment = {**defaults, **section}
    if terminal is not None:
        environment.setdefault("TERM", terminal)
    return {**environment, "AC_APP_NAME": app_name, "container": EXECUTOR}
