"""`podctl image list`."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING

import click

from podctl.cli.options import flag
from podctl.cli.output import emit_json, say, table
from podctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.cli.context import Globals
    from podctl.store import ImageRecord, Store

#: field -> its header
_HEADERS = {
    "id": "ID",
    "name": "NAME",
    "size": "SIZE",
    "importtime": "IMPORT TIME",
    "lastused": "LAST USED",
}
#: fields that rkt has not; the digest takes reading an image's documents
_FORMAT, _DIGEST = "format", "digest"
_MORE = {_FORMAT: "FORMAT", _DIGEST: "DIGEST"}
#: `sha512-` and twelve digits
_SHORT_ID = 19
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


@click.command(help="List the images of the store.")
@click.option(
    "--fields",
    metavar="LIST",
    help=f"Comma list of columns ({', '.join(_HEADERS)}, {_FORMAT}; with --full also {_DIGEST}).",
)
@click.option(
    "--sort",
    metavar="FIELD",
    default="importtime",
    help="name, importtime, lastused or size (importtime).",
)
@click.option(
    "--order",
    type=click.Choice(["asc", "desc"]),
    default="asc",
    show_default=True,
    help="Direction of the sorting.",
)
@flag("--full", help="Whole image IDs, sizes in bytes and exact times.")
@flag("--no-legend", help="Leave out the header line.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "json-pretty"]),
    help="Form of the output.",
)
@click.pass_obj
def command(
    options: Globals,
    fields: str | None,
    sort: str,
    order: str,
    full: bool,
    no_legend: bool,
    form: str | None,
) -> None:
    """Print every image whose record can be read; the others are named at the end."""
    gc.disable()  # every object lives to the end
    columns = _columns(",".join(_HEADERS) if fields is None else fields)
    if full and fields is None:
        columns.append(_DIGEST)
    store = options.store()
    problems: list[str] = []
    records = store.images(problems.append)
    records.sort(key=_sort_key(sort), reverse=order == "desc")
    if form in (None, "table"):
        now = time.time()
        rows = [_row(store, record, columns, full, now) for record in records]
        headers = _HEADERS | _MORE
        table(rows, None if no_legend else [headers[column] for column in columns])
    else:
        emit_json([_json(store, record) for record in records], pretty=form == "json-pretty")
    for problem in problems:
        say(options.command, problem)


def total_size(record: ImageRecord) -> int:
    """Bytes of the uncompressed archive and of what was rendered for the image alone."""
    return record.size + record.tree_size


def _columns(fields: str) -> list[str]:
    columns = [field.strip() for field in fields.split(",")]
    for column in columns:
        if column not in _HEADERS | _MORE:
            known = ", ".join(_HEADERS | _MORE)
            raise UsageError(f'--fields: unknown field "{column}"', hint=f"known: {known}")
    return columns


def _sort_key(name: str) -> Callable[[ImageRecord], tuple[object, ...]]:
    keys: dict[str, Callable[[ImageRecord], tuple[object, ...]]] = {
        "name": lambda record: (shown_name(record), record.imported_at),
        "importtime": lambda record: (record.imported_at, record.key),
        "lastused": lambda record: (record.last_used, record.key),
        "size": lambda record: (total_size(record), record.key),
    }
    if name not in keys:
        raise UsageError(f'--sort: unknown field "{name}"', hint=f"known: {', '.join(keys)}")
    return keys[name]


def shown_name(record: ImageRecord) -> str:
    """`name:version`."""
    version = record.labels.get("version")
    return f"{record.name}:{version}" if version else record.name


def _row(
    store: Store, record: ImageRecord, columns: list[str], full: bool, now: float
) -> list[str]:
    from podctl.pods.times import absolute, ago

    def when(moment: float) -> str:
        return absolute(moment) if full else ago(moment, now)

    cells: dict[str, Callable[[], str]] = {
        "id": lambda: record.key if full else record.key[:_SHORT_ID],
        "name": lambda: shown_name(record),
        "size": lambda: str(total_size(record)) if full else human_size(total_size(record)),
        "importtime": lambda: (
            absolute(record.imported_at) if full else ago(record.imported_at, now)
        ),
        "lastused": lambda: when(record.last_used),
        _FORMAT: lambda: record.format,
        _DIGEST: lambda: _digest(store, record) or "-",
    }
    return [cells[column]() for column in columns]


def _digest(store: Store, record: ImageRecord) -> str | None:
    if not record.layered:
        return None
    from podctl.images.finding import registry_digest

    return registry_digest(store, record)


def _json(store: Store, record: ImageRecord) -> dict[str, object]:
    """rkt's entry, the format, and the digest by which a registry has the image; times in
    nanoseconds since the epoch."""
    return {
        "id": record.key,
        "name": shown_name(record),
        "import_time": int(record.imported_at * 1_000_000_000),
        "last_used_time": int(record.last_used * 1_000_000_000),
        "size": total_size(record),
        "format": record.format,
        "digest": _digest(store, record),
    }


def human_size(size: int) -> str:
    """A size in IEC units: `812B`, `5.4MiB`, `12GiB`."""
    value = float(size)
    unit = 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    digits = 1 if unit and value < 10 else 0
    return f"{value:.{digits}f}{_UNITS[unit]}"
