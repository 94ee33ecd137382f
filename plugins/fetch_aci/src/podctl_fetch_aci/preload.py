"""Everything a fetch imports; see podctl.http.preload."""

from __future__ import annotations

_MODULES = (
    "podctl_fetch_aci.discovery",
    "podctl_fetch_aci.resolving",
    "podctl.model.labels",
    # Pages.
    "html.entities",
)


def preload() -> None:
    """Import it all and read the certificate authorities."""
    from podctl.http.preload import preload as preload_http

    preload_http(_MODULES)
