"""Servers with certificates of a test authority, requests that trust it, and quick limits."""

from __future__ import annotations

from podctl.testing.web import authority, ca_file, client_for, named, quick, request_for, serve

__all__ = ["authority", "ca_file", "client_for", "named", "quick", "request_for", "serve"]
