"""A flavor, a transport and a hook, as somebody outside of podctl would write them."""

from __future__ import annotations
