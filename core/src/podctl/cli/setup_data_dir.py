"""`podctl setup-data-dir`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podctl.cli.output import out

if TYPE_CHECKING:
    from podctl.cli.context import Globals

HELP = """Create groups, data and configuration directories.

Members of the group podctl may then fetch, verify and list without being root, members of
podctl-admin may change configuration and trusted keys. Running pods stays with root. Safe to
repeat."""


@click.command(help=HELP)
@click.pass_obj
def command(options: Globals) -> None:
    """Make the directories of this installation what they should be."""
    options.require_root()
    from podctl.config import installation

    members = installation.ensure_group(installation.GROUP, out)
    admins = installation.ensure_group(installation.ADMIN_GROUP, out)
    installation.set_up(options.data_dir, installation.DATA_PLACES, members, out)
    shared = installation.share(options.data_dir, members)
    if shared:
        out(f"gave the group {shared} entries of the store")
    installation.set_up(options.local_config, installation.CONFIG_PLACES, admins, out)
