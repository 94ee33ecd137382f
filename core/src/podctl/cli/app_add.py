"""`podctl app add`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import click

from podctl.cli.podflags import (
    ImagesCommand,
    environment_flags,
    parsed_images,
    pod_settings,
    refuse_streams,
)
from podctl.errors import UsageError

if TYPE_CHECKING:
    from podctl.cli.context import Globals
    from podctl.cli.imageargs import ImageArgument
    from podctl.pods.compose import PodSettings, Requested

#: seconds a pod may take to start
_PATIENCE = 30.0


class AddCommand(ImagesCommand):
    """The words are a pod and one image, with the image's flags and arguments."""

    more_flags: ClassVar[dict[str, bool]] = {"--mnt-volume": True}

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """What the usage line says."""
        return ["[OPTIONS]", "POD IMAGE [--FLAG VALUE]... [-- ARGUMENT...]"]


@click.command(
    cls=AddCommand,
    help="""Add an app to a running pod of app sandbox, from an image in the store; it is started by
    app start.

    Flags that follow the image are as of run; --mnt-volume
    name=NAME,kind=KIND,source=PATH,target=PATH mounts a volume of the app's own.""",
)
@environment_flags
@click.pass_obj
def command(options: Globals, /, **given: Any) -> None:
    """Decide what the app is, make it, attach it inside the pod, print its name."""
    options.require_root()
    from podctl.cli.context import INSECURE_OPTIONS
    from podctl.cli.output import out, say
    from podctl.pods.adding import add
    from podctl.pods.directories import PodDirectories
    from podctl.pods.find import find
    from podctl.pods.flavors import load
    from podctl.pods.prepared import load_parts
    from podctl.pods.release import flavor_of
    from podctl.pods.waiting import wait_until_ready

    pod, image = _words(parsed_images().images)
    settings = pod_settings(parsed_images(), {**given, "port": ()})
    pods = PodDirectories(options.data_dir)
    found = find(pods, pod)
    if found.state in ("preparing", "running"):
        # A pod has its UUID before it has started.
        found = wait_until_ready(pods, found.uuid, _PATIENCE)
    refuse_streams(parsed_images(), load(flavor_of(found.directory)).describe())

    def decide() -> tuple[Requested, PodSettings]:
        return _requested(options, image), settings

    held = load_parts(found.directory).settings.insecure
    waived = options.insecure & INSECURE_OPTIONS["all-run"] - held
    if waived:
        names = ",".join(sorted(waived))
        say(options.command, f"--insecure-options={names} is the pod's to have: app sandbox")

    out(add(pods, options.store(), found.uuid, decide, lambda line: say(options.command, line)))


def _words(words: tuple[ImageArgument, ...]) -> tuple[str, ImageArgument]:
    if len(words) != 2:
        raise UsageError("give a pod and exactly one image")
    pod, image = words
    if pod.flags or pod.arguments is not None:
        raise UsageError("flags and arguments of the app must follow the image")
    return pod.image, image


def _requested(options: Globals, image: ImageArgument) -> Requested:
    """The image in the store, with everything said of it."""
    from podctl.cli.session import open_session
    from podctl.model.volumes import own_mount_from_text
    from podctl.pods.compose import Requested
    from podctl.pods.images import obtain
    from podctl.pods.mutable import refuse_logging

    refuse_logging(image.settings.annotations)
    own = [own_mount_from_text(text) for flag, text in image.flags if flag == "--mnt-volume"]
    found = obtain(open_session(options), image.image, "never", image.settings.signature)
    settings = image.settings._replace(mounts=(*image.settings.mounts, *own))
    return Requested(settings, image.arguments, found)
