"""What a stored image says of itself, whatever its format: the one way from a record to an Image.

appc's manifest is read by core itself, which has its schema. The documents of a layered image are
read by their format's plugin, unless root has its own view of them (podctl.store.views); their
digest is compared every time, for they lie where the group can write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.model.image import parse_aci_image
from podctl.store.layout import VERIFIED, VIEW
from podctl.store.views import find_view, keep_view

if TYPE_CHECKING:
    from podctl.model.image import Image
    from podctl.store import ImageRecord, Store


def image_of(store: Store, record: ImageRecord, *, remember: bool = False) -> Image:
    """Read an image's manifest by its format; root reads its own copy, or its own view.

    Args:
        remember: whether root may keep what it makes of a layered image's documents. The caller
            keeps the image from being removed.

    Raises:
        ManifestInvalid, Refused: it breaks the format.
        PluginMissing: nothing installed reads the format.
        NotFound, StoreCorrupt: it is not there, or not readable.
    """
    manifest = store.manifest(record.key)
    if not record.layered:
        return _read(record.format, manifest)
    # First, for what is not installed converts nothing, and nobody has to say what it once did.
    made_by = installation(record.format)
    seen = find_view(store, record.key, made_by)
    if seen is not None and _fits(seen, record):
        return seen._replace(manifest=manifest)
    image = _read(record.format, manifest)
    if remember:
        keep_view(store, record.key, image, made_by)
    return image


def remember_image(store: Store, key: str, image: Image) -> None:
    """Keep what was just made of an image's documents; the caller has checked these."""
    if store.privileged and image.layers:
        keep_view(store, key, image, installation(image.format))


def renew_view(store: Store, key: str, image: Image) -> None:
    """Make root's view of an image anew, whatever stands in its place."""
    store.area.remove(f"{VERIFIED}/{key}{VIEW}")
    remember_image(store, key, image)


def installation(form: str) -> str:
    """A text that changes with podctl, with the plugin that reads a format, and with anything that
    was installed: a distributor may mend a plugin without another version.

    Raises:
        PluginMissing: nothing installed reads the format.
    """
    from podctl import __version__
    from podctl.plugins import snapshot
    from podctl.plugins.families import FORMAT
    from podctl.store.digests import sha256_hex

    found = snapshot()
    provider = found.find(FORMAT, form)
    state = sha256_hex(found.state.encode(errors="surrogateescape"))
    return f"podctl {__version__}, {provider.label}, {provider.target}, {state}"


def _fits(image: Image, record: ImageRecord) -> bool:
    """Whether a record, which the group can write, says what root's view says."""
    return (
        image.format == record.format
        and image.name == record.name
        and dict(image.labels) == dict(record.labels)
        and tuple(layer.diff_id for layer in image.layers) == record.layers
    )


def _read(form: str, manifest: bytes) -> Image:
    if form == "aci":
        return parse_aci_image(manifest)
    from podctl.plugins import image_format

    image: Image = image_format(form).image(manifest)
    return image
