"""Detached OpenPGP signatures."""

from __future__ import annotations
