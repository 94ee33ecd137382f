"""`podctl generate-unit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from podctl.cli.options import normalise
from podctl.errors import UsageError

if TYPE_CHECKING:
    from podctl.cli.context import Globals
    from podctl.model.quantity import Quantity
    from podctl.pods.unitfile import Unit

_RUN = "podctl.unit.run"
#: flags of `run` that make no sense where systemd is the supervisor
_UNFIT = {
    "detach": "--detach",
    "rm": "--rm",
    "interactive": "--interactive",
    "dry_run": "--dry-run",
    "uuid_file_save": "--uuid-file-save",
}
#: bytes; less is a slip like `16m`
_MIN_MEMORY = 4096
_UUID_FILE = "%t/%N.uuid"
_RESTARTS = ["no", "on-success", "on-failure", "on-abnormal", "on-abort", "always"]


class UnitCommand(click.Command):
    """A command whose words after --run are those of another."""

    sorts_words = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Set apart what belongs to `run`."""
        own = args[: args.index("--run")] if "--run" in args else args
        ctx.meta[_RUN] = args[len(own) + 1 :] if len(own) < len(args) else None
        return super().parse_args(ctx, normalise(self.params, own))

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """What the usage line says."""
        return ["[OPTIONS] POD | --run ARGUMENT..."]


@click.command(
    cls=UnitCommand,
    help="""Print a systemd unit that runs a pod.

    With --run, everything after it is what `podctl run` is given, and each start of the unit is a
    new pod. With the name or UUID of a prepared pod, the unit runs that one, once.

    Global options, such as --dir, are carried over.""",
)
@click.option("--description", metavar="TEXT", help="The unit's description.")
@click.option(
    "--restart",
    type=click.Choice(_RESTARTS),
    help="When systemd starts the pod again (on-failure; of a prepared pod: no).",
)
@click.option(
    "--stop-timeout",
    type=click.IntRange(1, 86400),
    default=15,
    metavar="SECONDS",
    help="When systemd kills what has not ended (15; podctl does so after 10).",
)
@click.option("--slice", "slice_", metavar="SLICE", help="Slice of the unit (machine.slice).")
@click.option("--memory-max", metavar="BYTES", help="Limit of the whole pod: 512M, 2G.")
@click.option("--cpu-max", metavar="CORES", help="Limit of the whole pod: 1.5, 500m.")
@click.option("--tasks-max", type=click.IntRange(1, 1 << 22), help="Processes and threads.")
@click.argument("pod", required=False)
@click.pass_obj
def command(options: Globals, /, pod: str | None, **given: Any) -> None:
    """Put the unit together and print it."""
    from podctl.cli.output import out

    ours = _podctl(options)
    arguments: list[str] | None = click.get_current_context().meta[_RUN]
    if (pod is None) == (arguments is None):
        raise UsageError("name a prepared pod, or write --run and the arguments of run")
    made = _of_pod(options, ours, pod) if arguments is None else _of_run(options, ours, arguments)
    unit = made._replace(
        description=given["description"] or made.description,
        restart=given["restart"] or made.restart,
        stop_seconds=given["stop_timeout"],
        slice=_slice(given["slice_"]) or made.slice,
        memory=_memory(given["memory_max"]),
        cpu_percent=_cpu(given["cpu_max"]),
        tasks=given["tasks_max"],
    )
    out(unit.text().rstrip("\n"))


def _of_run(options: Globals, ours: tuple[str, ...], arguments: list[str]) -> Unit:
    from podctl.cli.podflags import parsed_images
    from podctl.model.conversion import NOTIFIES
    from podctl.pods.flavors import Stage1Flags, choose
    from podctl.pods.unitfile import Raw, Unit

    root = click.get_current_context().find_root()
    assert isinstance(root.command, click.Group)
    run = root.command.get_command(root, "run")
    assert run is not None
    with run.make_context("run", list(arguments), parent=root) as context:
        params, images = context.params, parsed_images()
        for name, flag in _UNFIT.items():
            if params[name]:
                raise UsageError(f"{flag} does not go with a unit", hint="leave it out")
    if not images.images and not params["pod_manifest"]:
        raise UsageError("--run must be followed by an image")
    flags = Stage1Flags(**{name: params[name] for name in Stage1Flags._fields})
    flavor = choose(flags, options.config().stage1)
    told = any(image.settings.annotations.get(NOTIFIES) == "true" for image in images.images)
    return Unit(
        description=f"Pod of {', '.join(image.image for image in images.images) or 'podctl'}",
        start=(*ours, "run", Raw(f"--uuid-file-save={_UUID_FILE}"), *arguments),
        after_stop=(*ours, "rm", Raw(f"--uuid-file={_UUID_FILE}")),
        # In other flavors nobody is left that could tell.
        notifies=flavor == "nspawn",
        hears_apps=told and flavor == "nspawn",
    )


def _of_pod(options: Globals, ours: tuple[str, ...], text: str | None) -> Unit:
    from podctl.errors import PodStateError
    from podctl.pods.directories import PREPARED, PodDirectories
    from podctl.pods.find import find
    from podctl.pods.prepared import load_parts
    from podctl.pods.release import flavor_of
    from podctl.pods.unitfile import Unit

    pod = find(PodDirectories(options.data_dir), text or "")
    if pod.place != PREPARED:
        raise PodStateError(
            f'pod "{pod.uuid}" is not prepared, and a pod runs once',
            hint="have the unit make a new pod at each start: generate-unit --run",
        )
    flavor = flavor_of(pod.directory)
    told = any(app.notifies for app in load_parts(pod.directory).manifest.apps)
    return Unit(
        description=f"Pod {text}",
        start=(*ours, "run-prepared", pod.uuid),
        notifies=flavor == "nspawn",
        hears_apps=told and flavor == "nspawn",
        restart="no",
    )


def _podctl(options: Globals) -> tuple[str, ...]:
    """The command, with the global options that were given."""
    import os
    import sys

    words = [_launcher(os.path.dirname(sys.executable))]
    if options.dir is not None:
        words.append(f"--dir={options.data_dir}")
    for name, default in (
        ("system_config", "/usr/lib/podctl"),
        ("local_config", "/etc/podctl"),
        ("user_config", ""),
    ):
        value = getattr(options, name)
        if value != default:
            words.append(f"--{name.replace('_', '-')}={os.path.abspath(value)}")
    if options.insecure:
        words.append(f"--insecure-options={','.join(sorted(options.insecure))}")
    return tuple(words)


def _launcher(directory: str) -> str:
    """The script beside the interpreter, where there is one."""
    import os

    path = os.path.join(directory, "podctl")
    return path if os.access(path, os.X_OK) else "/usr/bin/podctl"


def _slice(text: str | None) -> str | None:
    if text is None:
        return None
    name = text.removesuffix(".slice")
    if not name or not all(char.isalnum() or char in ":-_.\\" for char in name):
        raise UsageError(f"--slice {text!r} is no name of a slice")
    return f"{name}.slice"


def _memory(text: str | None) -> str | None:
    if text is None:
        return None
    units = _quantity(text, "--memory-max").units
    if units < _MIN_MEMORY:
        raise UsageError(
            f"--memory-max {text!r} is less than {_MIN_MEMORY} bytes", hint="m means thousandths"
        )
    return str(units)


def _cpu(text: str | None) -> int | None:
    if text is None:
        return None
    percent = _quantity(text, "--cpu-max").milli // 10
    if percent < 1:
        raise UsageError(f"--cpu-max {text!r} is less than a hundredth of a processor")
    return percent


def _quantity(text: str, flag: str) -> Quantity:
    from podctl.errors import InvalidInput
    from podctl.model.quantity import parse_quantity

    try:
        return parse_quantity(text, flag)
    except InvalidInput as error:
        raise UsageError(error.message, hint=error.hint) from None
