"""Configuration kinds read from system, local and user directories."""

from __future__ import annotations
