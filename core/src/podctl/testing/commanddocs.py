"""The command reference, made from the commands' own declarations.

Names, values and texts are those that `--help` shows; a test compares the page with what this
module makes.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import click

from podctl.cli.context import INSECURE_OPTIONS, global_options
from podctl.cli.main import COMMANDS, GROUPS, LazyGroup
from podctl.model.settings import ALIASES

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD = """\
# Commands

<!-- Made by script/command-reference from core/src/podctl/cli; a test compares. Do not edit. -->

Results go to standard output, messages to standard error, one line each, as `COMMAND: TEXT`. A
command may be shortened as long as it is unique (`podctl sta` is `status`; among several, one that
rkt has is meant); `podctl help COMMAND`
and `podctl COMMAND --help` print what stands here. For exit codes see
[exit codes and messages](exit-codes-and-messages.md).

**Flags.** A flag takes its value after `=` or as the next word. A boolean reads `--flag`,
`--flag=true` and `--flag=false`; where a value is optional (shown as `[=VALUE]`) it stands after
`=` only. Words after `--` are never flags.

**Pods** are named by their UUID, a unique beginning of it, or the
[name](../how-to/live-with-pods.md) they were given. **Images** are named by

| form | meaning |
|---|---|
| `example.com/app:1.0`, `example.com/app,version=1.0,os=linux` | a name with labels: discovered |
| `https://...`, `http://...` | a URL; finding http otherwise needs `--insecure-options=http` |
| `./app.aci`, `/path/app.aci`, `file:///path/app.aci` | a file |
| `sha512-...` | an image ID, at least 2 digits of it, of the store |
| `docker://registry/name:tag` | a registry, with podctl-fetch-docker installed |

**Durations** are written like `90s`, `30m` or `1h30m`.

"""

_IMAGE_HEAD = """\
## Flags of an image

`run`, `prepare` and `app add` take images, each followed by flags about it and, after `--`, by
arguments for its program; `---` ends them:

```text
IMAGE [--FLAG VALUE]... [-- ARGUMENT... [---]] [IMAGE...]
```

"""

#: what the flags behind an image say of it
APP_FLAGS = {
    "--exec": ("PROGRAM", "Run this program instead of the image's; its arguments follow `--`."),
    "--working-dir": ("PATH", "Working directory, absolute inside the image."),
    "--user": ("USER", "A number, a name of the image, or the owner of a file in it."),
    "--group": ("GROUP", "The same for the group."),
    "--supplementary-gids": ("GID,...", "Supplementary groups, as numbers."),
    "--readonly-rootfs": ("", "Mount the root filesystem read-only."),
    "--mount": (
        "volume=NAME,target=PATH",
        "Mount a volume; before the first image it is for all of them.",
    ),
    "--volume": (
        "NAME,kind=host,source=PATH[,readOnly=true]",
        "A volume of the pod, by the name of a mount point; `kind=empty` for a new one, "
        "`kind=tmpfs[,size=BYTES]` for one in memory; both with `mode`, `uid`, `gid`.",
    ),
    "--name": ("NAME", "Name of the app in the pod; else the last part of the image's name."),
    "--annotation": ("NAME=VALUE", "An annotation of the app; may be repeated."),
    "--user-annotation": ("NAME=VALUE", "A user annotation; may be repeated."),
    "--user-label": ("NAME=VALUE", "A user label; may be repeated."),
    "--environment": ("NAME=VALUE", "A variable of this app alone; may be repeated."),
    "--memory": ("BYTES", "Memory limit, with K, M, G or Ki, Mi, Gi (isolator resource/memory)."),
    "--cpu": ("CORES", "CPU limit, e.g. 500m for half a core (resource/cpu)."),
    "--cpu-shares": ("NUMBER", "Weight, 2 to 262144 (os/linux/cpu-shares)."),
    "--oom-score-adj": ("NUMBER", "-1000 to 1000 (os/linux/oom-score-adj)."),
    "--no-new-privileges": (
        "",
        "Whether execve(2) may grant nothing, set-user-id programs included (true by default).",
    ),
    "--caps-retain": ("CAP,...", "Keep these capabilities alone; empty for none."),
    "--caps-remove": ("CAP,...", "Drop these capabilities."),
    "--seccomp": (
        "mode=retain|remove[,errno=NAME],CALL,...",
        "Allow only, or deny, these system calls.",
    ),
    "--signature": ("FILE", "Detached signature to use instead of the one beside the image."),
    "--stdin": ("null|tty|stream", "Standard input of the app (null)."),
    "--stdout": ("null|log|tty|stream", "Standard output (log: the pod's own)."),
    "--stderr": ("null|log|tty|stream", "Standard error (log: the pod's own)."),
}

INSECURE = {
    "none": "nothing",
    "capabilities": "run apps without their capability isolators where a flavor cannot apply them",
    "http": "plain http for discovery, images and signatures",
    "image": "images without a signature, or with a bad one",
    "ondisk": "nothing: accepted as in rkt",
    "paths": "nothing: accepted as in rkt, no flavor here hides a path",
    "pubkey": "public keys by plain http and from servers without a valid certificate",
    "seccomp": "run apps without their seccomp isolators where a flavor cannot apply them",
    "tls": "servers without a valid certificate",
    "all-fetch": "image, tls, http, pubkey",
    "all-run": "capabilities, paths, seccomp",
    "all": "everything above",
}

#: commands that take images with flags of their own
_WITH_IMAGES = ("run", "prepare", "app add")


def page() -> str:
    """The whole page, as Markdown."""
    parts = [_HEAD, _globals(), _image_flags()]
    for name, command in commands():
        parts += _command(name, command)
    return "".join(parts).rstrip("\n") + "\n"


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by its full name, in the order of the help; those of groups come last."""
    groups = {f"{name} ": table for name, table in GROUPS.items()}
    for prefix, table in {"": COMMANDS, **groups}.items():
        group = LazyGroup(table, name="podctl")
        with click.Context(group, info_name="podctl") as context:
            for name in table:
                command = group.get_command(context, name)
                if command is not None and not isinstance(command, LazyGroup):
                    yield prefix + name, command


def _globals() -> str:
    rows = [_row(option) for option in global_options()]
    kinds = [f"| `{name}` | {INSECURE[name]} |" for name in INSECURE_OPTIONS]
    head = "## Global options\n\nAccepted before and after the command's name.\n\n"
    allows = "`--insecure-options` allows, by name (a comma list, repeatable):\n\n"
    return (
        f"{head}{_table(rows)}\n{allows}| value | allows |\n|---|---|\n" + "\n".join(kinds) + "\n\n"
    )


def _command(name: str, command: click.Command) -> Iterator[str]:
    yield f"## {name}\n\n"
    with click.Context(command, info_name=f"podctl {name}") as context:
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        yield f"```text\n{usage}\n```\n\n{inspect.cleandoc(command.help or '')}\n\n"
        shown = _options(command)
        rows = [_row(option) for option in shown if not option.hidden]
        if rows:
            yield _table(rows) + "\n"
        if name in _WITH_IMAGES:
            yield "Behind an image: the [flags of an image](#flags-of-an-image).\n\n"
        older = [f"`{option.opts[0]}`" for option in shown if option.hidden]
        if older:
            yield f"Accepted as in rkt: {', '.join(older)}.\n\n"


def _options(command: click.Command) -> list[click.Option]:
    names = {option.opts[0] for option in global_options()}
    return [
        option
        for option in command.params
        if isinstance(option, click.Option) and option.opts[0] not in names
    ]


def _row(option: click.Option) -> tuple[str, str]:
    record = option.get_help_record(click.Context(click.Command("podctl")))
    if record is None:
        return option.opts[0], option.help or ""
    return record[0], record[1]


def _image_flags() -> str:
    rows = [(f"{flag} {value}".strip(), text) for flag, (value, text) in APP_FLAGS.items()]
    older = ", ".join(f"`{old}` for `{new}`" for old, new in ALIASES.items())
    return f"{_IMAGE_HEAD}{_table(rows)}\nAccepted as well: {older}.\n\n"


def _table(rows: list[tuple[str, str]]) -> str:
    lines = [f"| `{_cell(name)}` | {_cell(text)} |\n" for name, text in rows]
    return "| option | |\n|---|---|\n" + "".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
