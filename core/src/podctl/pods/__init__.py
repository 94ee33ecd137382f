"""Pod directories, their states and what moves them."""

from __future__ import annotations
