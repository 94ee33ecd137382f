"""`podctl fetch`: bring images into the store and verify them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from podctl.cli.context import Globals

#: Hexadecimal digits of an image ID that `fetch` prints without --full.
SHORT_ID = 32


@click.command(
    help="""Fetch images, verify their signatures and print an image ID for each.

    IMAGE is a name (example.com/app:1.0, with discovery), an https or http URL ending in .aci,
    docker://..., a path, or oci:PATH[:NAME], oci-archive:... or docker-archive:..."""
)
@click.option("--full", is_flag=True, help="Print whole image IDs.")
@click.option(
    "--pull-policy",
    type=click.Choice(["never", "new", "update"]),
    default="update",
    show_default=True,
    help="Whether to look into the store first (new), or only (never).",
)
@click.option("--store-only", is_flag=True, hidden=True)
@click.option("--no-store", is_flag=True, hidden=True)
@click.option("--signature", metavar="FILE", help="Use this detached signature (one image only).")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.pass_obj
def command(
    options: Globals,
    full: bool,
    pull_policy: str,
    store_only: bool,
    no_store: bool,
    signature: str | None,
    images: tuple[str, ...],
) -> None:
    """Fetch each image in turn; the first failure ends it."""
    from podctl.cli.output import out
    from podctl.cli.session import open_session
    from podctl.errors import UsageError
    from podctl.images.fetch import ensure_image

    if store_only and no_store:
        raise UsageError("--store-only and --no-store exclude each other")
    if signature is not None and len(images) != 1:
        raise UsageError("--signature goes with exactly one image")
    policy = "never" if store_only else "update" if no_store else pull_policy
    session = open_session(options)
    for text in images:
        record = ensure_image(session, text, policy=policy, signature_file=signature)
        out(record.key if full else record.key[: len("sha512-") + SHORT_ID])
