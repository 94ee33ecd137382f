"""`podctl image render`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podctl.cli.options import flag
from podctl.cli.output import say

if TYPE_CHECKING:
    from podctl.cli.context import Globals


@click.command(
    help="Unpack an image with its dependencies into a directory, as an app would see it."
)
@flag("--rootfs-only", help="Only the root filesystem, directly in the directory.")
@flag("--overwrite", help="Replace the directory if it exists.")
@click.argument("image", metavar="IMAGE")
@click.argument("directory", metavar="DIRECTORY")
@click.pass_obj
def command(
    options: Globals, rootfs_only: bool, overwrite: bool, image: str, directory: str
) -> None:
    """Render; owners and modes are the image's, which takes root."""
    options.require_root()
    from podctl.images.choose import choose
    from podctl.images.extracting import render

    def tell(line: str) -> None:
        say(options.command, line)

    store = options.store()
    record = choose(store, image)
    render(store, record, directory, rootfs_only=rootfs_only, overwrite=overwrite, say=tell)
