"""From what a user typed to an image that may be used: look up, or fetch, verify and commit."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from podctl.errors import ImageGone, NotFound, Refused, StoreCorrupt, TrustRefused, UsageError
from podctl.model.reference import parse, parse_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.images.session import FetchSession
    from podctl.model.fetching import LocalImage
    from podctl.model.manifest import Dependency
    from podctl.model.reference import Reference
    from podctl.plugins import TransportHandle
    from podctl.store import ImageRecord, Verification

#: Levels of dependencies of dependencies; a loop is found long before.
MAX_DEPTH = 64
#: How often an image is got again that somebody removes at the same time.
_ATTEMPTS = 10
#: Seconds a clock may be set back without an image being verified anew.
CLOCK_SLACK = 3600
POLICIES = ("never", "new", "update")


def ensure_image(
    session: FetchSession, text: str, *, policy: str = "new", signature_file: str | None = None
) -> ImageRecord:
    """Return the stored image a reference means, fetching it and its dependencies if allowed.

    Args:
        text: any form of reference.
        policy: `never` (store only), `new` (store first), `update` (always ask the source).
        signature_file: detached signature to use instead of the one beside the image.

    Raises:
        NotFound: it is not in the store and may not be fetched.
        FetchFailed, ArchiveInvalid, ManifestInvalid: the source, or what it sent, is no good.
        TrustRefused: no trusted signature stands for it.
    """
    if policy not in POLICIES:
        raise UsageError(f'unknown pull policy "{policy}"', hint=f"one of {', '.join(POLICIES)}")
    reference = parse(text)
    if reference.short:
        from podctl.images.choose import normalised

        reference = normalised(reference)
    if signature_file is not None and reference.kind not in ("file", "url"):
        raise UsageError("--signature goes with an image file or URL only")

    def obtain() -> ImageRecord:
        record = _stored(session, reference, policy)
        if record is None:
            return _fetch(session, reference, signature_file)
        use_image(session, record)
        return record

    record = _keep(session, obtain)
    _ensure_dependencies(session, record, policy)
    session.store.touch(record.key)
    return record


def _keep(session: FetchSession, obtain: Callable[[], ImageRecord]) -> ImageRecord:
    """Obtain an image and keep it from being removed; again, if that happens in between."""
    for left in reversed(range(_ATTEMPTS)):
        try:
            record = obtain()
            session.store.keep(record)
            return record
        except ImageGone:
            if not left:
                raise
    raise AssertionError("the last attempt returns or raises")


def use_image(session: FetchSession, record: ImageRecord) -> None:
    """Make sure that a stored image may be used now.

    Root believes its own notes alone: an image it has not verified itself, or whose key has
    changed since, is checked again from its bytes. For everybody else there is nothing to decide:
    using an image takes root.

    Raises:
        TrustRefused: it may not.
        StoreCorrupt: its stored bytes are not the image.
        ImageGone: somebody removes it.
    """
    if not session.store.privileged:
        return
    verification = session.store.verification(record.key)
    unpacked = all(session.store.layer(layer) is not None for layer in record.layers)
    if verification is None or not unpacked or not verification.agrees(record):
        _readmit(session, record)
    elif session.verifies:
        if verification.insecure:
            _readmit(session, record)
        else:
            _check_standing(session, record, verification)


def _readmit(session: FetchSession, record: ImageRecord) -> None:
    # Not at the top: running an image that is in order needs none of what this imports.
    from podctl.images.admit import readmit

    try:
        readmit(session, record)
    except (NotFound, StoreCorrupt):
        if session.store.holds(record.key):
            raise
        raise ImageGone(f'cannot find image with key "{record.key}"') from None


def _check_standing(session: FetchSession, record: ImageRecord, verification: Verification) -> None:
    """Let an earlier verification count, unless its key has gone, changed or expired."""
    from podctl.store.digests import sha256_hex
    from podctl.trust.policy import HINT

    key = session.keystore.find(record.name, verification.fingerprint)
    if key is None:
        raise TrustRefused(
            f'image "{record.name}" was signed by key {verification.fingerprint}, '
            "which is not trusted for it any more",
            hint=HINT,
        )
    now = time.time()
    expired = verification.expires is not None and verification.expires <= now
    # A clock that runs before our own note would let what has expired count again.
    if (
        expired
        or now < verification.verified_at - CLOCK_SLACK
        or sha256_hex(key.data) != verification.key_digest
    ):
        _readmit(session, record)


def _stored(session: FetchSession, reference: Reference, policy: str) -> ImageRecord | None:
    """Answer from the store where form and policy allow; None: fetch."""
    store = session.store
    if reference.kind == "hash":
        key = store.resolve_key(reference.path_or_url)
        session.say(f"using image from the store with hash {reference.path_or_url}")
        return store.image(key)
    if reference.kind in ("file", "layout"):
        return None
    record = None
    if policy != "update":
        record = _look_up(session, reference)
    if record is None and policy == "never":
        raise NotFound(
            f'image "{reference.text}" is not in the store',
            hint="fetch it first, or pass --pull-policy=new",
        )
    return record


def _look_up(session: FetchSession, reference: Reference) -> ImageRecord | None:
    if reference.kind == "name":
        assert reference.name is not None
        record = session.store.find(reference.name, reference.search_labels())
        what = f"name {reference.text}"
    elif reference.kind == "docker":
        from podctl.images.finding import find_registry_image

        record = find_registry_image(session.store, reference)
        what = f"reference {reference.text}"
    else:
        remote = session.store.remote(reference.path_or_url)
        record = None if remote is None else session.store.lookup(remote.key)
        what = f"url {reference.text}"
    if record is not None:
        session.say(f"using image from local store for image {what}")
    return record


def _fetch(session: FetchSession, reference: Reference, signature_file: str | None) -> ImageRecord:
    from podctl.images.local import fetch_local
    from podctl.images.remote import fetch_remote
    from podctl.plugins import transport

    if _is_layout(reference):
        return _fetch_layout(session, reference, signature_file)
    assert reference.scheme is not None
    carrier = transport(reference.scheme)
    if reference.kind == "docker":
        return _fetch_registry(session, carrier, reference)
    carrier.preload()
    signature = None if signature_file is None else read_signature(signature_file)
    want = session.verifies and signature is None
    request = session.request(want_signature=want)
    local = carrier.open_local(reference, request)
    if local is not None and _is_archive_of_images(local):
        return _fetch_layout(session, reference, signature_file, local.fd)
    if local is not None:
        return fetch_local(session, local, signature)
    return fetch_remote(session, carrier, reference, request, signature)


def _is_layout(reference: Reference) -> bool:
    """Whether an image is an OCI layout, or written as one; of a file only its content tells."""
    directory = reference.kind == "file" and os.path.isdir(reference.path_or_url)
    return directory or reference.kind == "layout"


def _is_archive_of_images(local: LocalImage) -> bool:
    """Whether a file is no App Container Image, but an archive that holds an image's layers."""
    if local.path.endswith(".aci"):
        return False
    from podctl.images.layoutarchive import is_layout

    try:
        return is_layout(local.fd)
    except BaseException:
        os.close(local.fd)
        raise


def _fetch_layout(
    session: FetchSession, reference: Reference, signature_file: str | None, fd: int | None = None
) -> ImageRecord:
    from podctl.images.layouts import fetch_layout

    if signature_file is not None:
        if fd is not None:
            os.close(fd)
        raise UsageError("--signature goes with App Container Images only")
    return fetch_layout(session, reference, fd)


def _fetch_registry(
    session: FetchSession, carrier: TransportHandle, reference: Reference
) -> ImageRecord:
    from dataclasses import replace

    from podctl.images.layered import fetch_registry

    request = session.request()
    request = replace(request, settings=carrier.configure(reference, request))
    carrier.preload()
    return fetch_registry(session, carrier, reference, request)


def read_signature(path: str) -> bytes:
    """Read a detached signature the user names.

    Raises:
        NotFound: it cannot be read, or is too large for a signature.
    """
    from podctl.sys.files import read_small
    from podctl.trust.checking import MAX_SIGNATURE_BYTES

    try:
        return read_small(path, MAX_SIGNATURE_BYTES)
    except (OSError, ValueError) as error:
        raise NotFound(f'signature file "{path}" cannot be read: {error}') from error


def _ensure_dependencies(session: FetchSession, record: ImageRecord, policy: str) -> None:
    """Fetch what an image depends on, depth first; an image is visited once.

    Raises:
        Refused: the chain is too deep, or an image fetched is not the one a dependency pins.
    """
    seen = {record.key}
    waiting = [(dependency, 1) for dependency in _dependencies(session, record)]
    while waiting:
        dependency, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise Refused(f'image "{record.name}" has more than {MAX_DEPTH} levels of dependencies')
        found = _ensure_dependency(session, dependency, policy)
        if found.key not in seen:
            seen.add(found.key)
            waiting += [(below, depth + 1) for below in _dependencies(session, found)]


def _ensure_dependency(session: FetchSession, dependency: Dependency, policy: str) -> ImageRecord:
    """Find or fetch one dependency: by its image ID where it pins one, else by name."""
    # A dependency stored already is never asked for again: its content may be pinned by digest.
    store = session.store
    if dependency.image_id is not None:
        pinned = store.lookup(store.key_of(dependency.image_id))
        if pinned is not None:
            with suppress(ImageGone):
                use_image(session, pinned)
                store.keep(pinned)
                return pinned
    reference = _as_reference(dependency)

    def obtain() -> ImageRecord:
        found = _stored(session, reference, "never" if policy == "never" else "new")
        if found is None:
            return _fetch(session, reference, None)
        use_image(session, found)
        return found

    found = _keep(session, obtain)
    if dependency.image_id is not None and found.key != store.key_of(dependency.image_id):
        raise Refused(
            f'dependency "{dependency.image_name}" is pinned to {dependency.image_id}, '
            f"found {found.key}"
        )
    return found


def _as_reference(dependency: Dependency) -> Reference:
    labels = dict(dependency.labels)
    version = labels.pop("version", None)
    pairs = "".join(f",{name}={value}" for name, value in labels.items())
    text = dependency.image_name + (f":{version}" if version is not None else "") + pairs
    return parse_name(text)


def _dependencies(session: FetchSession, record: ImageRecord) -> tuple[Dependency, ...]:
    from podctl.images.converted import image_of

    return image_of(session.store, record, remember=True).dependencies
