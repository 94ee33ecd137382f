"""A process whose root is somebody else's tree must not load code from it."""

from __future__ import annotations

import sys


def forbid_imports() -> None:
    """From now on only built-in and frozen modules can be imported; module paths would lead into
    the new root (CVE-2019-14271 is this mistake with a C library)."""
    built_in = [f for f in sys.meta_path if getattr(f, "__module__", "") == "_frozen_importlib"]
    sys.meta_path[:] = built_in
    sys.path_hooks.clear()
    sys.path.clear()
