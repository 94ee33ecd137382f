"""`podctl image cat-manifest`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from podctl.cli.options import flag, optional_value
from podctl.cli.output import emit_json, is_terminal, out
from podctl.errors import NotFound

if TYPE_CHECKING:
    from podctl.cli.context import Globals
    from podctl.store import ImageRecord, Store


@click.command(
    help="""Print the manifest of a stored image.

    Of a Docker or OCI image it is the appc manifest that the image amounts to."""
)
@flag("--pretty-print", default=True, help="Indent the JSON (default true).")
@optional_value(
    "--original",
    bare="",
    metavar="NAME",
    help="Print a document as published: manifest (the default), config or index.",
)
@click.argument("image", metavar="IMAGE")
@click.pass_obj
def command(options: Globals, pretty_print: bool, original: str | None, image: str) -> None:
    """Print the document as a value, whose layout and escapes are ours; or byte for byte."""
    from podctl.images.choose import choose

    store = options.store()
    record = choose(store, image)
    if original is not None:
        _write(_original(store, record, original))
    elif record.layered:
        from podctl.model.image import appc_value
        from podctl.plugins import image_format

        parsed = image_format(record.format).image(store.manifest(record.key))
        emit_json(appc_value(parsed), pretty=pretty_print)
    else:
        from podctl.model.jsontext import loads

        manifest = store.manifest(record.key)
        emit_json(loads(manifest, what=f'manifest of image "{image}"'), pretty=pretty_print)


def _original(store: Store, record: ImageRecord, name: str) -> bytes:
    from podctl.plugins import image_format

    documents = image_format(record.format).documents(store.manifest(record.key))
    name = name or next(iter(documents))
    if name not in documents:
        raise NotFound(
            f'image "{record.name}" has no document "{name}"',
            hint=f"it has: {', '.join(documents)}",
        )
    return documents[name]


def _write(document: bytes) -> None:
    if is_terminal(sys.stdout):
        # What a terminal could obey is shown instead.
        out(document.decode("utf-8", "backslashreplace"), end="")
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(document)
