"""`podctl completion`: a static script, so that a TAB costs no start of podctl."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podctl.cli.output import out
from podctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

SHELLS = ("bash",)

# Commands whose arguments are pods or images of the store: how to list them.
_PODS = "list --full --no-legend"
_IMAGES = "image list --full --no-legend --fields=id"
_ARGUMENTS = {
    **dict.fromkeys(
        ("status", "rm", "cat-manifest", "export", "enter", "stop", "run-prepared"), _PODS
    ),
    **dict.fromkeys(("exec", "inspect", "kill", "logs", "stats", "top", "wait"), _PODS),
    **dict.fromkeys(
        (f"app {name}" for name in ("add", "start", "stop", "rm", "list", "status", "exec")), _PODS
    ),
    **dict.fromkeys(
        (f"image {name}" for name in ("rm", "export", "extract", "render", "verify")), _IMAGES
    ),
    "image cat-manifest": _IMAGES,
}

_SCRIPT = """\
# bash completion for podctl; load it with: source <(podctl completion bash)
_podctl() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} command= word words= list= i
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${{COMP_WORDS[i]}}
        case $word in
        {valued})
            ((i++))
            # bash takes = for a word of its own.
            [[ ${{COMP_WORDS[i]}} != = ]] || ((i++))
            ;;
        -* | =) ;;
        *)
            command=${{command:+$command }}$word
            case $command in {groups}) ;; *) break ;; esac
            ;;
        esac
    done
    case $command in
    '') words={top!r} ;;
{cases}
    esac
    if [[ $current == -* ]]; then
        words="$words {globals_}"
        COMPREPLY=($(compgen -W "${{words//[^-a-z0-9 ]/}}" -- "$current"))
        return
    fi
    case $command in
    '' | {groups})
        COMPREPLY=($(compgen -W "$words" -- "$current"))
        return
        ;;
{arguments}
    esac
    if [[ -n $list ]]; then
        words=$("${{COMP_WORDS[0]}}" $list 2>/dev/null | awk '/^[^ ]/ {{ print $1 }}')
        COMPREPLY=($(compgen -W "$words" -- "$current"))
    fi
}}
complete -o default -F _podctl podctl
"""


@click.command(help="Print a completion script for a shell (bash).")
@click.argument("shell")
def command(shell: str) -> None:
    """Print the script that completes commands, options, pods and images."""
    if shell not in SHELLS:
        raise UsageError(
            f'no completion for shell "{shell}"', hint=f"supported: {', '.join(SHELLS)}"
        )
    out(bash(), end="")


def bash() -> str:
    """The script for bash, made from the command table and each command's options."""
    from podctl.cli.context import global_options
    from podctl.cli.main import COMMANDS, GROUPS

    cases = [f"    {name}) words='{' '.join(table)}' ;;" for name, table in GROUPS.items()]
    valued = set(_valued(global_options()))
    for name, loaded in _commands():
        shown = [option for option in loaded.params if isinstance(option, click.Option)]
        valued.update(_valued(shown))
        words = " ".join(_names(option for option in shown if not option.hidden))
        cases.append(f"    '{name}') words='{words}' ;;")
    arguments = [f"    '{name}') list='{listing}' ;;" for name, listing in _ARGUMENTS.items()]
    return _SCRIPT.format(
        valued=" | ".join(sorted(valued)),
        top=" ".join(COMMANDS),
        groups=" | ".join(GROUPS),
        cases="\n".join(cases),
        globals_=" ".join(_names(iter(global_options()))),
        arguments="\n".join(arguments),
    )


def _commands() -> Iterator[tuple[str, click.Command]]:
    from podctl.cli.main import COMMANDS, GROUPS, LazyGroup

    groups = {f"{name} ": table for name, table in GROUPS.items()}
    for prefix, table in {"": COMMANDS, **groups}.items():
        group = LazyGroup(table, name="podctl")
        with click.Context(group) as context:
            for name, (module, _) in table.items():
                loaded = group.get_command(context, name) if module else None
                if loaded is not None:
                    yield prefix + name, loaded


def _names(options: Iterator[click.Option]) -> list[str]:
    return [name for option in options for name in option.opts if name.startswith("--")]


def _valued(options: list[click.Option]) -> list[str]:
    """Names of options whose value is the next word."""
    from podctl.cli.options import OptionalValue

    return [
        name
        for option in options
        if not (option.is_flag or option.count or isinstance(option, OptionalValue))
        for name in option.opts
    ]
