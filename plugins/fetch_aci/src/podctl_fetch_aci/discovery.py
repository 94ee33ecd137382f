"""From an image's name to URLs: App Container Image Discovery (appc spec 0.8.11, discovery.md)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote

from podctl.errors import FetchFailed
from podctl.http import urls
from podctl.http.client import bad_status
from podctl_fetch_aci.head import meta_tags
from podctl_fetch_aci.limits import PAGE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podctl.http.client import Client
    from podctl.http.urls import Target

_VARIABLE = re.compile(r"\{([^{}]*)\}")
#: What simple discovery, the spec's first form (0.1 to 0.6), asks for without looking anywhere.
SIMPLE = "https://{name}-{version}-{os}-{arch}.{ext}"
#: Version asked for where none was named and a template insists, as in rkt.
LATEST = "latest"
MAX_ENDPOINTS = 32


class Endpoint(NamedTuple):
    """Where one image and its signature may be had."""

    image: Target
    signature: Target


class Tag(NamedTuple):
    """An `ac-discovery` or `ac-discovery-pubkeys` element."""

    kind: str
    prefix: str
    value: str


class Found(NamedTuple):
    """The tags of the first page that had any for a name, and a line on each page asked."""

    values: list[Tag]
    tried: list[str]


def find_tags(client: Client, name: str, kind: str) -> Found:
    """Ask the pages of `name`, then of its parents, for tags of one kind.

    Pages are asked by https; by http only with `http` among the insecure options, and after https.
    """
    tried: list[str] = []
    path = name
    while path:
        for scheme in ("https", "http") if "http" in client.request.insecure else ("https",):
            page = _page(client, urls.parse(f"{scheme}://{path}?ac-discovery=1"), tried)
            tags = [] if page is None else tags_for(page, name, kind)
            if tags:
                return Found(tags, tried)
            if page is not None:
                tried.append(f"{scheme}://{path}: no {kind} tag for {name}")
        path = path.rpartition("/")[0]
    return Found([], tried)


def _page(client: Client, target: Target, tried: list[str]) -> bytes | None:
    try:
        answer, page = client.document(target, PAGE, "discovery page")
    except FetchFailed as error:
        tried.append(error.message)
        return None
    if answer.status != 200:
        tried.append(bad_status(answer))
        return None
    return page


def tags_for(page: bytes, name: str, kind: str) -> list[Tag]:
    """Return a page's tags of one kind whose prefix covers `name`, whole components alone.

    rkt compared plain text: a tag for `example.com/foo` spoke for `example.com/foobar` too.
    """
    found = []
    for tag_name, content in meta_tags(page):
        words = content.split()
        if tag_name == kind and len(words) == 2:
            prefix = words[0].rstrip("/")
            if name == prefix or name.startswith(prefix + "/"):
                found.append(Tag(kind, prefix, words[1]))
    return found


def endpoints(
    client: Client, templates: list[str], name: str, labels: Mapping[str, str], tried: list[str]
) -> list[Endpoint]:
    """Render the best matching templates in the page's order; a line in `tried` on each refused.

    Best are those with the most labels substituted and none left over (discovery.md). Without a
    version, templates that need one count only where nothing else fits.
    """
    chosen = best(templates, labels)
    if not chosen and "version" not in labels:
        labels = {**labels, "version": LATEST}
        chosen = best(templates, labels)
    if not chosen and templates:
        tried.append(f"none of {len(templates)} templates can be filled in")
    found: list[Endpoint] = []
    for template in chosen[:MAX_ENDPOINTS]:
        try:
            endpoint = Endpoint(
                _render(client, template, name, labels, "aci"),
                _render(client, template, name, labels, "aci.asc"),
            )
        except FetchFailed as error:
            tried.append(f"template refused: {error.message}")
            continue
        if endpoint not in found:
            found.append(endpoint)
    return found


def best(templates: list[str], labels: Mapping[str, str]) -> list[str]:
    """Return the templates with the most labels among those that can be filled in whole."""
    known = {"name", "ext", *labels}
    counts = {}
    for template in templates:
        variables = set(_VARIABLE.findall(template))
        if "ext" in variables and variables <= known:
            counts[template] = len(variables & set(labels))
    most = max(counts.values(), default=0)
    return [template for template, count in counts.items() if count == most]


def simple(
    client: Client, name: str, labels: Mapping[str, str], tried: list[str]
) -> list[Endpoint]:
    """The endpoint of simple discovery, if name and labels make one.

    A name without a path would turn into another host's (`example.com-1.0-linux-amd64.aci`).
    """
    if "/" not in name:
        return []
    return endpoints(client, [SIMPLE], name, labels, tried)


def _render(
    client: Client, template: str, name: str, labels: Mapping[str, str], ext: str
) -> Target:
    """Fill a template in; values are encoded, so that none can add a host, a query or a path."""
    values = {**{label: quote(value, safe="~") for label, value in labels.items()}}
    values |= {"name": quote(name, safe="/~"), "ext": ext}
    target = urls.parse(_VARIABLE.sub(lambda match: values[match.group(1)], template))
    if {".", ".."} & set(unquote(target.path).split("/")):
        raise FetchFailed("a path with . or ..")
    client.allow_plain(target, f"{target.shown} is plain http")
    return target
