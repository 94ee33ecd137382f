"""Links between documents lead somewhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from doc_blocks import ROOT, documents

if TYPE_CHECKING:
    from pathlib import Path

LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ (?P<text>.+)$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def text_of(path: Path) -> str:
    """A document without its fenced blocks."""
    return FENCED.sub("", path.read_text())


def anchors(path: Path) -> set[str]:
    """The names headings can be linked by, as GitHub and most renderers make them."""
    headings = [match["text"].lower() for match in HEADING.finditer(text_of(path))]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


def broken(path: Path) -> list[str]:
    """The links of a document that lead nowhere."""
    found = []
    for match in LINK.finditer(text_of(path)):
        target, _, anchor = match["target"].partition("#")
        if "://" in target:
            continue
        place = (path.parent / target).resolve() if target else path
        inside = place == path or ROOT in (place, *place.parents)
        if not (inside and place.exists()) or (
            anchor and (place.suffix != ".md" or anchor not in anchors(place))
        ):
            found.append(match["target"])
    return found


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    assert broken(path) == []


def test_control_a_broken_link_is_found(tmp_path: Path) -> None:
    """Control: a missing file, a missing heading and a path out of the repository are found."""
    page = tmp_path / "page.md"
    page.write_text("# One\n[a](no.md) [b](#two) [c](#one) [d](https://example.com/x)\n")
    assert broken(page) == ["no.md", "#two"]


def test_every_document_can_be_reached_from_the_readme() -> None:
    seen = {ROOT / "README.md"}
    waiting = list(seen)
    while waiting:
        path = waiting.pop()
        for match in LINK.finditer(text_of(path)):
            target = match["target"].partition("#")[0]
            place = (path.parent / target).resolve()
            pages = place.rglob("*.md") if place.is_dir() else [place]
            for page in pages:
                if "://" not in target and page.suffix == ".md" and page not in seen:
                    seen.add(page)
                    waiting.append(page)
    reached = {path for path in documents() if "news" not in path.parts}
    assert reached - seen == set()
