"""Everything a conversation imports, imported while that is still possible.

A transport works as user nobody: it may be unable to read the installation, and what it imported
then would be read after bytes from outside had been. Modules that Python's libraries import on
first use are therefore named here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from podctl.http.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterable

_MODULES = (
    # Ours, with requests, urllib3, ssl, http.client and email below them.
    "podctl.http.aws",
    "podctl.http.client",
    "podctl.http.download",
    "podctl.model.fetching",
    # Name look-up and requests convert host names with them.
    "encodings.idna",
    "idna",
    "stringprep",
    "unicodedata",
    # Headers and URLs.
    "encodings.ascii",
    "encodings.latin_1",
    "encodings.utf_8",
    "email.parser",
    # strptime and its locale, used by email and cookie dates.
    "_strptime",
    "hmac",
)


def preload(modules: Iterable[str] = ()) -> None:
    """Import it all and read the certificate authorities.

    Args:
        modules: names of the transport's own modules, and of what they import on first use.
    """
    _import_urllib3()
    for name in (*_MODULES, *modules):
        import_module(name)
    from podctl.errors import FetchFailed
    from podctl.http.client import Client
    from podctl.model.fetching import FetchRequest

    try:
        Client(FetchRequest(), Limits())
    except FetchFailed:
        # Without authorities the request that needs them will say so.
        return


def _import_urllib3() -> None:
    """Import urllib3 without the IPv6 socket it opens to see whether it can.

    This runs with the caller's rights, and no socket is to be opened with them. Addresses of
    both families are tried in turn anyway, so the answer may as well be what Python was built for.
    """
    import socket

    built_with_ipv6 = socket.has_ipv6
    socket.has_ipv6 = False
    try:
        connection = import_module("urllib3.util.connection")
    finally:
        socket.has_ipv6 = built_with_ipv6
    connection.HAS_IPV6 = built_with_ipv6  # type: ignore[attr-defined]
