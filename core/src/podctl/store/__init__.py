"""Blobs, layers, image records and rendered trees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podctl.store.records import ImageRecord, RemoteRecord, Verification
from podctl.store.store import StagedImage, StagedLayer, Store, document_key, write_notes

if TYPE_CHECKING:
    from podctl.store.staging import Partial, Staging

__all__ = [
    "ImageRecord",
    "Partial",
    "RemoteRecord",
    "StagedImage",
    "StagedLayer",
    "Staging",
    "Store",
    "Verification",
    "document_key",
    "write_notes",
]


def __getattr__(name: str) -> Any:
    # What only commands that write need is imported when it is asked for.
    if name in ("Partial", "Staging"):
        from podctl.store import staging

        return getattr(staging, name)
    raise AttributeError(name)
