"""An image whatever its format: what core and flavors need to know of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from podctl.errors import Refused
from podctl.model.labels import VALID_OS_ARCH
from podctl.model.manifest import App, Dependency, app_value, pairs_value, parse_image_manifest
from podctl.model.names import AC_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping


class Layer(NamedTuple):
    """One layer of a layered image.

    Args:
        diff_id: `sha256-` and 64 digits, of the uncompressed tar.
        blob: `sha256:` and 64 digits, of the bytes as published.
        size: their number.
        compression: `gzip`, `zstd` or `none`, as declared; the bytes must agree.
    """

    diff_id: str
    blob: str
    size: int
    compression: str


class Image(NamedTuple):
    """What a format reads out of an image's own documents.

    Args:
        format: the format provider's name, e.g. `aci`.
        name: AC Identifier.
        labels: among them `version`, `os` and `arch` where the image says so.
        app: how to run it; None for an image that only others depend on.
        dependencies: images whose files come first, in order.
        path_whitelist: absolute paths that are kept when rendering; empty keeps all.
        annotations: name -> value.
        manifest: the format's manifest, byte for byte (of a layered image, the image document).
        layers: lowest first; empty where the image is one archive that holds its manifest.
    """

    format: str
    name: str
    labels: Mapping[str, str]
    app: App | None
    dependencies: tuple[Dependency, ...]
    path_whitelist: tuple[str, ...]
    annotations: Mapping[str, str]
    manifest: bytes
    layers: tuple[Layer, ...] = ()


def parse_aci_image(manifest: bytes, *, what: str = "image manifest") -> Image:
    """Read the manifest of an App Container Image.

    Raises:
        ManifestInvalid: it breaks the appc schema.
    """
    parsed = parse_image_manifest(manifest, what=what)
    return Image(
        format="aci",
        name=parsed.name,
        labels=parsed.labels,
        app=parsed.app,
        dependencies=parsed.dependencies,
        path_whitelist=parsed.path_whitelist,
        annotations=parsed.annotations,
        manifest=manifest,
    )


def appc_value(image: Image) -> dict[str, Any]:
    """The appc image manifest of an image of any format, as a JSON value.

    An app's group may be empty, which stands for the user's own groups and which appc has no word
    for: who writes an archive has to put a number in its place.
    """
    value: dict[str, Any] = {
        "acKind": "ImageManifest",
        "acVersion": AC_VERSION,
        "name": image.name,
        "labels": pairs_value(image.labels),
    }
    if image.app is not None:
        value["app"] = app_value(image.app)
    if image.annotations:
        value["annotations"] = pairs_value(image.annotations)
    return value


def check_runnable(image: Image) -> None:
    """Check that an image says it is made for Linux on an architecture Linux has.

    Whether this host can execute it is left to the kernel, which may have an emulator registered
    (binfmt_misc).

    Raises:
        Refused: a label is missing, or names something else.
    """
    system, arch = image.labels.get("os"), image.labels.get("arch")
    if system is None:
        raise Refused(f"{image.name}: missing os label in the image manifest")
    if arch is None:
        raise Refused(f"{image.name}: missing arch label in the image manifest")
    if system != "linux":
        raise Refused(f'{image.name}: bad os "{system}", only linux images run here')
    if arch not in VALID_OS_ARCH[system]:
        raise Refused(f'{image.name}: bad arch "{arch}" for linux')
