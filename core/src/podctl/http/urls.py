"""URLs a transport may ask for: one strict reading, so that no two parsers can disagree."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from podctl.errors import FetchFailed

PORTS = {"http": 80, "https": 443}
_HOST = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_")
_IPV6 = frozenset("0123456789abcdef:.")
#: RFC 3986: what may stand in a path or query, `%` included.
_SAFE = "%/:@!$&'()*+,;=~-._"
MAX_URL = 8192
#: Queries that are the same for everybody, and so may be told.
_PUBLIC = ("ac-discovery=1",)
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class Target(NamedTuple):
    """A validated http or https URL without user, password and fragment."""

    scheme: str
    host: str
    port: int
    path: str
    query: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """What credentials are bound to: scheme, host and port (RFC 6454)."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """Host, and port where it is not the scheme's, as in a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole URL, query included: for requests, not for messages."""
        query = f"?{self.query}" if self.query else ""
        return f"{self.scheme}://{self.authority}{self.path}{query}"

    @property
    def shown(self) -> str:
        """The URL for messages: a query may hold a signature or token, so it is left out."""
        query = "?" + (self.query if self.query in _PUBLIC else "...") if self.query else ""
        return f"{self.scheme}://{self.authority}{self.path}{query}"


def parse(url: str) -> Target:
    """Read a URL strictly.

    Raises:
        FetchFailed: it is not a plain http or https URL; it is not quoted, it may hold a password.
    """
    if len(url) > MAX_URL:
        raise FetchFailed(f"URL is longer than {MAX_URL} characters")
    if any(char <= " " or char in '\\"<>^`{|}\x7f' for char in url):
        raise FetchFailed("URL holds a character no URL may hold")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").removesuffix(".")
    except ValueError:
        raise FetchFailed("URL has a malformed host or port") from None
    if parts.scheme not in PORTS:
        raise FetchFailed(f'URL scheme "{parts.scheme}" is neither https nor http')
    if "@" in parts.netloc:
        raise FetchFailed(
            f"URL for {host} holds a user name or password",
            hint="put credentials into the auth configuration",
        )
    if not _is_host(parts.netloc, host) or port == 0:
        raise FetchFailed("URL names no valid host")
    return Target(
        parts.scheme,
        host,
        PORTS[parts.scheme] if port is None else port,
        quote(parts.path, safe=_SAFE) or "/",
        quote(parts.query, safe=_SAFE + "?"),
    )


def follow(base: Target, location: str) -> Target:
    """Resolve a redirect's Location against the URL that answered.

    Raises:
        FetchFailed: it is no http or https URL.
    """
    # Header values arrive decoded as Latin-1; most servers mean UTF-8.
    text = location.encode("latin-1", "replace").decode("utf-8", "replace")
    if _ABSOLUTE.match(text):
        return parse(text)
    try:
        return parse(urljoin(base.url, text))
    except ValueError:
        raise FetchFailed("URL has a malformed host or port") from None


def _is_host(netloc: str, host: str) -> bool:
    if netloc.startswith("["):
        return ":" in host and set(host) <= _IPV6
    return bool(host) and len(host) <= 253 and set(host) <= _HOST
