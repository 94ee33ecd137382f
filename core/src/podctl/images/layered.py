"""A layered image (Docker, OCI): its documents judged first, then its layers brought in."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from podctl.errors import FetchFailed, ImageGone, ManifestInvalid, StoreCorrupt, TrustRefused
from podctl.images.admit import SCHEMES, judge, signature_check
from podctl.images.converted import remember_image
from podctl.images.finding import delivered, remote_url
from podctl.images.ingest import verdict_from_json, verdict_to_json
from podctl.images.pull import LayerSource, Pull
from podctl.images.stored import describe_document
from podctl.images.wire import resolve
from podctl.model.fetching import CacheState
from podctl.model.imagedocument import parse_document
from podctl.sys.child import Privileges, spawn
from podctl.trust.policy import HINT

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.images.session import FetchSession
    from podctl.images.transfer import Download
    from podctl.model.fetching import FetchRequest, Resolution, Resume
    from podctl.model.image import Image, Layer
    from podctl.model.reference import Reference
    from podctl.model.trusting import Verdict, Verifier
    from podctl.plugins import FormatHandle, TransportHandle
    from podctl.store import ImageRecord


def fetch_registry(
    session: FetchSession, carrier: TransportHandle, reference: Reference, request: FetchRequest
) -> ImageRecord:
    """Resolve a reference to a registry, and bring in what the store does not hold of the image.

    Raises:
        FetchFailed: nothing was found or a transfer failed (what arrived is kept to resume).
        ImageGone: it was unchanged, but is removed.
        TrustRefused, DigestMismatch, ArchiveInvalid, ManifestInvalid: what came may not be used.
    """
    from podctl.images.fetch import use_image
    from podctl.plugins import image_format

    session.say(f"remote fetching from registry: {reference.path_or_url}")
    url = remote_url(reference)
    request = _conditional(session, url, request)
    resolution = resolve(carrier, reference, request)
    if resolution.not_modified:
        record = delivered(session.store, url)
        if record is None:
            # Between the question and the answer; the caller asks again.
            raise ImageGone(f"{reference.path_or_url} was removed while it was fetched")
        session.say(f"image {reference.path_or_url} is unchanged, not fetching")
        use_image(session, record)
        return record
    form = image_format(resolution.format)
    image = _asked_for(form, resolution, reference)

    def fetch(layer: Layer, resume: Resume | None) -> Download:
        return lambda sink: carrier.layer(resolution, layer, resume, request, sink)

    record = take_in(
        session,
        form,
        image,
        LayerSource(fetch=fetch),
        signature=resolution.signature,
        source_name=resolution.location,
    )
    session.store.put_remote(url, record.key, etag=resolution.etag, max_age=resolution.max_age)
    return record


def take_in(
    session: FetchSession,
    form: FormatHandle,
    image: Image,
    source: LayerSource,
    *,
    signature: bytes | None,
    source_name: str = "",
) -> ImageRecord:
    """Judge an image by its documents, then bring in its layers and commit it.

    Raises:
        TrustRefused: no trusted signature stands for it; no layer was asked for.
        FetchFailed, DigestMismatch, ArchiveInvalid: see podctl.images.pull.Pull.run.
    """
    from podctl.plugins import events

    verdict = _verdict(session, image, signature)
    verification = judge(session, image, verdict)
    events(session.say).image_verified(image, verdict)
    with ExitStack() as stack:
        staging = stack.enter_context(session.store.staging())
        layers = Pull(session, staging, form.layout(), source).run(image, stack)
        staged = describe_document(image, layers)
        record = session.store.commit(
            staging, staged._replace(signature=signature, source=source_name)
        )
    if session.store.privileged:
        session.store.mark_verified(record.key, verification)
        remember_image(session.store, record.key, image)
    return record


def readmit_layered(
    session: FetchSession,
    form: FormatHandle,
    record: ImageRecord,
    verifier: Callable[[], Verifier] | None,
) -> None:
    """Check a stored layered image again from its documents and bytes.

    Args:
        verifier: begins the check of its signature; None where nobody asks for one.

    Raises:
        StoreCorrupt: record, documents and bytes do not fit.
        TrustRefused: no trusted signature stands for it.
    """
    image = stored_image(session, form, record)
    verdict = None if verifier is None else verify_document(verifier, image.manifest)
    verification = judge(session, image, verdict)
    unpack_stored(session, form, record, image)
    session.store.mark_verified(record.key, verification)
    remember_image(session.store, record.key, image)


def stored_image(session: FetchSession, form: FormatHandle, record: ImageRecord) -> Image:
    """Read an image's documents and hold its record against them.

    Raises:
        StoreCorrupt: they do not agree.
    """
    image: Image = form.image(session.store.manifest(record.key))
    same = (
        image.name == record.name
        and dict(image.labels) == dict(record.labels)
        and tuple(layer.diff_id for layer in image.layers) == record.layers
        and tuple(layer.blob for layer in image.layers) == record.blobs
    )
    if not same:
        raise StoreCorrupt(
            f'record of image "{record.key}" does not fit its documents',
            hint="run podctl fsck --repair",
        )
    return image


def unpack_stored(
    session: FetchSession, form: FormatHandle, record: ImageRecord, image: Image
) -> None:
    """Unpack the layers of a stored image that are not; root only.

    Raises:
        StoreCorrupt: their bytes are not here, or not what the documents say.
    """
    if all(session.store.layer(layer.diff_id) is not None for layer in image.layers):
        return
    try:
        with ExitStack() as stack:
            staging = stack.enter_context(session.store.staging())
            layers = Pull(session, staging, form.layout(), LayerSource()).run(image, stack)
            session.store.commit_layers(staging, layers, None)
    except (FetchFailed, ManifestInvalid) as error:
        raise StoreCorrupt(f'image "{record.key}": {error.message}') from error


def verify_document(verifier: Callable[[], Verifier], document: bytes) -> Verdict:
    """Check signatures over an image document in a child.

    Raises:
        TrustRefused: none is good.
    """

    def work() -> Any:
        check = verifier()
        check.update(document)
        return verdict_to_json(check.finish())

    with spawn(work, privileges=Privileges.NONE, name="signature check") as child:
        verdict = verdict_from_json(child.wait())
    assert verdict is not None
    return verdict


def _verdict(session: FetchSession, image: Image, signature: bytes | None) -> Verdict | None:
    if not session.verifies:
        return None
    from podctl.plugins import trust_scheme

    scheme = trust_scheme(SCHEMES[image.format])
    scheme.preload()
    if signature is None:
        raise TrustRefused(f'image "{image.name}" has no signature', hint=HINT)
    return verify_document(signature_check(session, scheme, signature, image.name), image.manifest)


def _conditional(session: FetchSession, url: str, request: FetchRequest) -> FetchRequest:
    """Let an unchanged answer count, unless what is held lacks the signature that is asked for."""
    held = delivered(session.store, url)
    remote = session.store.remote(url)
    if held is None or remote is None or (session.verifies and not held.signed):
        return request
    return replace(request, cached=CacheState(etag=remote.etag))


def _asked_for(form: FormatHandle, resolution: Resolution, reference: Reference) -> Image:
    """Read the documents a transport brought.

    Raises:
        FetchFailed: they are not those of a layered image, or answer another reference.
    """
    if resolution.document is None:
        raise FetchFailed(f"{reference.text}: the transport brought no documents")
    if parse_document(resolution.document).reference != reference.path_or_url:
        raise FetchFailed(f"{reference.text}: the transport brought another image")
    image: Image = form.image(resolution.document)
    if not image.layers:
        raise FetchFailed(f"{reference.text}: the image has no layers")
    return image
