"""System calls and what is built directly on them; stdlib only."""

from __future__ import annotations
