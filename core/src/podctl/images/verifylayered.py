"""`image verify` of a layered image: its documents are certain, the rest is held against them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from podctl.errors import StoreCorrupt
from podctl.images.converted import installation, renew_view
from podctl.images.stored import describe_document, renew, reread
from podctl.images.verifying import (
    Problem,
    Verified,
    differing_fields,
    layer_problems,
    replace_layer,
    told,
)
from podctl.model.imagedocument import MAX_DOCUMENT
from podctl.store.layout import IMAGES, VERIFIED, VIEW
from podctl.store.views import view_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podctl.model.image import Image, Layer
    from podctl.store import ImageRecord, StagedImage, StagedLayer, Store

#: The format whose provider reads image documents.
FORMAT = "oci"


def verify_layered(
    store: Store,
    record: ImageRecord,
    *,
    repair: bool,
    most: int,
    tell: Callable[[Problem], None],
) -> Verified:
    """See podctl.images.verifying.verify.

    Raises:
        StoreCorrupt: documents or bytes are damaged.
        Refused: a running pod uses a layer that would have to be replaced.
    """
    from podctl.plugins import image_format

    image: Image = image_format(FORMAT).image(store.manifest(record.key))
    problems: list[Problem] = []
    # By layer, not by its digest: one tree may have been published compressed in two ways.
    staged: dict[Layer, StagedLayer] = {}
    rendered = False
    for layer in dict.fromkeys(image.layers):
        unpacked = store.layer(layer.diff_id) is not None
        rendered = rendered or unpacked
        found, staged[layer] = _verify_layer(
            store, record, layer, unpacked=unpacked, repair=repair, most=most, tell=tell
        )
        problems += found
    right = describe_document(image, tuple(staged[layer] for layer in image.layers))
    in_record = told(_record_problems(store, record, right), tell)
    if in_record and repair:
        with store.staging(unpack=False) as staging:
            renew(store, staging, right, record)
    in_view = told(_view_problems(store, record.key, image), tell)
    if in_view and repair:
        renew_view(store, record.key, image)
    return Verified(rendered, tuple(problems + in_record + in_view))


def rebuild(store: Store, document: bytes, record: ImageRecord | None) -> None:
    """Make the record of a layered image anew from its documents, which are certain; its layers
    are read through.

    Args:
        record: what is known beyond them; None when it is lost.

    Raises:
        StoreCorrupt: bytes of a layer are missing or damaged.
        ManifestInvalid: it is no image document.
    """
    from podctl.plugins import image_format

    image: Image = image_format(FORMAT).image(document)
    staged: dict[Layer, StagedLayer] = {}
    with ExitStack() as stack:
        for layer in dict.fromkeys(image.layers):
            unpack = store.privileged and store.layer(layer.diff_id) is None
            fresh = stack.enter_context(
                reread(store, layer.blob, FORMAT, unpack=unpack, layer=layer)
            )
            found = fresh.as_layer()
            staged[layer] = found if unpack else found._replace(piece=None)
        right = describe_document(image, tuple(staged[layer] for layer in image.layers))
        with store.staging(unpack=False) as staging:
            renew(store, staging, right, record)


def _verify_layer(
    store: Store,
    record: ImageRecord,
    layer: Layer,
    *,
    unpacked: bool,
    repair: bool,
    most: int,
    tell: Callable[[Problem], None],
) -> tuple[list[Problem], StagedLayer]:
    if store.blob_size(layer.blob) is None:
        raise StoreCorrupt(
            f'blob "{layer.blob}" of image "{record.name}" is missing',
            hint="fetch the image again",
        )
    with reread(store, layer.blob, FORMAT, unpack=unpacked, layer=layer) as fresh:
        problems = told(layer_problems(store, fresh, most), tell) if unpacked else []
        if problems and repair:
            replace_layer(store, fresh, None)
        return problems, fresh.as_layer()._replace(piece=None)


def _record_problems(store: Store, record: ImageRecord, right: StagedImage) -> Iterator[Problem]:
    yield from differing_fields(record, right)
    layers = tuple(layer.diff_id for layer in right.layers)
    blobs = tuple(layer.blob for layer in right.layers)
    if layers != record.layers or blobs != record.blobs:
        yield Problem(f"{IMAGES}/{record.key}/record.json", "", "has other layers")
    if right.document != record.document:
        yield Problem(f"{IMAGES}/{record.key}/record.json", "", "has other documents")
    blob = store.layout.blob(right.document)
    if store.blob_size(right.document) is None:
        yield Problem(blob, "", "is missing")
    elif _content(store, blob) != right.manifest:
        yield Problem(blob, "", "has other content")


def _view_problems(store: Store, key: str, image: Image) -> Iterator[Problem]:
    problem = view_problem(store, key, image, installation(FORMAT))
    if problem is not None:
        yield Problem(f"{VERIFIED}/{key}{VIEW}", "", problem)


def _content(store: Store, name: str) -> bytes | None:
    try:
        return store.area.read(name, MAX_DOCUMENT)
    except (OSError, ValueError):
        return None
