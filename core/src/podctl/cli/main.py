"""The command table and how a command line reaches its command.

The table is static: listing, help and prefix matching import no command. A command's module is
imported when that command is called.
"""

from __future__ import annotations

import os
from typing import Any

import click

from podctl.cli.context import Globals, global_options
from podctl.cli.options import normalise
from podctl.cli.report import FAILED, INTERRUPTED, report

#: name -> (module below podctl.cli, one line of help)
COMMANDS: dict[str, tuple[str, str]] = {
    "fetch": ("fetch", "Fetch images into the store and verify them"),
    "image": ("", "Look at and manage the images of the store"),
    "trust": ("trust", "Trust a public key for images with a name prefix"),
    "run": ("run", "Run images as a pod"),
    "prepare": ("prepare", "Prepare a pod to be run later"),
    "run-prepared": ("run_prepared", "Run a prepared pod"),
    "list": ("list", "List pods"),
    "ps": ("ps", "List running pods, docker's columns"),
    "inspect": ("inspect", "Print all that is known of a pod or an image"),
    "status": ("status", "Show the state of a pod, or wait for it"),
    "logs": ("logs", "Print the output of a detached pod"),
    "wait": ("wait", "Wait for the end of pods, print their exit codes"),
    "stop": ("stop", "Stop running pods"),
    "kill": ("kill", "Send a signal to the apps of a pod"),
    "rm": ("rm", "Remove pods that do not run"),
    "gc": ("gc", "Remove exited pods and abandoned preparations"),
    "top": ("top", "List the processes of a pod"),
    "stats": ("stats", "Show what pods use"),
    "enter": ("enter", "Run a command inside a running pod"),
    "attach": ("attach", "Connect to the terminal or the streams of an app"),
    "exec": ("exec", "Run a command inside a running pod, as docker's exec"),
    "cp": ("cp", "Copy files out of a pod or into it"),
    "app": ("", "Change the apps of a running pod"),
    "cat-manifest": ("cat_manifest", "Print the manifest of a pod"),
    "export": ("export", "Write an exited pod's app as an image file"),
    "generate-unit": ("generate_unit", "Print a systemd unit that runs a pod"),
    "config": ("config", "Print the effective configuration"),
    "plugins": ("plugins", "List plugins and whether they work"),
    "doctor": ("doctor", "Say what this host lacks and what that disables"),
    "fsck": ("fsck", "Check the store and the pods, and repair them"),
    "setup-data-dir": ("setup_data_dir", "Create groups, data and configuration directories"),
    "completion": ("completion", "Print a completion script for a shell"),
    "version": ("version", "Print versions"),
    "help": ("", "Show help for a command"),
}

IMAGE_COMMANDS: dict[str, tuple[str, str]] = {
    "list": ("image_list", "List images"),
    "rm": ("image_rm", "Remove images"),
    "gc": ("image_gc", "Remove images and trees nobody uses"),
    "verify": ("image_verify", "Check stored images for flipped bytes"),
    "export": ("image_export", "Write a stored image as a file"),
    "extract": ("image_extract", "Unpack an image without its dependencies"),
    "render": ("image_render", "Unpack an image with its dependencies"),
    "cat-manifest": ("image_cat_manifest", "Print the manifest of an image"),
}


#: commands that rkt has
_OF_RKT = frozenset({
    "app", "attach", "cat-manifest", "completion", "config", "enter", "export", "fetch", "gc",
    "help", "image", "list", "prepare", "rm", "run", "run-prepared", "status", "stop", "trust",
    "version",
})  # fmt: skip


APP_COMMANDS: dict[str, tuple[str, str]] = {
    "sandbox": ("app_sandbox", "Run a pod without apps, to which they are added"),
    "add": ("app_add", "Add an app to a running pod"),
    "start": ("app_start", "Start an app, also once more"),
    "stop": ("app_stop", "Stop an app"),
    "rm": ("app_rm", "Remove an app from a pod"),
    "list": ("app_list", "List the apps of a pod"),
    "status": ("app_status", "Show the state of an app"),
    "exec": ("app_exec", "Run a command inside an app"),
}
#: command -> the table of its own commands
GROUPS = {"image": IMAGE_COMMANDS, "app": APP_COMMANDS}


class LazyGroup(click.Group):
    """A group whose commands stand in a table and are imported when called."""

    def __init__(self, table: dict[str, tuple[str, str]], **settings: Any) -> None:
        super().__init__(
            invoke_without_command=True,
            callback=_show_help_when_alone,
            context_settings={"help_option_names": ["-h", "--help"]},
            subcommand_metavar="COMMAND [ARGUMENTS]...",
            **settings,
        )
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the table, in its order."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command called exactly `cmd_name`."""
        if cmd_name not in self.table:
            return None
        module, summary = self.table[cmd_name]
        if not module and cmd_name in GROUPS:
            table = GROUPS[cmd_name]
            return LazyGroup(table, name=cmd_name, help=f"{summary}.", params=_hidden_globals())
        if cmd_name == "help":
            return _help_command()
        from importlib import import_module

        command: click.Command = import_module(f"podctl.cli.{module}").command
        command.name = cmd_name
        if not any(option.name == "insecure" for option in command.params):
            # Global flags are accepted after the command too; its own help stays about itself.
            command.params += _hidden_globals()
            command.epilog = command.epilog or "Global options: see 'podctl help'."
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options before the sub-command."""
        return super().parse_args(ctx, normalise(self.params, args, interspersed=False))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command by name or unique prefix, and prepare its arguments for click."""
        name = self._complete(ctx, args[0])
        command = self.get_command(ctx, name)
        if command is None:
            raise click.UsageError(f'unknown command "{name}"', ctx)
        shown = f"{ctx.info_name} {name}" if ctx.parent else name
        ctx.ensure_object(Globals).command = shown
        rest = args[1:]
        # Words with images among them are sorted by the command itself.
        if not isinstance(command, LazyGroup) and not getattr(command, "sorts_words", False):
            rest = normalise(command.params, rest, interspersed=command.allow_interspersed_args)
        return name, command, rest

    def _complete(self, ctx: click.Context, word: str) -> str:
        if word in self.table:
            return word
        fitting = [name for name in self.table if name.startswith(word)]
        if self.table is COMMANDS:
            # What was unique among rkt's commands stays so: scripts have `rkt stat`.
            fitting = [name for name in fitting if name in _OF_RKT] or fitting
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise click.UsageError(f'command "{word}" is ambiguous: {", ".join(fitting)}', ctx)
        raise click.UsageError(f'unknown command "{word}"{_suggest(word, self.table)}', ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table; nothing is imported."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self.table.items()])


def _hidden_globals() -> list[click.Parameter]:
    options = global_options()
    for option in options:
        option.hidden = True
    return list(options)


def _suggest(word: str, names: dict[str, tuple[str, str]]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(word, names)
    return f", did you mean {' or '.join(close)}?" if close else ""


@click.pass_context
def _show_help_when_alone(ctx: click.Context) -> int | None:
    if ctx.invoked_subcommand is not None:
        return None
    from podctl.cli.output import show_text

    show_text(ctx.get_help())
    return 2


def _help_command() -> click.Command:
    @click.command(name="help", help="Show help for a command.")
    @click.argument("words", metavar="[COMMAND]...", nargs=-1)
    @click.pass_context
    def help_of(ctx: click.Context, words: tuple[str, ...]) -> int:
        return _dispatch([*words, "--help"])

    return help_of


def _dispatch(arguments: list[str], options: Globals | None = None) -> int:
    group = LazyGroup(
        COMMANDS,
        name="podctl",
        params=list(global_options()),
        help="Find, verify and run application images as pods.\n\n"
        "Global options may stand before or after the command; a command may be shortened.",
    )
    try:
        with group.make_context("podctl", arguments, obj=options or Globals()) as context:
            code = group.invoke(context)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    return code if isinstance(code, int) else 0


def run(arguments: list[str]) -> int:
    """Run one command line, report what goes wrong, return the exit code.

    A command's function returns its exit code, or None for success.
    """
    options = Globals()
    try:
        return _dispatch(arguments, options)
    except click.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        return _report_usage(error, options)
    except PermissionError as error:
        return report(_explained(error, options), options.command, debug=options.debug)
    except BaseException as error:
        return report(error, options.command, debug=options.debug)


def _explained(error: PermissionError, options: Globals) -> Exception:
    """What somebody has run into who may not see the data directory, whatever file it was."""
    from podctl.errors import PodctlError, Refused

    try:
        directory = options.data_dir
    except (OSError, PodctlError):
        return error
    # A relative path is one below the store.
    path = os.path.join(directory, os.fsdecode(error.filename or ""))
    outside = path != directory and not path.startswith(f"{directory}/")
    if outside or not os.path.isdir(directory) or os.access(directory, os.R_OK | os.X_OK):
        return error
    refused = Refused(
        f"{directory}: permission denied", hint="for root and members of group podctl"
    )
    refused.__cause__ = error
    return refused


def _report_usage(error: click.ClickException, options: Globals) -> int:
    from podctl.cli.output import say

    text = error.format_message().replace("\n", " ").rstrip(".")
    where = "podctl" if options.command == "podctl" else f"podctl {options.command}"
    say(options.command, f"{text} (see '{where} --help')", error=True)
    return FAILED
