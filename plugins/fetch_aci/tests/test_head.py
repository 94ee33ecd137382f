"""Which meta elements of a page count: those in its head, as a browser reads it (row R12)."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest

from podctl_fetch_aci.head import meta_tags

TAG = '<meta name="ac-discovery" content="example.com https://example.com/{name}.{ext}">'
VALUE = "example.com https://example.com/{name}.{ext}"


def found(page: str | bytes) -> list[str]:
    """Contents of the page's ac-discovery tags."""
    data = page.encode() if isinstance(page, str) else page
    return [content for name, content in meta_tags(data) if name == "ac-discovery"]


COUNTED = {
    "plain": f"<html><head>{TAG}</head></html>",
    "doctype": f"<!DOCTYPE html><html lang='en'>\n<head>\n  {TAG}</head>",
    "no head tag": f"<meta charset=utf-8>{TAG}<body>",
    "byte order mark": f"\ufeff<html>{TAG}",
    "upper case": f"<HTML><HEAD>{TAG.upper().replace(VALUE.upper(), VALUE)}",
    "single quotes": f"<head>{TAG}".replace('"', "'"),
    "no quotes": '<meta name=ac-discovery content="' + VALUE + '">',
    "reversed": f'<meta content="{VALUE}" name="ac-discovery">',
    "closed": TAG.replace(">", "/>"),
    "spaces": f'<meta\n name = "ac-discovery"\tcontent\n=\n"{VALUE}"\n>',
    "entities": '<meta name="ac-discovery" content="example.com&#32;' + VALUE[12:] + '">',
    "other attributes": TAG.replace("<meta", "<meta property='x>y' data-x"),
    "after comment": f"<!-- note -->{TAG}",
    "after empty comments": f"<!--><!--->{TAG}",
    "comment ended with a bang": f"<!-- note --!>{TAG}",
    "after title": f"<title>a <b> c</title>{TAG}",
    "after script": f"<script>if (a<b) '</scriptx>'</script>{TAG}",
    "after style": f"<style>a>b{{}}</style >{TAG}",
    "after processing instruction": f"<?xml version='1.0'?>{TAG}",
    "after link and base": f"<link rel=x href=y><base href=z>{TAG}",
    "bad bytes before": b"<title>\xff\xfe</title>" + TAG.encode(),
    "declared latin 1": f"<meta charset='latin1'>{TAG}",
    "first of two contents": TAG.replace(">", ' content="evil">'),
}

IGNORED = {
    "empty": "",
    "in body": f"<html><head></head><body>{TAG}</body>",
    "after head": f"<head></head>{TAG}",
    "in body without head": f"<p>hello</p>{TAG}",
    "after text": f"hello {TAG}",
    "after an image": f"<img src=x>{TAG}",
    "in comment": f"<head><!-- {TAG} --></head>",
    "in comment without end": f"<head><!-- {TAG}",
    "in script": f"<script>var x = '{TAG}'</script>",
    "in script without end": f"<script>{TAG}",
    "in style": f"<style>{TAG}</style>",
    "in title": f"<title>{TAG}</title>",
    "in noscript": f"<noscript>{TAG}</noscript>",
    "in template": f"<template>{TAG}</template>",
    "in an attribute": f"<meta name='x' content='{TAG}'>",
    "in declaration": "<!DOCTYPE '" + TAG.replace(">", "") + "'>",
    "tag without end": TAG[:-1],
    "other name": TAG.replace("ac-discovery", "ac-discoverY-x"),
    "no name": TAG.replace("name=", "property="),
    "escaped": TAG.replace("<", "&lt;"),
    "utf-16": TAG.encode("utf-16"),
    "utf-7": TAG.replace("<", "+ADw-").replace(">", "+AD4-"),
    "utf-32": TAG.encode("utf-32"),
    "nul in the name": TAG.replace("meta", "me\0ta"),
}


@pytest.mark.parametrize("page", COUNTED.values(), ids=COUNTED)
def test_tag_in_head_counts(page: str | bytes) -> None:
    assert found(page) == [VALUE]


@pytest.mark.parametrize("page", IGNORED.values(), ids=IGNORED)
def test_tag_elsewhere_is_ignored(page: str | bytes) -> None:
    assert found(page) == []


class _Naive(HTMLParser):
    """Takes every meta tag of a page: the control of the test below."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[Any]) -> None:
        if tag == "meta" and dict(attrs).get("name") == "ac-discovery":
            self.found.append(dict(attrs)["content"])


@pytest.mark.parametrize("kind", ["in body", "after head", "after text", "in noscript", "in title"])
def test_naive_reader_would_have_taken_it(kind: str) -> None:
    naive = _Naive()
    naive.feed(str(IGNORED[kind]))
    assert naive.found == [VALUE]


@pytest.mark.parametrize(
    "piece",
    ["<!--", "<a", "<a =", "</", "<![CDATA[", "<meta ", "<meta a=", "<meta a='", "<title>", "<!",
     "<meta x>", " ", "<script", "<meta " + "/" * 999, "<meta " + "a=" * 999 + ">", "&", "\0"],
)  # fmt: skip
def test_time_is_linear_in_the_page(piece: str) -> None:
    """Counted in steps of the scanner, not seconds: html.parser takes minutes for some of these."""
    import sys

    def steps(size: int) -> int:
        page = (piece * (size // len(piece) + 1)).encode()
        count = 0

        def trace(frame: Any, event: str, arg: Any) -> Any:
            nonlocal count
            count += 1
            return trace

        sys.settrace(trace)
        try:
            list(meta_tags(page))
        finally:
            sys.settrace(None)
        return count

    assert steps(200_000) < 4 * steps(100_000) + 1000


def test_many_tags_are_capped() -> None:
    assert len(list(meta_tags(TAG.encode() * 5000))) <= 1000
