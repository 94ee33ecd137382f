"""What a directory or an archive is, by what is in it."""

from __future__ import annotations

import json

import pytest
from local_files import IMAGE_NAME, Layout, MemoryFiles

from podctl.errors import ManifestInvalid
from podctl.testing import ociimages
from podctl.testing.ocilayers import file, layer
from podctl_fetch_docker.localimage import read_local
from podctl_fetch_docker.platforms import Platform

AMD64 = Platform("linux", "amd64")
PLAIN = layer(file("hello"), compression="none")


def both() -> MemoryFiles:
    """As docker 25 writes it."""
    made = ociimages.image(PLAIN, config={"Cmd": ["/hello"]})
    annotations = {IMAGE_NAME: "docker.io/library/app:1.0"}
    files = Layout().put(made, "1.0", annotations=annotations).files
    saved = {
        "Config": f"blobs/sha256/{made.config.digest.removeprefix('sha256:')}",
        "RepoTags": ["app:1.0"],
        "Layers": [f"blobs/sha256/{PLAIN.digest.removeprefix('sha256:')}"],
        "LayerSources": {},
    }
    files.content["manifest.json"] = json.dumps([saved]).encode()
    return files


def test_what_is_both_is_read_as_a_layout() -> None:
    files = both()
    found = read_local(files, None, AMD64, "localhost/x")
    entry = json.loads(bytes(files.content["index.json"]))["manifests"][0]
    assert ociimages.document("", found.document.manifest).digest == entry["digest"]
    for name in ("oci-layout", "index.json"):
        rest = both()
        rest.content.pop(name)
        saved = read_local(rest, None, AMD64, "localhost/x")
        assert saved.document.manifest != found.document.manifest
        assert saved.document._replace(manifest=b"") == found.document._replace(manifest=b"")
        assert saved.blobs == found.blobs


def test_what_is_neither_is_refused() -> None:
    with pytest.raises(ManifestInvalid, match="neither an OCI layout"):
        read_local(MemoryFiles({"manifest": b"{}"}), None, AMD64, "localhost/x")
