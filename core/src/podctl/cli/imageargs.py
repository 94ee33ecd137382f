"""The argument grammar of commands that take images, flags for each, and arguments for each.

`IMAGE1 [flags of IMAGE1] [-- ARGUMENT... [---]] IMAGE2 ...`, with the command's own flags before,
between and after. The words are only sorted here; pflag's rules tell flags and values apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import UsageError
from podctl.model.settings import ALIASES, APP_FLAGS, AppSettings, parse_settings
from podctl.model.volumes import mount_from_text, volume_from_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podctl.model.volumes import Mount, Volume

#: how a command's own flag takes its value.
VALUE = "value"  # --flag=VALUE or --flag VALUE
NO_VALUE = "no value"  # --flag or --flag=VALUE: booleans and optional values
#: what --name means while no image has been named yet
POD_NAME = "--pod-name"


class ImageArgument(NamedTuple):
    """One image of a command line.

    `arguments` is None when no `--` followed the image.
    """

    image: str
    settings: AppSettings
    arguments: tuple[str, ...] | None
    flags: tuple[tuple[str, str], ...] = ()


class ParsedImages(NamedTuple):
    """A command line taken apart.

    Args:
        images: in order.
        volumes: every --volume.
        mounts: every --mount that stands before the first image.
        rest: the command's own flags as they were written, for its own parser.
    """

    images: tuple[ImageArgument, ...]
    volumes: tuple[Volume, ...]
    mounts: tuple[Mount, ...]
    rest: tuple[str, ...]


class _Open:
    """The image being read: its flags and, once `--` was seen, its arguments."""

    def __init__(self, image: str) -> None:
        self.image = image
        self.flags: list[tuple[str, str]] = []
        self.arguments: list[str] | None = None


class _Parser:
    """Walks over the words once."""

    def __init__(
        self, words: Sequence[str], own: Mapping[str, str], app: Mapping[str, bool], arguments: bool
    ) -> None:
        self._words = list(words)
        self._next = 0
        self._own = own
        self._app = app
        self._arguments = arguments
        self.images: list[_Open] = []
        self.volumes: list[str] = []
        self.mounts: list[str] = []
        self.rest: list[str] = []

    def run(self) -> None:
        """Sort every word."""
        while self._next < len(self._words):
            word = self._take()
            if word == "--":
                self._take_arguments()
            elif word == "---" or not word:
                continue
            elif word.startswith("--"):
                self._flag(word)
            elif word.startswith("-") and len(word) > 1:
                self._short_flags(word)
            else:
                self.images.append(_Open(word))

    def _take(self) -> str:
        self._next += 1
        return self._words[self._next - 1]

    def _take_arguments(self) -> None:
        if not self._arguments:
            raise UsageError("app arguments unsupported")
        if not self.images:
            raise UsageError("an image is required before any app arguments")
        image = self.images[-1]
        if image.arguments is not None:
            raise UsageError("only one set of app arguments allowed per image")
        end = self._next
        while end < len(self._words) and self._words[end] != "---":
            end += 1
        image.arguments = self._words[self._next : end]
        self._next = end

    def _flag(self, word: str) -> None:
        name, equals, value = word.partition("=")
        name = ALIASES.get(name, name)
        if name in self._app or (name == "--volume" and "--mount" in self._app):
            wants_value = self._app.get(name, True)
            if not equals:
                value = self._value_of(name) if wants_value else "true"
            self._app_flag(name, value)
        elif name in self._own:
            self.rest.append(word)
            if self._own[name] == VALUE and not equals:
                self.rest.append(self._value_of(name))
        else:
            raise UsageError(f"unknown flag: {name}")

    def _app_flag(self, name: str, value: str) -> None:
        if name == "--volume":
            self.volumes.append(value)
        elif self.images:
            self.images[-1].flags.append((name, value))
        elif name == "--mount":
            self.mounts.append(value)
        elif name == "--name" and POD_NAME in self._own:
            self.rest.append(f"{POD_NAME}={value}")
        else:
            raise UsageError(f"{name} must follow an image")

    def _short_flags(self, word: str) -> None:
        """A cluster like `-it` or `-eNAME=VALUE`; the first letter with a value ends it."""
        self.rest.append(word)
        for index, letter in enumerate(word[1:], 2):
            kind = self._own.get(f"-{letter}")
            if kind is None:
                raise UsageError(f"unknown shorthand flag: '{letter}' in {word}")
            if kind == VALUE:
                if index == len(word):
                    self.rest.append(self._value_of(f"-{letter}"))
                return
            if word[index : index + 1] == "=":
                return

    def _value_of(self, name: str) -> str:
        if self._next == len(self._words):
            raise UsageError(f"flag needs an argument: {name}")
        return self._take()


def parse_images(
    argv: Sequence[str],
    options: Mapping[str, str],
    *,
    app_flags: Mapping[str, bool] = APP_FLAGS,
    arguments: bool = True,
) -> ParsedImages:
    """Sort the words after a command's name.

    Args:
        argv: the words.
        options: the command's own (and global) flags, `--name` or `-n`, each VALUE or NO_VALUE.
        app_flags: flags an image may be followed by -> whether they take the next word;
            with --mount among them, --volume is accepted too.
        arguments: whether `--` may introduce arguments of an app.

    Raises:
        UsageError: a flag is unknown, lacks its value, stands before its image, or is malformed.
    """
    parser = _Parser(argv, options, app_flags, arguments)
    parser.run()
    volumes = tuple(volume_from_text(text) for text in parser.volumes)
    names: set[str] = set()
    for volume in volumes:
        if volume.name in names:
            raise UsageError(f'duplicate volume name "{volume.name}"')
        names.add(volume.name)
    return ParsedImages(
        images=tuple(
            ImageArgument(
                image=image.image,
                settings=parse_settings(image.flags),
                arguments=None if image.arguments is None else tuple(image.arguments),
                flags=tuple(image.flags),
            )
            for image in parser.images
        ),
        volumes=volumes,
        mounts=tuple(mount_from_text(text) for text in parser.mounts),
        rest=tuple(parser.rest),
    )
