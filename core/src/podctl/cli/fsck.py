"""`podctl fsck`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podctl.cli.options import flag
from podctl.cli.output import out
from podctl.errors import PodctlError

if TYPE_CHECKING:
    from podctl.cli.context import Globals
    from podctl.store import Store
    from podctl.store.fsck import Finding

#: Passes of looking and repairing.
_ROUNDS = 3


@click.command(
    help="""Check the store and the pods to the byte: one line for each thing that is wrong.

    Every stored archive is read again, and records, manifests, unpacked layers and rendered trees
    are held against it. --repair makes them anew from the archive; what cannot be saved is moved
    to cas/quarantine. Without root only what the group shares is looked at."""
)
@flag("--repair", help="Repair what can be repaired.")
@click.pass_obj
def command(options: Globals, repair: bool) -> None:
    """Exit 254 when something is wrong and, with --repair, could not be repaired."""
    store = options.store()
    if repair:
        from podctl.store.leftovers import clear_leftovers

        clear_leftovers(store)
    remaining = _repair_all(store) if repair else _look(store)
    for finding in remaining:
        out(f"{finding.path}: {finding.problem}")
    if remaining:
        things = "thing is" if len(remaining) == 1 else "things are"
        hint = "podctl rm and podctl image rm remove them" if repair else "podctl fsck --repair"
        raise PodctlError(f"{len(remaining)} {things} wrong", hint=hint)


def _look(store: Store) -> list[Finding]:
    from podctl.images.fsck import StoreCheck
    from podctl.pods.fsck import check_pods

    return [*StoreCheck(store).findings(), *check_pods(store)]


def _repair_all(store: Store) -> list[Finding]:
    """Repair until nothing is wrong or nothing helps; what remains."""
    findings = _look(store)
    for _ in range(_ROUNDS):
        # One repair may settle several findings, or bring to light what they hid.
        repaired = [_repair(finding) for finding in findings]
        if not any(repaired):
            break
        findings = _look(store)
    return findings


def _repair(finding: Finding) -> bool:
    """Repair one thing and say how; False when it cannot be."""
    if finding.repair is None:
        return False
    try:
        done = finding.repair()
    except (PodctlError, OSError) as error:
        out(f"{finding.path}: cannot be repaired: {error}")
        return False
    out(f"{finding.path}: {finding.problem} ({done})")
    return True
