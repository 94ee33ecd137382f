"""`podctl image cat-manifest`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podctl.cli.options import flag
from podctl.cli.output import emit_json

if TYPE_CHECKING:
    from podctl.cli.context import Globals


@click.command(help="Print the manifest of a stored image.")
@flag("--pretty-print", default=True, help="Indent the JSON (default true).")
@click.argument("image", metavar="IMAGE")
@click.pass_obj
def command(options: Globals, pretty_print: bool, image: str) -> None:
    """Print the document as a value: layout and escapes are ours."""
    from podctl.images.choose import choose
    from podctl.model.jsontext import loads

    store = options.store()
    manifest = store.manifest(choose(store, image).key)
    emit_json(loads(manifest, what=f'manifest of image "{image}"'), pretty=pretty_print)
