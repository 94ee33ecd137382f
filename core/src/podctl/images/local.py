"""An image that is a file on this host: read once, verified and committed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from podctl.errors import TrustRefused
from podctl.images.admit import SCHEMES, Expected, commit, signature_check
from podctl.images.settling import settling
from podctl.images.transfer import Transfer, transfer_local
from podctl.model.layout import ArchiveLimits
from podctl.trust.policy import HINT

if TYPE_CHECKING:
    from podctl.images.session import FetchSession
    from podctl.model.fetching import LocalImage
    from podctl.store import ImageRecord

#: A single file that is an image is an ACI.
FORMAT = "aci"


def fetch_local(session: FetchSession, local: LocalImage, signature: bytes | None) -> ImageRecord:
    """Take a local image file into the store.

    Args:
        local: the opened file; closed here.
        signature: overrides the one found beside the file.

    Raises:
        TrustRefused: unsigned, or not by a trusted key.
        ArchiveInvalid, ManifestInvalid: it is no image.
    """
    from podctl.plugins import image_format, trust_scheme

    session.say(f"using image from file {local.path}")
    try:
        form = image_format(FORMAT)
        signature = signature if signature is not None else local.signature
        verifier = None
        if session.verifies:
            if signature is None:
                raise TrustRefused(
                    f'error opening signature file: no signature at "{local.signature_path}"',
                    hint=HINT,
                )
            scheme = trust_scheme(SCHEMES[FORMAT])
            scheme.preload()
            verifier = signature_check(session, scheme, signature, None)
        with session.store.staging() as staging:
            piece = staging.piece()
            transfer = Transfer(
                form.layout(), piece.directory, verifier, ArchiveLimits(), session.max_bytes
            )
            with settling(session.store.layout.top, os.fstat(local.fd).st_size):
                ingested, unpacked = transfer_local(local.fd, transfer, piece.blob_fd)
            return commit(
                session,
                staging,
                piece,
                form,
                ingested,
                unpacked,
                Expected(),
                signature=signature,
                source=os.path.abspath(local.path),
            )
    finally:
        os.close(local.fd)
