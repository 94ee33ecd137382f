"""Builders of manifests that differ from a good one in one place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable

# Examples take as long as the machine is busy; how long says nothing here.
settings.register_profile("podctl", deadline=None)
settings.load_profile("podctl")

IMAGE_ID = "sha512-" + "ab" * 32

APP: dict[str, Any] = {"exec": ["/bin/app"], "user": "0", "group": "0"}

IMAGE: dict[str, Any] = {
    "acKind": "ImageManifest",
    "acVersion": "0.8.11",
    "name": "example.com/app",
    "labels": [{"name": "os", "value": "linux"}, {"name": "arch", "value": "amd64"}],
    "app": APP,
}

POD: dict[str, Any] = {
    "acKind": "PodManifest",
    "acVersion": "0.8.11",
    "apps": [{"name": "app", "image": {"id": IMAGE_ID}}],
}


@pytest.fixture(scope="session")
def image_bytes() -> Callable[..., bytes]:
    """An image manifest with top-level keys replaced; a key of value ... is left out."""
    return lambda **changes: _changed(IMAGE, changes)


@pytest.fixture(scope="session")
def app_bytes() -> Callable[..., bytes]:
    """An image manifest with keys of its app section replaced."""
    return lambda **changes: _changed(IMAGE, {"app": json.loads(_changed(APP, changes))})


@pytest.fixture(scope="session")
def pod_bytes() -> Callable[..., bytes]:
    """A pod manifest with top-level keys replaced."""
    return lambda **changes: _changed(POD, changes)


@pytest.fixture(scope="session")
def pod_app_bytes() -> Callable[..., bytes]:
    """A pod manifest with keys of its only app replaced, and volumes `a` and `b`."""
    volumes = [{"name": name, "kind": "empty"} for name in "ab"]

    def build(**changes: Any) -> bytes:
        app = json.loads(_changed(POD["apps"][0], changes))
        return _changed(POD, {"apps": [app], "volumes": volumes})

    return build


def _changed(value: dict[str, Any], changes: dict[str, Any]) -> bytes:
    merged = {**value, **changes}
    return json.dumps({key: item for key, item in merged.items() if item is not ...}).encode()
