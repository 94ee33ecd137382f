"""Everything a fetch imports; see podctl.http.preload."""

from __future__ import annotations

_MODULES = (
    "podctl_fetch_docker.layers",
    "podctl_fetch_docker.resolving",
    "podctl.model.labels",
    # Embedded descriptors.
    "base64",
    "binascii",
)


def preload() -> None:
    """Import it all and read the certificate authorities."""
    from podctl.http.preload import preload as preload_http

    preload_http(_MODULES)
