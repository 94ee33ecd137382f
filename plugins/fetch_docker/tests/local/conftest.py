"""Images without a registry."""

from __future__ import annotations

import sys
from pathlib import Path

# pytest imports test modules without their directory on the path; these helpers are theirs alone.
sys.path.insert(0, str(Path(__file__).parent))
