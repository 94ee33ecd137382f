"""The fly flavor: one app, chrooted, without isolation."""

from __future__ import annotations
