"""Blobs, layers, image records and rendered trees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podctl.store.records import ImageRecord, RemoteRecord, Verification
from podctl.store.store import StagedImage, Store

if TYPE_CHECKING:
    from podctl.store.staging import Partial, Staging

__all__ = [
    "ImageRecord",
    "Partial",
    "RemoteRecord",
    "StagedImage",
    "Staging",
    "Store",
    "Verification",
]


def __getattr__(name: str) -> Any:
    # What only commands that write need is imported when it is asked for.
    if name in ("Partial", "Staging"):
        from podctl.store import staging

        return getattr(staging, name)
    raise AttributeError(name)
