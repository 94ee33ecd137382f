"""Public keys that discovery announces for an image's name, offered while it is fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from podctl.errors import FetchFailed, NotFound, PodctlError
from podctl.images.wire import key_document, key_locations
from podctl.trust.discovery import take_announced
from podctl.trust.review import can_ask, take_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.images.session import FetchSession
    from podctl.model.fetching import KeyLocation
    from podctl.plugins import TrustHandle


def announced(
    session: FetchSession, prefix: str, *, allow_http: bool
) -> tuple[list[KeyLocation], Callable[[str], bytes]]:
    """Discover the keys announced for `prefix`; return them and how to download one.

    Only announcements whose own prefix covers `prefix` are returned: a page must not announce
    keys for names of somebody else.
    """
    from dataclasses import replace

    from podctl.plugins import transport

    request = session.request(want_signature=False)
    if allow_http:
        request = replace(request, insecure=request.insecure | {"http"})
    discovery = transport("appc")
    discovery.preload()
    locations = [
        found
        for found in key_locations(discovery, prefix, request)
        if prefix == found.prefix or prefix.startswith(found.prefix + "/")
    ]

    def fetch(url: str) -> bytes:
        carrier = transport(urlsplit(url).scheme)
        carrier.preload()
        return key_document(carrier, url, request)

    return locations, fetch


def offer_keys(session: FetchSession, scheme: TrustHandle, name: str) -> None:
    """Where no key is known for `name`, take in announced ones on the user's word.

    With --trust-keys-from-https keys that came by https need no word. Nothing announced, or
    nobody to ask: nothing is added, and the signature check that follows says what is missing.
    """
    # A key of another scheme can say nothing of this image.
    if any(scheme.recognises(key.data) for key in session.keystore.keys_for(name)):
        return
    if not (session.trust_keys_from_https or can_ask()):
        session.say(
            f'no key is trusted for "{name}", and nobody is here to review one '
            f'(run: podctl trust --prefix "{name}", or pass --trust-keys-from-https)'
        )
        return
    allow_http = "pubkey" in session.insecure
    try:
        locations, fetch = announced(session, name, allow_http=allow_http)
        take_announced(
            name,
            locations,
            fetch=fetch,
            take=lambda prefix, url, data, review: take_key(
                session.keystore,
                scheme.key,
                data,
                prefix=prefix,
                location=url,
                review=review,
                say=session.say,
            ),
            review=not session.trust_keys_from_https,
            allow_http=allow_http,
        )
    except (NotFound, FetchFailed) as error:
        session.say(f"no announced key was added: {error}")
    except PodctlError as error:
        session.say(f"announced key refused: {error}")
