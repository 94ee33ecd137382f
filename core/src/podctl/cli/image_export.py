"""`podctl image export`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podctl.cli.options import flag

if TYPE_CHECKING:
    from podctl.cli.context import Globals


@click.command(help="Write a stored image to a file: the archive as published, not compressed.")
@flag("--overwrite", help="Replace the file if it exists.")
@click.argument("image", metavar="IMAGE")
@click.argument("target", metavar="OUTPUT.aci")
@click.pass_obj
def command(options: Globals, overwrite: bool, image: str, target: str) -> None:
    """Export; the file appears when it is complete and was found to be the image."""
    from podctl.images.choose import choose
    from podctl.images.placing import output_file
    from podctl.images.stored import export

    store = options.store()
    record = choose(store, image)
    with output_file(target, what="output ACI file", overwrite=overwrite) as fd:
        export(store, record, fd)
    store.touch(record.key)
