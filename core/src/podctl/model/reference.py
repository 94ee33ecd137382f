"""Image references in every form of the command line, told apart and made canonical.

The forms and their order are rkt's: a hash, a URL, a registry, a name, a file.
"""

from __future__ import annotations

import os
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import InvalidInput, ReferenceInvalid
from podctl.model.labels import host_labels, labels_from_pairs
from podctl.model.names import IMAGE_ID_PREFIX, check_identifier, check_image_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: longest reference of any form, in characters.
MAX_REFERENCE = 4096

DEFAULT_REGISTRY = "registry-1.docker.io"

#: how an image is written that lies on this host outside the store, with all its documents.
LAYOUTS = ("oci", "oci-archive", "docker-archive")

_FORMS = (
    "a name like example.com/app:1.0, a path or URL ending in .aci, docker://name:tag, "
    "oci:path:tag, docker-archive:path or sha512-..."
)


class Reference(NamedTuple):
    """A parsed reference.

    Args:
        kind: `name`, `file`, `url`, `hash`, `docker` or `layout`.
        scheme: the transport: `appc`, `file`, `https`, `http`, `docker`, or that of a URL whose
            scheme a plugin may know; one of LAYOUTS; None for a hash.
        text: as the user wrote it.
        name: AC Identifier, or `registry/repository`; None for files, layouts, URLs and hashes.
        version: version label, tag or digest, when given; of a layout, what names the image in it.
        labels: other labels that were given.
        path_or_url: path of a file or layout, URL, hash, or `registry/repository:tag`.
        short: whether the registry was left open, and is the default one.
    """

    kind: str
    scheme: str | None
    text: str
    name: str | None = None
    version: str | None = None
    labels: Mapping[str, str] = MappingProxyType({})
    path_or_url: str = ""
    short: bool = False

    def search_labels(self) -> dict[str, str]:
        """The labels an image must have: those given, and os and arch of this host by default."""
        labels = {} if self.version is None else {"version": self.version}
        return {**labels, **self.labels, **self._missing_platform()}

    def _missing_platform(self) -> dict[str, str]:
        host = host_labels()
        if self.labels.get("os", host["os"]) != host["os"]:
            return {}
        return {name: value for name, value in host.items() if name not in self.labels}

    def canonical(self) -> str:
        """The form two references to one source share (`cimd:TYPE:v=0:DATA`); a hash is its own."""
        if self.kind == "hash":
            return self.path_or_url
        if self.kind == "docker":
            return f"cimd:docker:v=0:{self.path_or_url}"
        if self.kind == "name":
            labels = {} if self.version is None else {"version": self.version}
            labels.update(self.labels)
            query = "&".join(
                f"{_quote(name)}={_quote(value)}" for name, value in sorted(labels.items())
            )
            return f"cimd:appc:v=0:{self.name}" + (f"?{query}" if query else "")
        url = self.path_or_url
        if self.kind == "layout":
            query = "" if self.version is None else f"?ref={_quote(self.version)}"
            return f"cimd:{self.scheme}:v=0:{_quote(os.path.abspath(url), safe='/')}{query}"
        if self.kind == "file":
            url = "file://" + _quote(os.path.abspath(url), safe="/")
        return f"cimd:aci-archive:v=0:{_quote(url)}"


def is_image_path(path: str) -> bool:
    """Whether a path is an existing regular file, or a directory that says it is an OCI layout."""
    return os.path.isfile(path) or os.path.isfile(os.path.join(path, "oci-layout"))


def parse(text: str, *, is_file: Callable[[str], bool] = is_image_path) -> Reference:
    """Parse a reference.

    Args:
        text: what the user wrote.
        is_file: says whether a relative path is an existing image.

    Raises:
        ReferenceInvalid: it matches no form, or holds what no form allows.
    """
    _check_text(text)
    if text.startswith(IMAGE_ID_PREFIX):
        return _checked(_parse_hash, text)
    scheme, colon, rest = text.partition(":")
    if colon and scheme in ("file", "http", "https") and rest.startswith("/"):
        return _parse_url(text, scheme)
    if colon and scheme == "docker":
        return _parse_docker(text, rest.removeprefix("//"))
    if colon and scheme in LAYOUTS and not rest.startswith("//"):
        from podctl.model.layoutreference import parse_layout

        return parse_layout(text, scheme, rest)
    if colon and scheme == "cimd":
        return _parse_cimd(text, rest)
    if colon and rest.startswith("//"):
        return _parse_foreign(text, scheme)
    if _is_path(text, is_file):
        return Reference("file", "file", text, path_or_url=text)
    return parse_name(text)


def parse_name(text: str) -> Reference:
    """Parse `name[:version][,label=value]*`.

    Raises:
        ReferenceInvalid: a part is malformed.
    """
    _check_text(text)
    return _checked(_parse_name, text)


def _check_text(text: str) -> None:
    if not text:
        raise ReferenceInvalid("image reference is empty", hint=_FORMS)
    if len(text) > MAX_REFERENCE:
        raise ReferenceInvalid(f"image reference is longer than {MAX_REFERENCE} characters")
    if text.startswith("-"):
        # It could be taken for an option by any program it is handed to.
        raise invalid(text, "begins with a dash")
    if not text.isprintable():
        raise invalid(text, "holds control characters")


def _checked(parse_form: Callable[[str], Reference], text: str) -> Reference:
    try:
        return parse_form(text)
    except ReferenceInvalid:
        raise
    except InvalidInput as error:
        raise invalid(text, error.message) from None


def invalid(text: str, rule: str) -> ReferenceInvalid:
    """What is to be raised of a reference that breaks a rule."""
    return ReferenceInvalid(f'invalid image string "{text[:256]}": {rule}', hint=_FORMS)


def _is_path(text: str, is_file: Callable[[str], bool]) -> bool:
    if text.startswith("/") or is_file(text):
        return True
    return ":" not in text and ("./" in text or text.endswith(".aci"))


def _parse_hash(text: str) -> Reference:
    return Reference("hash", None, text, path_or_url=check_image_id(text))


def _parse_name(text: str) -> Reference:
    head, *pairs = text.split(",")
    name, colon, version = head.partition(":")
    check_identifier(name, "image name")
    given = [("version", version)] if colon else []
    for pair in pairs:
        label, equals, value = pair.partition("=")
        if not equals:
            raise InvalidInput(f"label {pair!r} is not of the form name=value")
        given.append((label, value))
    for label, value in given:
        _check_value(label, value)
    if {"arch"} <= {label for label, _ in given} and "os" not in dict(given):
        # An architecture alone is meant for this host's system.
        given.append(("os", host_labels()["os"]))
    labels = labels_from_pairs(given)
    return Reference("name", "appc", text, name, labels.pop("version", None), labels)


def _check_value(label: str, value: str) -> None:
    # Values become parts of discovered URLs and of file names.
    plain = value
    for char in "._~+:@/-":
        plain = plain.replace(char, "a")
    if not (plain.isascii() and plain.isalnum()) or len(value) > 255:
        raise InvalidInput(f"label {label}={value!r} must be letters, digits and ._~+:@/-")
    if not {"", ".", ".."}.isdisjoint(value.split("/")):
        raise InvalidInput(f"label {label}={value!r} must not hold //, . or .. as a path would")


def _parse_url(text: str, scheme: str, suffix: str = ".aci") -> Reference:
    from urllib.parse import unquote, urlsplit

    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise invalid(text, str(error)) from None
    path = unquote(parts.path, errors="replace")
    # Files may also be images of other formats, which their content tells.
    if scheme != "file" and not path.endswith(suffix):
        raise invalid(text, "its path must end in .aci")
    if "\ufffd" in path or not path.isprintable():
        raise invalid(text, "its path decodes to no plain text")
    if parts.fragment or (scheme == "file" and parts.query):
        raise invalid(text, "a query or fragment has no meaning here")
    if scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise invalid(text, "a file URL names no host; write file:///path")
        return Reference("file", "file", text, path_or_url=path)
    if parts.username is not None or "@" in parts.netloc:
        raise ReferenceInvalid(
            f'invalid image string "{scheme}://...@{parts.hostname or ""}": holds credentials',
            hint="put them into the auth configuration",
        )
    _check_host(text, parts.netloc, port)
    if ".." in path.split("/"):
        raise invalid(text, "its path must not hold ..")
    return Reference("url", scheme, text, path_or_url=text)


def _parse_foreign(text: str, scheme: str) -> Reference:
    """A URL of a scheme that a plugin may bring; what follows is for its transport to judge."""
    allowed = frozenset("abcdefghijklmnopqrstuvwxyz0123456789+.-")
    if not scheme[:1].isalpha() or not allowed.issuperset(scheme):
        raise invalid(text, f"scheme {scheme!r} is malformed")
    if "@" in text[len(scheme) + 3 :].partition("/")[0]:
        raise ReferenceInvalid(
            f'invalid image string "{scheme}://...@...": holds credentials',
            hint="put them into the auth configuration",
        )
    return Reference("url", scheme, text, path_or_url=text)


def _check_host(text: str, netloc: str, port: int | None) -> None:
    host = netloc
    if port is not None:
        host = netloc.rpartition(":")[0]
        if port == 0:
            raise invalid(text, "port 0 is not valid")
    if host.startswith("[") and host.endswith("]"):
        good = set(host[1:-1]) <= set("0123456789abcdefABCDEF:.") and ":" in host
    else:
        good = is_host(host)
    if not good:
        raise invalid(text, f"{host!r} is no host name (write other scripts in punycode)")


def is_host(host: str) -> bool:
    """Whether `host` is a DNS name or IPv4 address: dotted ASCII letters, digits and dashes."""
    labels = host.removesuffix(".").split(".")
    return len(host) <= 253 and all(
        label.replace("-", "a").isascii()
        and label.replace("-", "a").isalnum()
        and len(label) <= 63
        and label[0] != "-"
        and label[-1] != "-"
        for label in labels
    )


def _parse_docker(text: str, rest: str) -> Reference:
    body, at, digest = rest.partition("@")
    name, tag = _split_tag(body)
    if at and tag is not None:
        raise invalid(text, "a tag and a digest together; leave one out")
    if at:
        check_digest(text, digest)
    elif tag is not None:
        _check_tag(text, tag)
    given = name
    registry, repository = _split_registry(name)
    _check_registry(text, registry)
    if (
        not repository
        or len(repository) > 255
        or not all(map(_is_component, repository.split("/")))
    ):
        raise invalid(text, f"{repository[:64]!r} is no repository name")
    name = f"{registry}/{repository}"
    version = digest if at else tag or "latest"
    path = f"{name}@{version}" if at else f"{name}:{version}"
    short = not name_has_registry(given)
    return Reference("docker", "docker", text, name, version, path_or_url=path, short=short)


def _split_tag(body: str) -> tuple[str, str | None]:
    name, colon, tag = body.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (body, None)


def name_has_registry(name: str) -> bool:
    """Whether the first component of a repository's name is a registry, by docker's rule."""
    first, slash, _ = name.partition("/")
    return bool(slash) and (any(char in ".:" for char in first) or first == "localhost")


def _split_registry(name: str) -> tuple[str, str]:
    if name_has_registry(name):
        registry, _, repository = name.partition("/")
    else:
        registry, repository = DEFAULT_REGISTRY, name
    if registry in ("docker.io", "index.docker.io"):
        registry = DEFAULT_REGISTRY
    if registry == DEFAULT_REGISTRY and repository and "/" not in repository:
        repository = f"library/{repository}"
    return registry, repository


def _check_registry(text: str, registry: str) -> None:
    host, colon, port = registry.partition(":")
    number = port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535
    if not is_host(host) or (colon and not number):
        raise invalid(text, f"{registry!r} is no registry")


def _check_tag(text: str, tag: str) -> None:
    plain = tag.replace("_", "a").replace(".", "a").replace("-", "a")
    if not (plain.isascii() and plain.isalnum()) or len(tag) > 128 or tag[0] in ".-":
        raise invalid(text, f"{tag[:64]!r} is no tag")


def check_digest(text: str, digest: str) -> None:
    """Check a digest, of sha256 or sha512.

    Raises:
        ReferenceInvalid: it is none.
    """
    algorithm, _, value = digest.partition(":")
    length = {"sha256": 64, "sha512": 128}.get(algorithm)
    if len(value) != length or not set(value) <= set("0123456789abcdef"):
        raise invalid(text, f"{digest[:80]!r} is no sha256 or sha512 digest")


def _is_component(part: str) -> bool:
    """A path component: lower-case runs joined by `.`, `_`, `__` or dashes (distribution spec)."""
    flat = part.replace("__", "_").replace(".", "_")
    while "--" in flat:
        flat = flat.replace("--", "-")
    words = flat.replace("-", "_").split("_")
    return all(word.isascii() and word.isalnum() and word == word.lower() for word in words)


def _parse_cimd(text: str, rest: str) -> Reference:
    kind, _, tail = rest.partition(":")
    version, _, data = tail.partition(":")
    if version != "v=0":
        raise invalid(text, "cimd version must be v=0")
    if kind == "docker":
        return _parse_docker(text, data)
    if kind == "appc":
        name, _, query = data.partition("?")
        pairs = [pair for pair in _unquote(query).split("&") if pair]
        return parse_name(",".join([_unquote(name), *pairs]))._replace(text=text)
    if kind == "aci-archive":
        url = _unquote(data)
        scheme = url.partition(":")[0]
        if scheme in ("file", "http", "https"):
            # A path that was given as such is free in its suffix.
            return _parse_url(url, scheme, suffix="")._replace(text=text)
        if url.startswith(f"{scheme}://"):
            return _parse_foreign(url, scheme)._replace(text=text)
    if kind in LAYOUTS:
        from podctl.model.layoutreference import parse_cimd_layout

        path, _, name = data.partition("?ref=")
        return parse_cimd_layout(text, kind, _unquote(path), _unquote(name))
    raise invalid(text, f"cimd type must be appc, docker, aci-archive, {' or '.join(LAYOUTS)}")


def _unquote(text: str) -> str:
    from urllib.parse import unquote

    return unquote(text)


def _quote(text: str, safe: str = "") -> str:
    """Percent-encode as RFC 3986 does; here, so that looking up a name imports no urllib."""
    keep = "-._~" + safe
    return "".join(
        char if char.isascii() and (char.isalnum() or char in keep) else _percent(char)
        for char in text
    )


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in os.fsencode(char))
