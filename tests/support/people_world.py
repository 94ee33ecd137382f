"""A host with several people on it: groups and users of its own in a private mount namespace."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from home import PODCTL, Home

if TYPE_CHECKING:
    from home import Done


class Surroundings(Protocol):
    """Namespaces with names and authorities: a site's, or a registry's.

    Attributes:
        top: where `hosts` and `authorities` lie, which stand for the host's.
    """

    top: Path

    def inside(self, *command: str) -> list[str]:
        """The command line that runs `command` in them."""


#: who there is, and which groups they are in beside their own
PEOPLE = {"root": "", "member": "podctl", "admin": "podctl-admin", "other": ""}
_REPOSITORY = Path(__file__).parents[2]
#: $1: the world's directory, $2: the site's, $3: the repository, $4: the first directory on the
#: way to it that only root may enter, or nothing
_SET_UP = """
umask 022
mkdir "$1/upper" "$1/keep"
mount -t tmpfs -o mode=755 none "$1/upper"
mkdir "$1/upper/changes" "$1/upper/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$1/upper/changes,workdir=$1/upper/work" none /etc
mount --bind "$2/hosts" /etc/hosts
mount --bind "$2/authorities" /etc/ssl/certs/ca-certificates.crt
if [ -n "$4" ]; then
    mount --bind "$3" "$1/keep"
    mount -t tmpfs -o mode=755 none "$4"
    mkdir -p "$3"
    mount --bind "$1/keep" "$3"
fi
echo ready
exec sleep infinity
"""


class People(Home):
    """An installation several people share. /etc is an overlay: the host's own is not changed."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._place = Path(tempfile.mkdtemp(prefix="podctl-people-"))
        self._place.chmod(0o755)
        closed = [path for path in _REPOSITORY.parents if not path.stat().st_mode & 0o001]
        words = ["unshare", "--mount", "--propagation", "slave", "sh", "-euc", _SET_UP, "people"]
        self._holder = subprocess.Popen(
            surroundings.inside(*words, str(self._place), str(surroundings.top), str(_REPOSITORY),
                        str(closed[-1]) if closed else ""),
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        enter = ["nsenter", "--target", str(self._holder.pid), "--net", "--mount", "--root"]
        super().__init__(self._place, enter)
        self.options.remove("--insecure-options=image")

    def make_people(self) -> None:
        """Create groups and directories by podctl, and users."""
        self.must("setup-data-dir")
        for name, group in PEOPLE.items():
            if name != "root":
                groups = [f"--groups={group}"] if group else []
                words = ["useradd", "--no-create-home", "--user-group", *groups, name]
                subprocess.run([*self.prefix, *words], check=True)

    def as_user(self, name: str, *command: str) -> list[str]:
        """The command line that runs something as one of them."""
        if name == "root":
            return [*self.prefix, *command]
        who = ["setpriv", f"--reuid={name}", f"--regid={name}", "--init-groups", "--"]
        return [*self.prefix, *who, *command]

    def by(self, name: str, *arguments: str, timeout: float = 60) -> Done:
        """One of them runs podctl."""
        command = self.as_user(name, PODCTL, *self.options, *arguments)
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
            timeout=timeout,
            env={**os.environ, "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"},
        )

    def close(self) -> None:
        """End the namespaces and remove the directory."""
        self._holder.terminate()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()
        shutil.rmtree(self._place)
