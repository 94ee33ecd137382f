"""`image verify`: what was unpacked and rendered, held against the stored archive."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import NotFound, PodctlError, Refused, StoreCorrupt
from podctl.images.stored import BlobDamaged, describe, renew_record, reread
from podctl.store import write_notes
from podctl.store.layout import IMAGES, LAYERS, TREES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podctl.images.render import Resolved
    from podctl.images.stored import Reread
    from podctl.store import ImageRecord, StagedImage, Store

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Problem(NamedTuple):
    """Something that differs from what the archive says.

    Args:
        place: what it is in, below the data directory.
        path: what it is about there, with a leading slash; empty for `place` itself.
        text: what is wrong with it.
    """

    place: str
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path or self.place} {self.text}"


class Verified(NamedTuple):
    """What verifying an image found.

    Args:
        rendered: whether anything was unpacked that could differ.
        problems: each difference; empty when all is well.
    """

    rendered: bool
    problems: tuple[Problem, ...]


def verify(
    store: Store,
    record: ImageRecord,
    *,
    repair: bool,
    most: int = 1,
    trees: bool = True,
    tell: Callable[[Problem], None] = lambda problem: None,
) -> Verified:
    """Check an image: its stored bytes, its manifests, its layers and its rendered tree.

    Without root only what the group shares is looked at.

    Args:
        repair: make anew what differs.
        most: how many differences of each layer to look for.
        trees: whether the image's rendered tree is looked at as well.
        tell: told of each before it is repaired.

    Raises:
        StoreCorrupt: the stored bytes are damaged, so that there is nothing to compare with.
        Refused: a running pod uses what would have to be replaced.
    """
    if record.layered:
        from podctl.images.verifylayered import verify_layered

        found = verify_layered(store, record, repair=repair, most=most, tell=tell)
    else:
        found = _verify_archive(store, record, repair=repair, most=most, tell=tell)
    if not (found.rendered and trees):
        return found
    problems = [*found.problems, *told(_tree_problems(store, record, repair=False), tell)]
    if problems and repair:
        # The tree's files are links to those of the layers, which may have been replaced.
        list(_tree_problems(store, record, repair=True))
    return Verified(found.rendered, tuple(problems))


def _verify_archive(
    store: Store,
    record: ImageRecord,
    *,
    repair: bool,
    most: int,
    tell: Callable[[Problem], None],
) -> Verified:
    diff_id = record.layers[0]
    unpacked = store.layer(diff_id) is not None
    problems: list[Problem] = []
    with reread(store, record.blob, record.format, unpack=unpacked) as fresh:
        if fresh.ingested.diff_id != diff_id:
            name = store.key_of(fresh.ingested.diff_id)
            raise BlobDamaged(record.blob, f"it is image {name}")
        problems += told(_record_problems(store, record, fresh), tell)
        if problems and repair:
            renew_record(store, record, fresh)
        if unpacked:
            in_layer = told(_archive_problems(store, record, fresh, most), tell)
            if in_layer and repair:
                replace_layer(store, fresh, fresh.unpacked.manifest)
            problems += in_layer
    return Verified(unpacked, tuple(problems))


def replace_layer(store: Store, fresh: Reread, manifest: bytes | None) -> None:
    """Put a layer that was unpacked just now in the place of a damaged one.

    Args:
        manifest: of an archive; None for a layer of a layered image.

    Raises:
        Refused: a running pod uses it.
    """
    layer = fresh.as_layer()
    refuse_in_use(store, layer.diff_id)
    write_notes(layer, manifest)
    fresh.staging.sync()
    with store.locks.preparing():
        fresh.piece.replace_layer(layer.diff_id)


def tree_problem(store: Store, resolved: Resolved, *, repair: bool) -> Problem | None:
    """Compare the rendered tree of an image with a rendering made now.

    Raises:
        NotFound: a layer it is made of is not unpacked.
        Refused: a running pod uses the tree that would have to be replaced.
    """
    from podctl.images.render import sources
    from podctl.store.trees import difference_of

    name = resolved.tree
    if name is None:
        return None

    def allow() -> None:
        refuse_in_use(store, name)

    found = difference_of(
        store,
        name,
        resolved.keys,
        sources(store, resolved),
        replace=allow if repair else None,
    )
    return None if found is None else Problem(f"{TREES}/{name}/rootfs", *found)


def refuse_in_use(store: Store, name: str) -> None:
    """Do not pull the floor from under an app.

    Raises:
        Refused: a running pod uses layer or tree `name`.
    """
    from podctl.store.usage import needs_of_running_pods

    needs = needs_of_running_pods(store.layout)
    if name in needs.layers or name in needs.trees:
        raise Refused(
            f'"{name}" is damaged and cannot be rebuilt while a running pod uses it',
            hint="stop the pods of this image, then verify it again",
        )


def told(problems: Iterator[Problem], tell: Callable[[Problem], None]) -> list[Problem]:
    found = []
    for problem in problems:
        tell(problem)
        found.append(problem)
    return found


def _record_problems(store: Store, record: ImageRecord, fresh: Reread) -> Iterator[Problem]:
    """What the group's part says of the image, against what its bytes say."""
    place = f"{IMAGES}/{record.key}"
    staged = describe(fresh)
    yield from differing_fields(record, staged)
    try:
        if store.shared_manifest(record.key) != fresh.unpacked.manifest:
            yield Problem(f"{place}/manifest", "", "was changed")
    except PodctlError as error:
        yield Problem(f"{place}/manifest", "", f"cannot be used: {error.message}")


def differing_fields(record: ImageRecord, staged: StagedImage) -> Iterator[Problem]:
    """What a record says of an image, against what is so."""
    size = sum(layer.size for layer in staged.layers)
    right = {**staged._asdict(), "size": size}
    for field in ("name", "labels", "size", "blob_size", "format"):
        if right[field] != getattr(record, field):
            what = field.replace("_", " ")
            yield Problem(f"{IMAGES}/{record.key}/record.json", "", f"has another {what}")


def _archive_problems(
    store: Store, record: ImageRecord, fresh: Reread, most: int
) -> Iterator[Problem]:
    """The unpacked archive, against what was unpacked just now."""
    place = f"{LAYERS}/{record.layers[0]}"
    try:
        if store.trusted_manifest(record) != fresh.unpacked.manifest:
            yield Problem(f"{place}/manifest", "", "was changed")
    except StoreCorrupt as error:
        yield Problem(f"{place}/manifest", "", f"cannot be used: {error.message}")
    yield from layer_problems(store, fresh, most)


def layer_problems(store: Store, fresh: Reread, most: int) -> Iterator[Problem]:
    """An unpacked layer, against what was unpacked just now."""
    from itertools import islice

    from podctl.store.compare import differences

    place = f"{LAYERS}/{fresh.ingested.diff_id}"
    assert fresh.piece.directory is not None
    right = os.open(fresh.piece.directory, _DIRECTORY)
    try:
        found = os.open(f"{store.layout.path(place)}/rootfs", _DIRECTORY)
        try:
            for difference in islice(differences(found, right), most):
                yield Problem(f"{place}/rootfs", *difference)
        finally:
            os.close(found)
    except OSError as error:
        yield Problem(f"{place}/rootfs", "", f"cannot be read: {error.strerror}")
    finally:
        os.close(right)


def _tree_problems(store: Store, record: ImageRecord, *, repair: bool) -> Iterator[Problem]:
    """The rendered tree of the image, if it has one, against the layers it is made of."""
    from podctl.images.render import resolve
    from podctl.store.trees import finished

    try:
        resolved = resolve(store, record.key)
    except (NotFound, Refused):
        return  # what cannot be resolved now is no fault of a tree rendered then
    if resolved.tree is None or finished(store, resolved.tree) is None:
        return
    problem = tree_problem(store, resolved, repair=repair)
    if problem is not None:
        yield problem
