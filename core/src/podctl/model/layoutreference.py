"""References to images that lie on this host: `oci:PATH[:NAME]` and its like."""

from __future__ import annotations

from podctl.model.reference import Reference, check_digest, invalid

#: characters of an image's name in a layout.
_MAX_NAME = 512
_DIGESTS = ("sha256:", "sha512:")


def parse_layout(text: str, scheme: str, rest: str) -> Reference:
    """Parse `PATH`, `PATH:NAME`, `PATH@DIGEST` or `PATH:@DIGEST`; the path ends at its first colon.

    Args:
        text: the whole reference, for messages.

    Raises:
        ReferenceInvalid: a part is missing or malformed.
    """
    path, at, digest = rest.rpartition("@")
    if at and digest.startswith(_DIGESTS):
        check_digest(text, digest)
        path, version = path.removesuffix(":"), digest
        if ":" in path:
            raise invalid(text, "a name and a digest together; leave one out")
    else:
        path, colon, version = rest.partition(":")
        if colon:
            _check_name(text, version)
    if not path:
        raise invalid(text, "names no directory or file")
    return Reference("layout", scheme, text, version=version or None, path_or_url=path)


def parse_cimd_layout(text: str, scheme: str, path: str, name: str) -> Reference:
    """Parse the canonical form, taken apart and decoded; an empty `name` is none.

    Raises:
        ReferenceInvalid: a part is malformed.
    """
    if not path.startswith("/") or not path.isprintable():
        raise invalid(text, "its path must be absolute and plain text")
    if name.startswith(_DIGESTS):
        check_digest(text, name)
    elif name:
        _check_name(text, name)
    return Reference("layout", scheme, text, version=name or None, path_or_url=path)


def _check_name(text: str, name: str) -> None:
    """A name in a layout (image-spec annotations.md, `org.opencontainers.image.ref.name`)."""
    plain = name
    for char in "-._:@+/":
        plain = plain.replace(char, "a")
    if not (plain.isascii() and plain.isalnum() and name[0].isalnum()) or len(name) > _MAX_NAME:
        raise invalid(text, f"{name[:64]!r} can be no image's name in it")
