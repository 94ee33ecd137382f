"""Letting an ordinary user run podctl from a checkout that only root can reach."""

from __future__ import annotations

from pathlib import Path

#: the checkout, when podctl is installed from one (core/src/podctl/testing/reach.py)
REPOSITORY = Path(__file__).parents[4]
#: $1: the first directory on the way to the checkout that only root may enter; $2: the checkout
_OPEN = """
keep=$(mktemp -d)
mount --bind "$2" "$keep"
mount -t tmpfs -o mode=755 none "$1"
mkdir -p "$2"
mount --bind "$keep" "$2"
umount "$keep"
rmdir "$keep"
shift 2
exec "$@"
"""


def as_user(uid: int, gid: int, *command: str) -> list[str]:
    """The command line that runs `command` with these ids alone.

    Where the checkout lies below a closed directory (a home of mode 0700), it does so in a mount
    namespace in which that directory holds the checkout alone and is open.
    """
    ids = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--", *command]
    closed = [path for path in REPOSITORY.parents if not path.stat().st_mode & 0o001]
    if not closed:
        return ids
    own = ["unshare", "--mount", "--propagation", "slave", "sh", "-euc", _OPEN, "reach"]
    return [*own, str(closed[-1]), str(REPOSITORY), *ids]
