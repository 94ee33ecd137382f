"""`podctl image export`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podctl.cli.options import flag
from podctl.cli.output import say

if TYPE_CHECKING:
    from podctl.cli.context import Globals


@click.command(
    help="""Write a stored image to a file or directory that other tools read.

    An App Container Image is written as published, not compressed. A Docker or OCI image becomes an
    OCI layout with its documents, layers and signatures as they are: an archive where OUTPUT ends
    in .tar, else a directory. In another format than the image's own it is converted, which takes
    root; `docker` is an archive for `docker load`."""
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["aci", "oci", "docker"]),
    help="Format to write (the image's own: aci or oci).",
)
@flag("--overwrite", help="Replace what stands at OUTPUT.")
@click.argument("image", metavar="IMAGE")
@click.argument("target", metavar="OUTPUT")
@click.pass_obj
def command(options: Globals, form: str | None, overwrite: bool, image: str, target: str) -> None:
    """Export; the output appears when it is complete and was found to be the image."""
    from podctl.images.choose import choose
    from podctl.images.exporting import Exporter
    from podctl.pods.users import resolve

    def tell(line: str) -> None:
        say(options.command, line)

    store = options.store()
    record = choose(store, image)
    Exporter(store, resolve, tell).export(record, target, form, overwrite=overwrite)
    store.touch(record.key)
