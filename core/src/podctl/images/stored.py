"""Reading a stored image again from its bytes: to verify what was unpacked, to repair, to export.

The archive is read by the same children that read it when it was fetched, so what is compared
with is what unpacking it now would give, to the last attribute.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import ArchiveInvalid, NotFound, PodctlError, Refused, StoreCorrupt
from podctl.model.layout import ArchiveLimits
from podctl.store import StagedImage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podctl.images.ingest import Ingested
    from podctl.images.transfer import Unpacked
    from podctl.model.image import Image
    from podctl.store import ImageRecord, Staging, Store

_MAX_BYTES = 64 << 30
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: A single file that is an image is an ACI.
_FORMAT = "aci"


class Reread(NamedTuple):
    """One pass over stored bytes, unpacked into staging or only checked."""

    ingested: Ingested
    unpacked: Unpacked
    staging: Staging


@contextmanager
def reread(store: Store, blob: str, form: str = _FORMAT, *, unpack: bool) -> Iterator[Reread]:
    """Read the bytes named `blob` through, as when they were fetched.

    Raises:
        StoreCorrupt: they are not what their name says, or no archive.
    """
    from podctl.images.transfer import Transfer, transfer_local
    from podctl.plugins import image_format

    layout = image_format(form).layout()
    with store.staging(unpack=unpack) as staging:
        fd = store.open_blob(blob)
        try:
            transfer = Transfer(layout, staging.directory, None, ArchiveLimits(), _MAX_BYTES)
            ingested, unpacked = transfer_local(fd, transfer, None)
        except ArchiveInvalid as error:
            raise _damaged(blob, error.message) from error
        finally:
            os.close(fd)
        if ingested.blob != blob:
            raise _damaged(blob, f"its digest is {ingested.blob}")
        yield Reread(ingested, unpacked, staging)


def _damaged(blob: str, reason: str) -> StoreCorrupt:
    return StoreCorrupt(
        f'stored bytes "{blob}" are damaged: {reason}',
        hint="remove the image and fetch it again",
    )


class Verified(NamedTuple):
    """What verifying an image found.

    Args:
        rendered: whether anything was unpacked that could differ.
        problems: one line for each difference; empty when all is well.
        repaired: whether what differed was made anew.
    """

    rendered: bool
    problems: tuple[str, ...]
    repaired: bool


def verify(
    store: Store,
    record: ImageRecord,
    *,
    repair: bool,
    most: int = 1,
    trees: bool = True,
    tell: Callable[[str], None] = lambda problem: None,
) -> Verified:
    """Check an image: its stored bytes, its manifests, its layer and its rendered tree.

    Without root only what the group shares is looked at.

    Args:
        repair: unpack the layer or render the tree again if it differs.
        most: how many differences to look for.
        trees: whether the image's rendered tree is looked at as well.
        tell: told of each before it is repaired.

    Raises:
        StoreCorrupt: the stored bytes are damaged, so that there is nothing to compare with.
        Refused: a running pod uses what would have to be replaced.
    """
    diff_id = record.layers[0]
    layer = store.layer(diff_id)
    with reread(store, record.blob, record.format, unpack=layer is not None) as fresh:
        if fresh.ingested.diff_id != diff_id:
            raise _damaged(
                record.blob, f"they are the image {store.key_of(fresh.ingested.diff_id)}"
            )
        problems = _shared_problems(store, record, fresh)
        for problem in problems:
            tell(problem)
        if problems and repair:
            renew_record(store, record, fresh)
        if layer is None:
            return Verified(False, tuple(problems), repair and bool(problems))
        found = _layer_problems(store, record, fresh, most)
        for problem in found:
            tell(problem)
        if found and repair:
            _refuse_in_use(store, diff_id)
            fresh.staging.write_layer_notes(diff_id, fresh.unpacked.manifest, ())
            fresh.staging.sync()
            with store.locks.preparing():
                fresh.staging.replace_layer(diff_id)
    in_tree = _tree_problems(store, record, repair=repair) if trees else []
    for problem in in_tree:
        tell(problem)
    problems += found + in_tree
    return Verified(True, tuple(problems), repair and bool(problems))


def renew_record(store: Store, record: ImageRecord | None, fresh: Reread) -> None:
    """Write an image's record anew from its bytes.

    Args:
        record: what is known beyond them (source, times); None when it is lost.
    """
    staged = describe(fresh)
    signature = _signature(store, store.key_of(staged.diff_id))
    if record is None:
        store.commit(fresh.staging, staged._replace(signature=signature))
        return
    staged = staged._replace(source=record.source, latest=record.latest, signature=signature)
    renewed = store.commit(fresh.staging, staged)
    store.restore_times(renewed._replace(imported_at=record.imported_at), record.last_used)


def describe(fresh: Reread) -> StagedImage:
    """See describe_pass."""
    return describe_pass(fresh.ingested, fresh.unpacked)


def describe_pass(ingested: Ingested, unpacked: Unpacked) -> StagedImage:
    """What an image's bytes say of themselves, ready to be committed.

    Raises:
        ManifestInvalid: the manifest breaks the format.
    """
    from podctl.plugins import image_format

    image: Image = image_format(_FORMAT).image(unpacked.manifest)
    return StagedImage(
        format=image.format,
        name=image.name,
        labels=dict(image.labels),
        diff_id=ingested.diff_id,
        size=ingested.size,
        blob=ingested.blob,
        blob_size=ingested.blob_size,
        manifest=unpacked.manifest,
        signature=None,
        source="",
        latest=False,
    )


def _signature(store: Store, key: str) -> bytes | None:
    try:
        return store.signature(key)
    except StoreCorrupt:
        return None


def _shared_problems(store: Store, record: ImageRecord, fresh: Reread) -> list[str]:
    """What the group's part says of the image, against what its bytes say."""
    problems = []
    staged = describe(fresh)
    for what in ("name", "labels", "size", "blob_size", "format"):
        if getattr(staged, what) != getattr(record, what):
            problems.append(f"the record has another {what.replace('_', ' ')}")
    try:
        shared = store.shared_manifest(record.key)
    except PodctlError as error:
        problems.append(error.message)
    else:
        if shared != fresh.unpacked.manifest:
            problems.append("the manifest beside the record was changed")
    return problems


def _layer_problems(store: Store, record: ImageRecord, fresh: Reread, most: int) -> list[str]:
    """The unpacked layer, against what was unpacked just now."""
    from podctl.store.compare import differences

    problems = []
    try:
        if store.trusted_manifest(record) != fresh.unpacked.manifest:
            problems.append("the layer's manifest was changed")
    except StoreCorrupt as error:
        problems.append(error.message)
    if fresh.staging.directory is None:
        return problems
    right = os.open(fresh.staging.directory, _DIRECTORY)
    try:
        found = os.open(f"{store.layout.layer(record.layers[0])}/rootfs", _DIRECTORY)
    except OSError as error:
        os.close(right)
        return [*problems, f"the layer cannot be opened: {error.strerror}"]
    try:
        for problem in differences(found, right):
            if len(problems) >= most:
                break
            problems.append(problem)
    except OSError as error:
        problems.append(f"the layer cannot be read: {error}")
    finally:
        os.close(found)
        os.close(right)
    return problems


def _tree_problems(store: Store, record: ImageRecord, *, repair: bool) -> list[str]:
    """The rendered tree of the image, if it has one, against the layers it is made of."""
    from podctl.images.render import resolve
    from podctl.store.trees import finished

    try:
        resolved = resolve(store, record.key)
    except (NotFound, Refused):
        return []  # what cannot be resolved now is no fault of a tree rendered then
    if resolved.tree is None or finished(store, resolved.tree) is None:
        return []
    return check_tree(store, record.key, repair=repair)


def check_tree(store: Store, key: str, *, repair: bool, name: str | None = None) -> list[str]:
    """Compare the rendered tree of image `key` with a rendering made now.

    Args:
        name: look only if this is the tree the image has today.

    Raises:
        NotFound, Refused: it cannot be rendered now, or a running pod uses it.
    """
    from podctl.images.render import resolve, sources
    from podctl.store.trees import differences_of

    resolved = resolve(store, key)
    if resolved.tree is None or name not in (None, resolved.tree):
        return []

    def allow() -> None:
        assert resolved.tree is not None
        _refuse_in_use(store, resolved.tree)

    layers = sources(store, resolved)
    return differences_of(
        store, resolved.tree, resolved.keys, layers, replace=allow if repair else None
    )


def _refuse_in_use(store: Store, name: str) -> None:
    """Do not pull the floor from under an app."""
    from podctl.store.usage import needs_of_running_pods

    needs = needs_of_running_pods(store.layout)
    if name in needs.layers or name in needs.trees:
        raise Refused(
            f'"{name}" is damaged and cannot be rebuilt while a running pod uses it',
            hint="stop the pods of this image, then verify it again",
        )


def export(store: Store, record: ImageRecord, fd: int) -> None:
    """Write an image's uncompressed archive, byte for byte, to `fd`.

    Raises:
        StoreCorrupt: the stored bytes are not the image.
    """
    from podctl.sys.child import Privileges, spawn

    blob_fd = store.open_blob(record.blob)
    try:
        import hashlib  # noqa: F401 - for the child, which cannot import any more

        from podctl.images import compression

        compression.preload()
        child = spawn(
            lambda: _decompress(blob_fd, fd),
            privileges=Privileges.NONE,
            keep=(blob_fd, fd),
            name="export",
        )
        with child:
            diff_id = child.wait()
    except ArchiveInvalid as error:
        raise _damaged(record.blob, error.message) from error
    finally:
        os.close(blob_fd)
    if diff_id != record.layers[0]:
        raise _damaged(record.blob, "they are another image")


def _decompress(blob_fd: int, fd: int) -> str:
    import hashlib

    from podctl.images.compression import decompressor
    from podctl.sys.files import write_all

    digest = hashlib.sha512()
    with open(blob_fd, "rb", buffering=0, closefd=False) as stream:
        reader = decompressor(stream, declared=None, limits=ArchiveLimits())
        while data := reader.read(1 << 20):
            digest.update(data)
            write_all(fd, data)
    return f"sha512-{digest.hexdigest()}"


def ensure_unpacked(store: Store, record: ImageRecord, say: Callable[[str], None]) -> str:
    """Path of an image's layer, unpacked now if it was not; root only.

    Nothing is said about trust: the layer's name is its digest, so it is the image's bytes.

    Raises:
        StoreCorrupt: the stored bytes are not the image.
    """
    path = store.layer(record.layers[0])
    if path is None:
        say(f'unpacking image "{record.name}"')
        with reread(store, record.blob, record.format, unpack=True) as fresh:
            if fresh.ingested.diff_id != record.layers[0]:
                raise _damaged(record.blob, "they are another image")
            store.commit_layer(fresh.staging, fresh.ingested.diff_id, fresh.unpacked.manifest)
        path = store.layer(record.layers[0])
        assert path is not None
    return path
