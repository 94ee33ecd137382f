"""The front door for plugins: `hookimpl`, and by name everything a provider handles.

A provider imports this package, `podctl.model`, `podctl.errors`, where it touches the kernel
`podctl.sys` and where it talks to servers `podctl.http`; nothing else of podctl is stable for it.
"""

from __future__ import annotations

import pluggy

hookimpl = pluggy.HookimplMarker("podctl")

__all__ = ["hookimpl"]
