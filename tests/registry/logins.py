"""Credentials for registries, put where rkt has them, and the shapes a secret leaks in."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clean_home import Clean

USER, PASSWORD = "alice", "hunter2-correct-horse"


def log_in(home: Clean, *registries: str, user: str = USER, password: str = PASSWORD) -> None:
    """Write a `dockerAuth` file; it replaces an earlier one."""
    place = home.local / "auth.d"
    place.mkdir(mode=0o700, exist_ok=True)
    document = {
        "rktKind": "dockerAuth",
        "rktVersion": "v1",
        "registries": list(registries or ("registry.example",)),
        "credentials": {"user": user, "password": password},
    }
    path = place / "registry.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(document))


def shapes(secret: str = PASSWORD, user: str = USER) -> list[str]:
    """A secret as it could leak: plain, and as a header carries it."""
    basic = base64.b64encode(f"{user}:{secret}".encode()).decode()
    return [secret, basic, base64.b64encode(secret.encode()).decode()]
