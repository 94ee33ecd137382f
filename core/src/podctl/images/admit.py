"""Letting an image in: what its bytes, its name and its signature must say before it counts.

`admit` is the one place where an image becomes usable, whether it was just downloaded or was
brought by a member of the group and is used by root for the first time.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from podctl.errors import ManifestInvalid, Refused, StoreCorrupt, TrustRefused
from podctl.images.transfer import Transfer, transfer_local
from podctl.model.layout import ArchiveLimits
from podctl.trust.policy import HINT, trusted_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from podctl.images.ingest import Ingested
    from podctl.images.session import FetchSession
    from podctl.images.transfer import Unpacked
    from podctl.model.image import Image
    from podctl.model.trusting import Verdict, Verifier
    from podctl.plugins import FormatHandle, TrustHandle
    from podctl.store import ImageRecord, Staging, Verification
    from podctl.store.staging import Piece
    from podctl.trust.keystore import TrustedKey

#: Which signature scheme stands for which image format.
SCHEMES = {"aci": "openpgp", "oci": "cosign"}


@dataclass(frozen=True, slots=True)
class Expected:
    """What was asked for, and an image must therefore be.

    Args:
        name: the name it must have; None where it was given by file or URL.
        labels: labels it must carry with these values.
    """

    name: str | None = None
    labels: Mapping[str, str] | None = None

    def check(self, image: Image | ImageRecord) -> None:
        """Compare an image with what was asked for.

        Raises:
            Refused: name or a label differs (appc discovery; a signature for one image must not
                serve for another).
        """
        if self.name is not None and image.name != self.name:
            raise Refused(f'image name "{image.name}" differs from the requested "{self.name}"')
        for label, value in (self.labels or {}).items():
            self._check_label(image, label, value)

    @staticmethod
    def _check_label(image: Image | ImageRecord, label: str, value: str) -> None:
        if label not in image.labels:
            if label in ("os", "arch"):
                return
            raise Refused(f'requested label "{label}" not provided by the image manifest')
        if image.labels[label] != value:
            raise Refused(
                f'requested value for label "{label}": "{value}" differs from '
                f'fetched aci label value: "{image.labels[label]}"'
            )


def signature_check(
    session: FetchSession, scheme: TrustHandle, signature: bytes, name: str | None
) -> Callable[[], Verifier]:
    """Return what starts a signature check in the ingest child.

    Keys that could not have made the signature are left out beforehand, so that an image nobody
    trusted has signed is not even downloaded.

    Args:
        name: the image's name where it is known; None takes every trusted key, and the name is
            held against the key's prefix once the manifest was read.

    Raises:
        TrustRefused: no trusted key can have made the signature.
        KeyInvalid: it is no signature.
    """
    from podctl.trust.checking import usable_keys

    store = session.keystore
    keys = store.every_key() if name is None else store.keys_for(name)
    usable = (
        usable_keys(scheme.key, scheme.signers, signature, keys, recognises=scheme.recognises)
        if keys
        else []
    )
    if not usable:
        what = f'image "{name}"' if name else "image"
        raise TrustRefused(f"{what}: signature made by unknown entity", hint=HINT)
    bundle = _distinct(usable)
    now = int(time.time())
    return lambda: scheme.verifier(signature, bundle, now)


def _distinct(keys: Sequence[TrustedKey]) -> list[bytes]:
    return list({key.fingerprint: key.data for key in keys}.values())


def judge(session: FetchSession, image: Image, verdict: Verdict | None) -> Verification:
    """Turn the verdict on an image's signature into root's note of why it may be used.

    Raises:
        TrustRefused: the signing key is not trusted for the image's name.
    """
    import hashlib

    from podctl.store import Verification

    layers = tuple(layer.diff_id for layer in image.layers)
    if verdict is None:
        if session.verifies:
            raise TrustRefused(f'image "{image.name}" has no signature', hint=HINT)
        return Verification.unverified(image.name, image.labels, layers)
    key = trusted_key(session.keystore, image.name, verdict)
    for note in verdict.notes:
        session.say(note)
    for identity in verdict.identities or (verdict.fingerprint,):
        session.say(f"signature verified: {identity}")
    return Verification(
        scheme=verdict.scheme,
        fingerprint=verdict.fingerprint,
        name=image.name,
        labels=dict(image.labels),
        key_path=key.path,
        key_digest=hashlib.sha256(key.data).hexdigest(),
        expires=verdict.expires,
        verified_at=int(time.time()),
        insecure=False,
        layers=layers,
    )


def readmit(session: FetchSession, record: ImageRecord) -> None:
    """Check a stored image again from its bytes, and unpack it if that was not done yet.

    Root calls this for what a member of the group has fetched, and whenever an earlier
    verification does not hold any more: nothing in the group's part of the store is believed.

    Raises:
        StoreCorrupt: the stored bytes are not the image the record names.
        TrustRefused: they are, but no trusted signature stands for them.
    """
    from podctl.plugins import image_format, trust_scheme
    from podctl.store import StagedLayer

    session.say(f'verifying stored image "{record.name}" ({record.key})')
    form = image_format(record.format)
    verifier = None
    if session.verifies:
        scheme = trust_scheme(SCHEMES[record.format])
        scheme.preload()
        signature = session.store.signature(record.key)
        if signature is None:
            raise TrustRefused(
                f'image "{record.name}" was fetched without a signature',
                hint="fetch it again with its signature, or pass --insecure-options=image",
            )
        verifier = signature_check(session, scheme, signature, record.name)
    if record.layered:
        from podctl.images.layered import readmit_layered

        readmit_layered(session, form, record, verifier)
        return
    with session.store.staging() as staging:
        piece = staging.piece()
        blob_fd = session.store.open_blob(record.blob)
        try:
            transfer = Transfer(
                form.layout(), piece.directory, verifier, ArchiveLimits(), session.max_bytes
            )
            ingested, unpacked = transfer_local(blob_fd, transfer, None)
        finally:
            os.close(blob_fd)
        image = _same_image(form, record, ingested, unpacked)
        verification = judge(session, image, ingested.verdict)
        layer = StagedLayer(ingested.diff_id, ingested.blob, ingested.size, piece)
        session.store.commit_layers(staging, [layer], unpacked.manifest)
        session.store.mark_verified(record.key, verification)


def _same_image(
    form: FormatHandle, record: ImageRecord, ingested: Ingested, unpacked: Unpacked
) -> Image:
    """Hold what was just read against the record, which the group can write."""
    image: Image = form.image(unpacked.manifest)
    if ingested.blob != record.blob or ingested.diff_id[: len(record.key)] != record.key:
        raise StoreCorrupt(
            f'stored bytes of image "{record.key}" are not that image',
            hint="run podctl fsck --repair, then fetch it again",
        )
    if image.name != record.name or dict(image.labels) != dict(record.labels):
        raise StoreCorrupt(
            f'record of image "{record.key}" does not fit its manifest',
            hint="run podctl fsck --repair",
        )
    return image


def commit(
    session: FetchSession,
    staging: Staging,
    piece: Piece,
    form: FormatHandle,
    ingested: Ingested,
    unpacked: Unpacked,
    expected: Expected,
    *,
    signature: bytes | None,
    source: str,
    latest: bool = False,
) -> ImageRecord:
    """Judge a freshly read image and, if it may be used, make it part of the store.

    Raises:
        ManifestInvalid: its manifest breaks the format.
        Refused, TrustRefused: it is not what was asked for, or not trusted.
    """
    from podctl.plugins import events
    from podctl.store import StagedImage, StagedLayer

    image: Image = form.image(unpacked.manifest)
    if image.layers:
        raise ManifestInvalid(f'format "{image.format}" finds layers in an archive')
    expected.check(image)
    verification = judge(session, image, ingested.verdict)
    events(session.say).image_verified(image, ingested.verdict)
    for warning in unpacked.warnings:
        session.say(f"image {image.name}: {warning}")
    staged = StagedImage(
        key=session.store.key_of(ingested.diff_id),
        format=image.format,
        name=image.name,
        labels=dict(image.labels),
        layers=(StagedLayer(ingested.diff_id, ingested.blob, ingested.size, piece),),
        blob_size=ingested.blob_size,
        manifest=unpacked.manifest,
        signature=signature,
        source=source,
        latest=latest,
    )
    record = session.store.commit(staging, staged)
    if session.store.privileged:
        session.store.mark_verified(record.key, verification)
    return record
