"""What every command shares: the global flags, and what they lead to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from podctl.cli.options import OptionalValue
from podctl.cli.output import say
from podctl.errors import Refused, UsageError

if TYPE_CHECKING:
    from podctl.config import Config
    from podctl.store import Store

_FETCH = frozenset({"image", "tls", "http", "pubkey"})
_RUN = frozenset({"capabilities", "paths", "seccomp"})
INSECURE_OPTIONS: dict[str, frozenset[str]] = {
    "none": frozenset(),
    **{name: frozenset({name}) for name in sorted(_FETCH | _RUN | {"ondisk"})},
    "all-fetch": _FETCH,
    "all-run": _RUN,
    "all": _FETCH | _RUN | {"ondisk"},
}


class Globals:
    """The global flags of one invocation; click's `obj`.

    Attributes:
        command: the command's name for messages, `image rm` for a sub-command.
        debug: --debug.
        dir: --dir as given, None without.
        system_config, local_config, user_config: configuration directories; the last may be "".
        insecure: values of --insecure-options, the `all...` ones resolved.
        trust_keys_from_https: --trust-keys-from-https.
    """

    __slots__ = (
        "_config",
        "command",
        "debug",
        "dir",
        "insecure",
        "local_config",
        "system_config",
        "trust_keys_from_https",
        "user_config",
    )

    def __init__(self) -> None:
        self.command = "podctl"
        self.debug = False
        self.dir: str | None = None
        self.system_config = "/usr/lib/podctl"
        self.local_config = "/etc/podctl"
        self.user_config = ""
        self.insecure: frozenset[str] = frozenset()
        self.trust_keys_from_https = False
        self._config: Config | None = None

    def config(self) -> Config:
        """The effective configuration, read once.

        Raises:
            ManifestInvalid, UsageError: a configuration file breaks its rules.
        """
        if self._config is None:
            from podctl.config import load

            self._config = load(self.system_config, self.local_config, self.user_config, self.warn)
        return self._config

    def warn(self, text: str) -> None:
        """Print one message line of the running command."""
        say(self.command, text)

    @property
    def data_dir(self) -> str:
        """Absolute path of the data directory: --dir, else configured, else /var/lib/podctl."""
        if self.dir is not None:
            return os.path.abspath(self.dir)
        return self.config().data_dir

    def store(self) -> Store:
        """The image store below the data directory."""
        from podctl.store import Store

        return Store(self.data_dir)

    def require_root(self) -> None:
        """Stop at once when the command cannot work without root.

        Raises:
            Refused: the effective user is not root.
        """
        if os.geteuid() != 0:
            raise Refused("cannot run as unprivileged user", hint="run it as root")


def parse_insecure(text: str) -> frozenset[str]:
    """Read a comma list of --insecure-options values.

    Raises:
        UsageError: a value is unknown.
    """
    found: frozenset[str] = frozenset()
    for name in filter(None, text.split(",")):
        if name not in INSECURE_OPTIONS:
            known = ", ".join(INSECURE_OPTIONS)
            raise UsageError(
                f'--insecure-options: unknown value "{name}"', hint=f"known values: {known}"
            )
        found |= INSECURE_OPTIONS[name]
    return found


def _remember(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Store a global flag where it was given: before the command, after it, or not at all."""
    name = str(parameter.name)
    if ctx.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE:
        return
    options = ctx.ensure_object(Globals)
    if name == "insecure":
        for text in value:
            options.insecure = options.insecure | parse_insecure(text)
    else:
        setattr(options, name, value)


def _global_flag(name: str, text: str) -> click.Option:
    return OptionalValue(
        [name], bare="true", type=click.BOOL, help=text, callback=_remember, expose_value=False
    )


def _global_option(
    names: list[str], metavar: str, text: str, *, multiple: bool = False
) -> click.Option:
    return click.Option(
        names,
        metavar=metavar,
        help=text,
        callback=_remember,
        expose_value=False,
        multiple=multiple,
    )


def global_options() -> list[click.Option]:
    """The flags every command accepts, as fresh click options that write to `Globals`."""
    return [
        _global_flag("--debug", "Say more on stderr, with tracebacks."),
        _global_option(["--dir"], "DIR", "Data directory (default /var/lib/podctl)."),
        _global_option(["--system-config"], "DIR", "System configuration (/usr/lib/podctl)."),
        _global_option(["--local-config"], "DIR", "Local configuration (/etc/podctl)."),
        _global_option(["--user-config"], "DIR", "User configuration (none)."),
        _global_option(
            ["--insecure-options", "insecure"],
            "LIST",
            f"Comma list: {', '.join(INSECURE_OPTIONS)}.",
            multiple=True,
        ),
        _global_flag("--trust-keys-from-https", "Trust keys discovered over https without asking."),
    ]
