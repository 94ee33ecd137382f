"""Values without I/O: names, manifests, references, plans."""

from __future__ import annotations
