"""Detached OpenPGP signatures: the `openpgp` trust scheme of podctl."""

from __future__ import annotations
