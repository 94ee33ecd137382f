"""From a reference to a committed image."""

from __future__ import annotations
