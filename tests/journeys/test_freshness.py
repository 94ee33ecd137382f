"""A second fetch of the same name asks only what it must."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from site_world import Site

pytestmark = pytest.mark.root

NAME = "apps.example/fresh"
INSECURE = "--insecure-options=image"


def test_a_discovered_image_that_did_not_change_is_not_downloaded_again(site: Site) -> None:
    site.publish(NAME)
    first = site.podctl(INSECURE, "fetch", NAME)
    second = site.podctl(INSECURE, "fetch", NAME)
    assert first.returncode == second.returncode == 0
    assert first.stdout == second.stdout
    assert "is unchanged, not fetching" in second.stderr


def test_a_discovered_image_that_did_change_is(site: Site) -> None:
    site.publish(NAME)
    first = site.podctl(INSECURE, "fetch", NAME)
    site.publish(NAME, app={"environment": [{"name": "EDITION", "value": "2"}]})
    second = site.podctl(INSECURE, "fetch", NAME)
    assert first.returncode == second.returncode == 0
    assert first.stdout != second.stdout
    assert "unchanged" not in second.stderr
