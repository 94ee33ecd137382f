"""Writing what a user asked for to a path outside the store: whole or not at all."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from podctl.errors import NotFound, Refused
from podctl.sys.files import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator


class Output:
    """A directory or file being written beside the place it is for.

    Attributes:
        temporary: where to write.
        target: where it goes in the end.
        result: what goes there; `temporary`, or something inside it.
    """

    def __init__(self, target: str, overwrite: bool) -> None:
        self.target = target
        self.overwrite = overwrite
        parent, name = os.path.split(target)
        self.temporary = os.path.join(parent, f".{name}.{os.urandom(8).hex()}")
        self.result = self.temporary


@contextmanager
def output_directory(path: str, *, overwrite: bool, protected: str) -> Iterator[Output]:
    """A new directory that becomes `path` when the context ends well.

    Args:
        overwrite: remove what stands there, links not followed.
        protected: a directory (the data directory) that must not be overwritten.

    Raises:
        Refused: the path stands already, or must not be overwritten.
        NotFound: its parent directory is missing.
    """
    target = os.path.abspath(path)
    if os.path.realpath(target) == "/":
        raise Refused("this would delete your root filesystem. Refusing.")
    real, kept = os.path.realpath(target), os.path.realpath(protected)
    if f"{kept}/".startswith(f"{real}/") or f"{real}/".startswith(f"{kept}/"):
        raise Refused(f'"{path}" is or holds the data directory', hint="give another directory")
    output = _begin(target, path, "output directory", overwrite)
    os.mkdir(output.temporary, 0o755)
    with _placing(output):
        yield output


@contextmanager
def output_file(path: str, *, what: str, overwrite: bool) -> Iterator[int]:
    """A descriptor of a new file that becomes `path` when the context ends well.

    Raises:
        Refused: the path stands already, or is a directory.
        NotFound: its directory is missing.
    """
    target = os.path.abspath(path)
    if os.path.isdir(target) and not os.path.islink(target):
        raise Refused(f'"{path}" is a directory', hint="give the path of a file")
    output = _begin(target, path, what, overwrite)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(output.temporary, flags, 0o644)
    try:
        with _placing(output):
            yield fd
            os.fsync(fd)
    finally:
        os.close(fd)


def _begin(target: str, path: str, what: str, overwrite: bool) -> Output:
    if os.path.lexists(target) and not overwrite:
        raise Refused(f'{what} "{path}" exists (try --overwrite)')
    parent = os.path.dirname(target)
    if not os.path.isdir(parent):
        raise NotFound(f'directory "{parent}" does not exist')
    return Output(target, overwrite)


@contextmanager
def _placing(output: Output) -> Iterator[None]:
    try:
        yield
        if output.overwrite and os.path.isdir(output.target) and not os.path.islink(output.target):
            remove_tree(output.target)
        elif not output.overwrite and os.path.lexists(output.target):
            raise Refused(f'"{output.target}" was made by somebody else meanwhile')
        elif os.path.isdir(output.result) and os.path.lexists(output.target):
            os.unlink(output.target)
        os.rename(output.result, output.target)
    finally:
        remove_tree(output.temporary)
