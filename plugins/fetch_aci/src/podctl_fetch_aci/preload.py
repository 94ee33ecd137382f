"""Everything a fetch imports, imported while that is still possible.

A transport works as user nobody: it may be unable to read the installation, and what it imported
then would be read after bytes from outside had been. Modules that Python's libraries import on
first use are therefore named here.
"""

from __future__ import annotations

from importlib import import_module

from podctl_fetch_aci.limits import Limits

_MODULES = (
    # Ours, with requests, urllib3, ssl, http.client and email below them.
    "podctl_fetch_aci.aws",
    "podctl_fetch_aci.client",
    "podctl_fetch_aci.discovery",
    "podctl_fetch_aci.download",
    "podctl_fetch_aci.resolving",
    "podctl.model.fetching",
    "podctl.model.labels",
    # Name look-up and requests convert host names with them.
    "encodings.idna",
    "idna",
    "stringprep",
    "unicodedata",
    # Headers, URLs and pages.
    "encodings.ascii",
    "encodings.latin_1",
    "encodings.utf_8",
    "html.entities",
    "email.parser",
    # strptime and its locale, used by email and cookie dates.
    "_strptime",
    "hmac",
)


def preload() -> None:
    """Import it all and read the certificate authorities."""
    _import_urllib3()
    for name in _MODULES:
        import_module(name)
    from podctl.errors import FetchFailed
    from podctl.model.fetching import FetchRequest
    from podctl_fetch_aci.client import Client

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
