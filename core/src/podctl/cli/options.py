"""Options in rkt's (pflag's) grammar, which click alone does not have.

A flag may be written `--quiet` or `--quiet=false`; an option with an optional value (`--net`,
`--net=none`) takes its value after `=` only and never swallows the next word.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class OptionalValue(click.Option):
    """An option whose value may be left out.

    Args:
        bare: the value a bare `--name` stands for.
    """

    def __init__(self, *args: Any, bare: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.bare = bare

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The line of `--help`: a flag shows no value, an optional one `[=VALUE]`."""
        if self.hidden:
            return None
        value = "" if self.type is click.BOOL else f"[={self.metavar or 'VALUE'}]"
        return ", ".join(self.opts) + value, self.help or ""


def flag(*names: str, default: bool | None = False, **settings: Any) -> Decorator:
    """Declare a boolean that reads `--name`, `--name=true` and `--name=false`."""
    return click.option(
        *names, cls=OptionalValue, bare="true", type=click.BOOL, default=default, **settings
    )


def optional_value(*names: str, bare: str, **settings: Any) -> Decorator:
    """Declare an option that may stand alone, meaning `bare`, or carry `=VALUE`."""
    return click.option(*names, cls=OptionalValue, bare=bare, **settings)


def normalise(
    parameters: Iterable[click.Parameter], arguments: Sequence[str], *, interspersed: bool = True
) -> list[str]:
    """Rewrite arguments so that click reads them as pflag would.

    Words after `--` stay as they are, and, without `interspersed`, all from the first argument on.
    """
    options = _by_name(parameters)
    result: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--" or (not _is_option(word) and not interspersed):
            return [*result, word, *words]
        name, equals, value = word.partition("=")
        option = options.get(name)
        if option is None:
            result += _spread(word, options)
            last = options.get(result[-1]) if _is_cluster(word) else None
            if last is not None and not isinstance(last, OptionalValue):
                result += islice(words, last.nargs)
        elif isinstance(option, OptionalValue):
            result += _spell(name, value if equals else option.bare)
        elif option.is_flag or option.count:
            result += _spell_flag(name, value, bool(equals))
        else:
            result.append(word)
            if not equals:
                result += islice(words, option.nargs)
    return result


def _by_name(parameters: Iterable[click.Parameter]) -> dict[str, click.Option]:
    options = [parameter for parameter in parameters if isinstance(parameter, click.Option)]
    return {name: option for option in options for name in (*option.opts, *option.secondary_opts)}


def _is_option(word: str) -> bool:
    return len(word) > 1 and word.startswith("-")


def _spell(name: str, value: str) -> list[str]:
    # click takes everything after a short option's letter as its value, the `=` included.
    return [f"{name}={value}"] if name.startswith("--") else [name, value]


def _is_cluster(word: str) -> bool:
    return len(word) > 2 and word[0] == "-" and word[1] != "-"


def _spread(word: str, options: dict[str, click.Option]) -> list[str]:
    """Take short options that share a dash apart (`-it`); the first that has a value ends them."""
    if not _is_cluster(word):
        return [word]
    result: list[str] = []
    for index, letter in enumerate(word[1:], 2):
        name, rest = f"-{letter}", word[index:]
        option = options.get(name)
        if option is None or not isinstance(option, OptionalValue):
            # click knows what is unknown, and values that follow at once.
            return [*result, name + rest]
        if rest.startswith("="):
            return [*result, *_spell(name, rest[1:])]
        result += _spell(name, option.bare)
    return result


def _spell_flag(name: str, value: str, explicit: bool) -> list[str]:
    if not explicit:
        return [name]
    return [name] if click.BOOL.convert(value, None, None) else []
