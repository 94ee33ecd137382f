"""Blobs, layers, image records and rendered trees."""

from __future__ import annotations

from podctl.store.records import ImageRecord, RemoteRecord, Verification
from podctl.store.staging import Partial, Staging
from podctl.store.store import StagedImage, Store

__all__ = [
    "ImageRecord",
    "Partial",
    "RemoteRecord",
    "StagedImage",
    "Staging",
    "Store",
    "Verification",
]
