"""`podctl inspect`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from podctl.cli.output import emit_json
from podctl.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from podctl.cli.context import Globals
    from podctl.pods.directories import Pod


@click.command(
    help="""Print all that is known of pods and images, as a JSON array.

    What names a pod is a pod; --type says otherwise."""
)
@click.option(
    "--type", "kind", type=click.Choice(["pod", "image"]), help="Only look for one of them."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "json-pretty"]),
    default="json-pretty",
    help="Form of the output.",
)
@click.argument("names", metavar="POD|IMAGE...", nargs=-1, required=True)
@click.pass_obj
def command(options: Globals, kind: str | None, form: str, names: tuple[str, ...]) -> None:
    """Find each, print them together."""
    emit_json([_look(options, name, kind) for name in names], pretty=form == "json-pretty")


def _look(options: Globals, name: str, kind: str | None) -> dict[str, Any]:
    from podctl.pods.directories import PodDirectories
    from podctl.pods.find import find

    if kind != "image":
        try:
            return _pod(find(PodDirectories(options.data_dir), name))
        except NotFound:
            if kind == "pod":
                raise
    try:
        return _image(options, name)
    except (NotFound, InvalidInput):
        what = "image" if kind == "image" else "pod or image"
        raise NotFound(
            f'no {what} "{name}"', hint="podctl list and podctl image list show them"
        ) from None


def _pod(pod: Pod) -> dict[str, Any]:
    from podctl.pods.release import flavor_of
    from podctl.pods.summary import manifest_of, running_pid, summarise

    found: dict[str, Any] = {"type": "pod", **summarise(pod)}
    found["directory"] = pod.directory
    found["flavor"] = flavor_of(pod.directory)
    pid = running_pid(pod) if pod.state == "running" else None
    if pid is not None:
        found["pid"] = pid
    settings = _read_json(pod.path("settings.json"))
    if settings is not None:
        found["settings"] = settings
    found["manifest"] = manifest_of(pod)
    return found


def _read_json(path: str) -> object:
    try:
        with open(path, "rb") as file:
            value: object = json.loads(file.read())
    except (OSError, ValueError):
        return None
    return value


def _image(options: Globals, name: str) -> dict[str, Any]:
    from podctl.images.choose import choose
    from podctl.model.jsontext import loads

    store = options.store()
    record = choose(store, name)
    found: dict[str, Any] = {
        "type": "image",
        "id": record.key,
        "name": record.name,
        "labels": dict(record.labels),
        "format": record.format,
        "source": record.source,
        "signed": record.signed,
        "size": record.size,
        "layers": list(record.layers),
        "import_time": int(record.imported_at * 1_000_000_000),
        "last_used_time": int(record.last_used * 1_000_000_000),
    }
    data = store.manifest(record.key)
    if not record.layered:
        return {**found, "manifest": loads(data, what=f'manifest of image "{name}"')}
    from podctl.images.finding import registry_digest
    from podctl.model.image import appc_value
    from podctl.plugins import image_format

    form = image_format(record.format)
    found["digest"] = registry_digest(store, record)
    found["manifest"] = appc_value(form.image(data))
    found["documents"] = {key: json.loads(text) for key, text in form.documents(data).items()}
    return found
