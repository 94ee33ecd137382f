"""Application Container Images: files, URLs and discovery by name."""

from __future__ import annotations
