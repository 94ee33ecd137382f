"""How large the small documents of an image may be, in bytes."""

from __future__ import annotations

#: a discovery page
PAGE = 1_000_000
#: a detached signature
SIGNATURE = 1 << 20
