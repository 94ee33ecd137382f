"""Blobs, layers, image records and rendered trees."""

from __future__ import annotations
