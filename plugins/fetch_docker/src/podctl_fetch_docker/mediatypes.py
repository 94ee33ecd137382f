"""The media types of Docker and OCI images, and what each stands for.

OCI image-spec 1.1 media-types.md; Docker distribution, manifest-v2-2.md.
"""

from __future__ import annotations

from types import MappingProxyType

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})
#: schema 1, signed and not; asked for only so that it can be refused by name.
SCHEMA1 = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)
#: what servers say that know nothing of images: they say nothing.
GENERIC = frozenset(
    {
        "application/json",
        "application/octet-stream",
        "application/x-json",
        "binary/octet-stream",
        "text/plain",
    }
)
#: what early registries made of a configuration's type (docker/distribution issue 1621).
MISLABELLED_CONFIGS = frozenset({"application/json", "application/octet-stream", "text/html"})

_OCI_LAYER = "application/vnd.oci.image.layer."
_DOCKER_LAYER = "application/vnd.docker.image.rootfs."

#: layer type -> compression.
LAYERS = MappingProxyType(
    {
        f"{_OCI_LAYER}v1.tar": "none",
        f"{_OCI_LAYER}v1.tar+gzip": "gzip",
        f"{_OCI_LAYER}v1.tar+zstd": "zstd",
        f"{_DOCKER_LAYER}diff.tar": "none",
        f"{_DOCKER_LAYER}diff.tar.gzip": "gzip",
        f"{_DOCKER_LAYER}diff.tar.zstd": "zstd",
    }
)
#: layers that registries may leave out and name elsewhere (`urls`) -> compression.
FOREIGN_LAYERS = MappingProxyType(
    {
        f"{_OCI_LAYER}nondistributable.v1.tar": "none",
        f"{_OCI_LAYER}nondistributable.v1.tar+gzip": "gzip",
        f"{_OCI_LAYER}nondistributable.v1.tar+zstd": "zstd",
        f"{_DOCKER_LAYER}foreign.diff.tar": "none",
        f"{_DOCKER_LAYER}foreign.diff.tar.gzip": "gzip",
        f"{_DOCKER_LAYER}foreign.diff.tar.zstd": "zstd",
    }
)
#: suffix of layers encrypted by ocicrypt.
ENCRYPTED = "+encrypted"


def bare(content_type: str) -> str:
    """A Content-Type without its parameters, in lower case (RFC 9110, section 8.3)."""
    return content_type.partition(";")[0].strip().lower()


def is_media_type(text: str) -> bool:
    """Whether `text` is `type/subtype` as RFC 6838 section 4.2 allows them.

    Sigstore's older bundles have a parameter behind it: `;version=0.1`.
    """
    name, _, parameters = text.partition(";")
    kind, slash, subtype = name.partition("/")
    plain = parameters.isascii() and parameters.isprintable() and " " not in parameters
    return bool(slash) and plain and _is_restricted_name(kind) and _is_restricted_name(subtype)


def _is_restricted_name(text: str) -> bool:
    plain = text
    for char in "!#$&-^_.+":
        plain = plain.replace(char, "a")
    return len(text) <= 127 and plain.isascii() and plain.isalnum() and text[0].isalnum()
