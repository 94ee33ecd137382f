"""Which key may sign which name."""

from __future__ import annotations
