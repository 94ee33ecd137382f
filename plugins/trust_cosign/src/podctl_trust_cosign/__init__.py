"""Cosign signatures of images in registries, verified by key."""

from __future__ import annotations
