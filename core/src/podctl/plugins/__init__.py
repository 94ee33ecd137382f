"""Finding, loading and calling providers."""

from __future__ import annotations
