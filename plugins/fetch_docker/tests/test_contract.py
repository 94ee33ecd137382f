"""The transport keeps the contract every transport of layered images keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from podctl.model.imagedocument import RegistrySignature, dump_signatures
from podctl.testing import cosigning
from podctl.testing.layered import LayeredContract, LayeredImage
from podctl.testing.ociimages import DOCKER, OCI, Kind, image, index
from podctl.testing.ocilayers import file, layer
from podctl_fetch_docker.format import oci

if TYPE_CHECKING:
    from conftest import Site


class _Contract(LayeredContract):
    kind: Kind
    behind_an_index = False

    @pytest.fixture
    def published(self, site: Site) -> LayeredImage:
        layers = [
            layer(file("one", bytes(range(256)) * 400), compression="none"),
            layer(file("two", "second")),
        ]
        made = image(*layers, kind=self.kind)
        top = index(made, kind=self.kind) if self.behind_an_index else made
        digest = site.registry.put("library/app", top, "1.0")
        one = cosigning.Signer().simple(f"{site.name}/library/app", digest)
        cosigning.attach_tag(site.registry, "library/app", digest, one)
        signed = RegistrySignature("simple", one.payload, one.signature)
        return LayeredImage(
            site.transport,
            oci,
            site.reference(":1.0"),
            site.asked(),
            {one.digest: one.blob for one in layers},
            dump_signatures([signed]),
            site.reference(":none"),
        )


class TestOci(_Contract):
    kind = OCI


class TestDocker(_Contract):
    kind = DOCKER
    behind_an_index = True
