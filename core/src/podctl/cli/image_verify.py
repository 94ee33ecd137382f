"""`podctl image verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podctl.cli.output import out, say
from podctl.errors import PodctlError

if TYPE_CHECKING:
    from podctl.cli.context import Globals
    from podctl.images.verifying import Problem
    from podctl.store import Store


@click.command(
    help="""Check stored images to the byte.

    The stored archive is held against its digests; what was unpacked and rendered is held against
    the archive, and made anew where it differs."""
)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.pass_obj
def command(options: Globals, images: tuple[str, ...]) -> None:
    """Verify one after the other; a damaged one does not keep the others."""
    store = options.store()
    failed = 0
    for text in images:
        try:
            _verify(options.command, store, text)
        except PodctlError as error:
            say(options.command, str(error), error=True)
            failed += 1
    if failed:
        raise PodctlError(f"{failed} image(s) cannot be verified")


def _verify(command_name: str, store: Store, text: str) -> None:
    from podctl.images.choose import choose
    from podctl.images.verifying import verify

    record = choose(store, text)

    def tell(problem: Problem) -> None:
        say(
            command_name,
            f"tree cache verification failed for image {text}: {problem};  rebuilding...",
        )

    found = verify(store, record, repair=True, tell=tell)
    if not found.rendered and not found.problems:
        out(f'image "{text}" not rendered; no verification needed')
    elif not found.problems:
        out(f'successfully verified checksum for image: "{text}" ("{record.key}")')
