"""`podctl image rm`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podctl.cli.output import out, say
from podctl.errors import PodctlError

if TYPE_CHECKING:
    from podctl.cli.context import Globals
    from podctl.store import Store


@click.command(
    help="""Remove images from the store.

    IMAGE is an image ID, whole or shortened, or a name (the newest image of that name)."""
)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.pass_obj
def command(options: Globals, images: tuple[str, ...]) -> None:
    """Remove one after the other; one that cannot be removed does not keep the others."""
    store = options.store()

    def waiting() -> None:
        say(options.command, "waiting for another command that uses the image...")

    failed = 0
    keys: list[str] = []
    for text in images:
        try:
            keys.append(_key(store, text))
        except PodctlError as error:
            say(options.command, str(error), error=True)
            failed += 1
    removed = stale = 0
    for key in dict.fromkeys(keys):
        try:
            left = store.remove(key, waiting)
        except (PodctlError, OSError) as error:
            say(options.command, f'image "{key}" cannot be removed: {error}', error=True)
            failed += 1
            continue
        out(f'successfully removed aci for image: "{key}"')
        for line in left:
            say(options.command, line)
        removed, stale = (removed, stale + 1) if left else (removed + 1, stale)
    _summarise(options.command, removed, stale)
    if failed:
        raise PodctlError(f"{failed} image(s) cannot be removed")


def _key(store: Store, text: str) -> str:
    """The image meant; one whose record is damaged can be removed by its ID all the same."""
    from podctl.images.choose import choose

    if text.startswith("sha512-"):
        return store.resolve_key(text)
    return choose(store, text).key


def _summarise(command_name: str, removed: int, stale: int) -> None:
    if removed:
        say(command_name, f"{removed} image(s) successfully removed")
    if stale:
        say(command_name, f"{stale} image(s) removed but left some stale files")
