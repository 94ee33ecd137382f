"""`podctl app sandbox`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from podctl.cli.podflags import (
    flavor_of_flags,
    name_flag,
    names_flags,
    net_flag,
    pod_name,
    root_flags,
    run_settings,
    stage1_flags,
    uuid_announcer,
)

if TYPE_CHECKING:
    from podctl.cli.context import Globals
    from podctl.plugins import FlavorHandle
    from podctl.pods.prepare import Contents
    from podctl.pods.prepared import RunSettings

#: what `run` has and a pod without apps has no use for
_UNSAID = {"interactive": False, "mds_register": False, "ipc": None}


@click.command(
    help="""Run a pod without apps: this process becomes it, and it lives until it is stopped.

    Apps are added by app add, started by app start. What they print appears here."""
)
@click.option("--port", multiple=True, metavar="NAME:PROTO:PORT:IP:PORT", help="Publish a port.")
@click.option("--annotation", multiple=True, metavar="NAME=VALUE", help="Annotation of the pod.")
@click.option("--user-annotation", multiple=True, metavar="KEY=VALUE", help="For people.")
@click.option("--user-label", multiple=True, metavar="KEY=VALUE", help="For people.")
@net_flag
@names_flags
@root_flags
@name_flag
@stage1_flags
@click.option("--uuid-file-save", metavar="FILE", help="Write the pod's UUID to this file.")
@click.pass_obj
def command(options: Globals, /, uuid_file_save: str | None, **given: Any) -> None:
    """Choose the flavor, refuse what it cannot do, prepare, and become the pod."""
    options.require_root()
    from podctl.cli.output import say
    from podctl.pods.directories import PodDirectories
    from podctl.pods.start import Starter

    name = pod_name(given)
    flavor = flavor_of_flags(options, given)
    settings = run_settings(options, flavor.describe(), {**given, **_UNSAID})
    contents = _contents(flavor, settings, given)
    pods = PodDirectories(options.data_dir)

    def tell(line: str) -> None:
        say(options.command, line)

    starter = Starter(pods, options.store(), flavor, tell, name=name)
    starter.run(lambda: contents, uuid_announcer(uuid_file_save))


def _contents(flavor: FlavorHandle, settings: RunSettings, given: dict[str, Any]) -> Contents:
    from podctl.errors import Refused
    from podctl.model.podmanifest import MUTABLE, PodManifest
    from podctl.model.settings import parse_annotations, parse_pairs
    from podctl.pods.mutable import refuse_logging
    from podctl.pods.prepare import Contents

    if not flavor.describe().mutable:
        raise Refused(
            f"flavor {flavor.name} runs no pods whose apps come and go",
            hint="choose a flavor with --stage1=nspawn",
        )
    if given["port"]:
        raise Refused(f"flavor {flavor.name} does not publish ports", hint="leave out --port")
    annotations = parse_annotations(given["annotation"])
    refuse_logging(annotations)
    manifest = PodManifest(
        annotations={**annotations, MUTABLE: "true"},
        user_annotations=parse_pairs("--user-annotation", given["user_annotation"]),
        user_labels=parse_pairs("--user-label", given["user_label"]),
    )
    return Contents(flavor.name, manifest, (), settings, not given["no_overlay"])
