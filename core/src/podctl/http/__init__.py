"""HTTP for transports: capped, paced, resumable, and careful about who gets which secret.

A library for plugins, like `podctl.sys`. Nothing of core imports it, and its modules are imported
by `transport_preload` alone: requests is an extra of `podctl-core` (`http`).
"""

from __future__ import annotations
