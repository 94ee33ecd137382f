"""Servers, requests and clients for the tests of the HTTP library."""

from __future__ import annotations

from podctl.testing.web import authority, ca_file, client_for, named, quick, request_for, serve

__all__ = ["authority", "ca_file", "client_for", "named", "quick", "request_for", "serve"]
