"""The entry point: transport `docker`.

This module is light: what the work needs is imported where it is done, and all of it by
`transport_preload`, before the transport gives up its rights.
"""

from __future__ import annotations


class DockerTransport:
    """Images in a registry (OCI distribution specification 1.1, Docker registry HTTP API v2)."""


docker = DockerTransport()
