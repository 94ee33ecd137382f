"""Keys that a name's own site announces, taken in on the user's word or by https alone."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from podctl.errors import NotFound, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from podctl.model.fetching import KeyLocation

    #: Downloads the document at a URL.
    Fetch = Callable[[str], bytes]
    #: Adds one key: (prefix, location, data, review) -> whether it was added.
    Take = Callable[[str, str, bytes, bool], bool]


def take_announced(
    prefix: str,
    locations: Sequence[KeyLocation],
    *,
    fetch: Fetch,
    take: Take,
    review: bool,
    allow_http: bool,
) -> int:
    """Fetch and take in every key announced for `prefix`; return how many were added.

    A key fetched without TLS proves nothing about who announced it, so http locations need
    `allow_http`, and are reviewed even where https ones are not.

    Raises:
        NotFound: nothing is announced.
        Refused: a location is not https.
    """
    if not locations:
        raise NotFound(f"meta discovery on {prefix} resulted in no keys")
    added = 0
    for found in locations:
        scheme = urlsplit(found.url).scheme
        check_scheme(found.url, allow_http=allow_http)
        added += take(prefix, found.url, fetch(found.url), review or scheme != "https")
    return added


def check_scheme(url: str, *, allow_http: bool) -> None:
    """Refuse key locations that are neither https nor an allowed http."""
    scheme = urlsplit(url).scheme
    if scheme == "https" or (scheme == "http" and allow_http):
        return
    if scheme == "http":
        raise Refused(
            f"--insecure-allow-http required for http URLs: {url}",
            hint="publish the key by https, or allow http for this once",
        )
    raise Refused(f"key location {url} is not an https URL")
