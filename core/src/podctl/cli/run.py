"""`podctl run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from podctl.cli.podflags import (
    Decision,
    ImagesCommand,
    flavor_of_flags,
    keeping,
    manifest_flags,
    pod_name,
    print_plan,
    run_flags,
    run_settings,
    uuid_announcer,
)

if TYPE_CHECKING:
    from podctl.cli.context import Globals


@click.command(
    cls=ImagesCommand,
    help="""Run images as a pod: this process becomes it.

    Flags that follow an image are about that image: --exec, --user, --group, --working-dir,
    --environment, --mount, --name, --memory, --caps-retain, --seccomp and others; so are the
    arguments after `--`, up to `---`. --volume is about the whole pod.""",
)
@manifest_flags
@run_flags
@click.option("--uuid-file-save", metavar="FILE", help="Write the pod's UUID to this file.")
@click.pass_obj
def command(options: Globals, /, uuid_file_save: str | None, **given: Any) -> None:
    """Choose the flavor, refuse what it cannot do, prepare, and become the pod."""
    options.require_root()
    from podctl.cli.output import out, say
    from podctl.pods.directories import PodDirectories
    from podctl.pods.start import Starter

    name, kept = pod_name(given), keeping(options, given)
    flavor = flavor_of_flags(options, given)
    settings = run_settings(options, flavor.describe(), given)
    store = options.store()
    decide = Decision(options, store, flavor, settings, given)
    pods = PodDirectories(options.data_dir)
    starter = Starter(pods, store, flavor, lambda line: say(options.command, line), name=name)
    if given["dry_run"]:
        print_plan(starter.plan_run(decide), given["form"])
    else:
        out(starter.run(decide, uuid_announcer(uuid_file_save), kept))
