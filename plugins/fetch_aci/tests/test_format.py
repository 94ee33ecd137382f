"""The `aci` format: where its manifest and root filesystem are, and what the manifest means."""

from __future__ import annotations

import json

import pytest

from podctl.errors import ManifestInvalid
from podctl_fetch_aci.hooks import aci


def test_layout_is_appc_s() -> None:
    layout = aci.format_layout()
    assert (layout.manifest, layout.rootfs, layout.whiteouts) == ("manifest", "rootfs", False)


def test_manifest_becomes_an_image() -> None:
    manifest = json.dumps(
        {
            "acKind": "ImageManifest",
            "acVersion": "0.8.11",
            "name": "example.com/app",
            "labels": [{"name": "version", "value": "1.0"}],
            "app": {"exec": ["/bin/app"], "user": "0", "group": "0"},
        }
    ).encode()
    image = aci.format_image(manifest)
    assert (image.format, image.name) == ("aci", "example.com/app")
    assert dict(image.labels) == {"version": "1.0"}
    assert image.app is not None and image.app.exec == ("/bin/app",)
    assert image.manifest == manifest


@pytest.mark.parametrize("manifest", [b"", b"{}", b"[]", b'{"acKind": "PodManifest"}'])
def test_other_documents_are_refused(manifest: bytes) -> None:
    with pytest.raises(ManifestInvalid):
        aci.format_image(manifest)
