"""An image from a URL, given or discovered: cached where still fresh, resumed where cut off."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from podctl.errors import FetchFailed, TrustRefused
from podctl.images.admit import SCHEMES, Expected, commit, signature_check
from podctl.images.transfer import Transfer, transfer_remote
from podctl.images.wire import deferred_signature, resolve
from podctl.model.fetching import CacheState, Resume
from podctl.model.layout import ArchiveLimits
from podctl.trust.policy import HINT

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.images.ingest import Ingested
    from podctl.images.session import FetchSession
    from podctl.images.transfer import Unpacked
    from podctl.model.fetching import Downloaded, FetchRequest, Resolution, Sink
    from podctl.model.reference import Reference
    from podctl.model.trusting import Verifier
    from podctl.plugins import TransportHandle, TrustHandle
    from podctl.store import ImageRecord, Partial, RemoteRecord


def fetch_remote(
    session: FetchSession,
    carrier: TransportHandle,
    reference: Reference,
    request: FetchRequest,
    signature: bytes | None,
) -> ImageRecord:
    """Resolve a reference, and download what the store does not hold in that version.

    Args:
        signature: overrides the one beside the image.

    Raises:
        FetchFailed: nothing was found or the transfer failed (what arrived is kept to resume).
        TrustRefused, ArchiveInvalid, ManifestInvalid, Refused: what came may not be used.
    """
    from podctl.images.keys import offer_keys

    scheme = _scheme(session)
    if reference.kind == "name":
        session.say(f"searching for app image {reference.text}")
        if scheme is not None and reference.name is not None:
            offer_keys(session, scheme, reference.name)
    else:
        session.say(f'remote fetching from URL "{reference.path_or_url}"')
        fresh = _fresh(session, reference.path_or_url)
        if fresh is not None:
            return fresh
        request = _conditional(session, reference.path_or_url, request)
    resolution = resolve(carrier, reference, request)
    return _Remote(session, carrier, reference, request, resolution, scheme, signature).fetch()


def _scheme(session: FetchSession) -> TrustHandle | None:
    from podctl.plugins import trust_scheme

    if not session.verifies:
        return None
    scheme = trust_scheme(SCHEMES["aci"])
    scheme.preload()
    return scheme


def _fresh(session: FetchSession, location: str) -> ImageRecord | None:
    """Return the image last fetched from a location while its max-age lasts."""
    remote = session.store.remote(location)
    if remote is None or time.time() - remote.downloaded_at >= remote.max_age:
        return None
    record = session.store.lookup(remote.key)
    if record is not None:
        from podctl.images.fetch import use_image

        session.say(f"image for {location} isn't expired, not fetching")
        use_image(session, record)
    return record


def _conditional(session: FetchSession, location: str, request: FetchRequest) -> FetchRequest:
    remote = session.store.remote(location)
    if remote is None or session.store.lookup(remote.key) is None:
        return request
    return replace(request, cached=CacheState(etag=remote.etag))


class _Remote:
    """One image on its way from one location."""

    def __init__(
        self,
        session: FetchSession,
        carrier: TransportHandle,
        reference: Reference,
        request: FetchRequest,
        resolution: Resolution,
        scheme: TrustHandle | None,
        signature: bytes | None,
    ) -> None:
        self.session = session
        self.store = session.store
        self.carrier = carrier
        self.reference = reference
        self.request = request
        self.resolution = resolution
        self.scheme = scheme
        self.signature = signature if signature is not None else resolution.signature

    def fetch(self) -> ImageRecord:
        """Use what is here if the source says it is unchanged, else download."""
        location = self.resolution.location
        before = self.store.remote(location)
        if self.resolution.not_modified and before is not None:
            return self._unchanged(before)
        if self.reference.kind == "name":
            fresh = _fresh(self.session, location)
            if fresh is not None:
                self._expected().check(fresh)
                return fresh
            if before is not None and self._is_unchanged():
                held = self._unchanged(before)
                self._expected().check(held)
                return held
        verifier = self._verifier()
        with self.store.partial(location, on_wait=self._say_waiting) as partial:
            record = self._fetched_meanwhile(before)
            if record is None:
                record = self._download(partial, verifier)
        return record

    def _is_unchanged(self) -> bool:
        """Ask the discovered location itself whether the image we hold is still its own.

        A name's location is known only once it was discovered, so the question with our ETag
        could not be part of that.
        """
        from podctl.model.reference import Reference
        from podctl.plugins import transport

        location = self.resolution.location
        request = _conditional(self.session, location, self.request)
        if request is self.request:
            return False
        scheme = location.partition(":")[0]
        carrier = transport(scheme)
        carrier.preload()
        reference = Reference("url", scheme, location, path_or_url=location)
        answer = resolve(carrier, reference, replace(request, want_signature=False))
        if answer.not_modified:
            self.resolution = replace(
                self.resolution, etag=answer.etag, max_age=answer.max_age, not_modified=True
            )
        return answer.not_modified

    def _expected(self) -> Expected:
        if self.reference.kind != "name":
            return Expected()
        labels = dict(self.reference.labels)
        if self.reference.version is not None:
            labels["version"] = self.reference.version
        return Expected(self.reference.name, labels)

    def _say_waiting(self) -> None:
        self.session.say("another podctl instance is downloading this file, waiting...")

    def _unchanged(self, remote: RemoteRecord) -> ImageRecord:
        """304: the stored image is still current; what the answer said of its age counts anew."""
        from podctl.images.fetch import use_image

        self.store.put_remote(
            self.resolution.location,
            remote.key,
            etag=self.resolution.etag or remote.etag,
            max_age=self.resolution.max_age,
        )
        record = self.store.image(remote.key)
        self.session.say(f"image for {self.resolution.location} is unchanged, not fetching")
        use_image(self.session, record)
        return record

    def _fetched_meanwhile(self, before: RemoteRecord | None) -> ImageRecord | None:
        """Who waited for another download of the same location uses its result."""
        from podctl.images.fetch import use_image

        now = self.store.remote(self.resolution.location)
        if now is None or now == before:
            return None
        record = self.store.lookup(now.key)
        if record is not None:
            # The other one may have asked for something else at this location.
            self._expected().check(record)
            use_image(self.session, record)
        return record

    def _verifier(self) -> Callable[[], Verifier] | None:
        """Judge the signature's issuers before the download; None where it comes later or never."""
        if self.scheme is None:
            return None
        if self.signature is None:
            if self.resolution.signature_deferred:
                return None
            where = self.resolution.signature_location or self.resolution.location
            raise TrustRefused(
                f'error opening signature file: no signature at "{where}"', hint=HINT
            )
        name = self.reference.name if self.reference.kind == "name" else None
        return signature_check(self.session, self.scheme, self.signature, name)

    def _download(self, partial: Partial, verifier: Callable[[], Verifier] | None) -> ImageRecord:
        from podctl.plugins import image_format

        form = image_format(self.resolution.format)
        resume = Resume(partial.size, partial.state) if partial.size else None
        with self.store.staging() as staging:
            piece = staging.piece()
            transfer = Transfer(
                form.layout(),
                piece.directory,
                verifier,
                ArchiveLimits(),
                self.session.max_bytes,
            )
            try:
                ingested, unpacked, done = transfer_remote(
                    lambda sink: self._body(sink, resume),
                    transfer,
                    partial.fd,
                    self.session.progress,
                    partial.save_state,
                )
                self._check_length(ingested, done)
                if self.scheme is not None and verifier is None:
                    ingested, unpacked = self._verify_deferred(partial, transfer)
                piece.adopt_blob(partial)
                record = commit(
                    self.session,
                    staging,
                    piece,
                    form,
                    ingested,
                    unpacked,
                    self._expected(),
                    signature=self.signature,
                    source=self.resolution.location,
                    latest=self.resolution.latest,
                )
            except FetchFailed:
                partial.keep()
                raise
        self.store.put_remote(
            self.resolution.location, record.key, etag=done.state.etag, max_age=done.max_age
        )
        return record

    def _body(self, sink: Sink, resume: Resume | None) -> Downloaded:
        """Runs in the download child."""
        return self.carrier.download(self.resolution, resume, self.request, sink)

    @staticmethod
    def _check_length(ingested: Ingested, done: Downloaded) -> None:
        if ingested.blob_size != done.size:
            raise FetchFailed(
                f"download has {ingested.blob_size} bytes, {done.size} were announced"
            )

    def _verify_deferred(self, partial: Partial, transfer: Transfer) -> tuple[Ingested, Unpacked]:
        """Ask for the signature that was promised, then check the bytes that are here now."""
        from podctl.images.transfer import transfer_local

        assert self.scheme is not None
        self.signature = deferred_signature(self.carrier, self.resolution, self.request)
        if self.signature is None:
            raise TrustRefused(
                f"error opening signature file: no signature at "
                f'"{self.resolution.signature_location}"',
                hint=HINT,
            )
        name = self.reference.name if self.reference.kind == "name" else None
        verifier = signature_check(self.session, self.scheme, self.signature, name)
        # The tree is unpacked already, from the same file under our lock: this pass only checks.
        check = replace(transfer, staging=None, verifier=verifier)
        partial.rewind()
        return transfer_local(partial.fd, check, None)
