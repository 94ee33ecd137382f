"""Docker and OCI images, and the registries they come from."""

from __future__ import annotations
