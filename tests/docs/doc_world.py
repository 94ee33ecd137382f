"""A host for one document: its own /etc, its own store, a site on the network, and a shell.

The document's commands are one script, run as root in namespaces of its own. The overlays over
/etc, /var/lib and /var/cache make every path that a document names the real one, and leave nothing
behind; with the process namespace goes whatever a document started.
"""

from __future__ import annotations

import os
import pty
import re
import shlex
import shutil
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from doc_blocks import ROOT, Block, commands, fits
from site_world import PODCTL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from site_world import Site

#: the packager of the prepared world, whose key lies in every document's working directory
PACKAGER = "Example Packager <packager@apps.example>"
IMAGE = "apps.example/redis"
VERSION = "7.0.15"

_SET_UP = """
top=$1 virtual=$2 checkout=$3 shut=$4
mount -t tmpfs -o mode=0755 docs /srv
cd /srv
for place in etc usr/bin var/lib var/cache; do
    mkdir -p "upper/$place" "work/$place"
done
mkdir -p upper/etc/ssl/certs store www home/work
cp /etc/hosts upper/etc/hosts
cp /etc/ssl/certs/ca-certificates.crt upper/etc/ssl/certs/
for place in etc usr/bin var/lib var/cache; do
    mount -t overlay -o "lowerdir=/$place,upperdir=upper/$place,workdir=work/$place" docs "/$place"
done
rm -rf /etc/podctl /var/cache/podctl
printf '#!/bin/sh\\nexec %s/bin/podctl "$@"\\n' "$virtual" >/usr/bin/podctl
chmod 0755 /usr/bin/podctl
mount -t tmpfs -o mode=0755 docs /run
mkdir -p /var/lib/podctl
chmod 0750 store
mount --bind store /var/lib/podctl
mount --bind "$top/public" www
if [ -n "$shut" ]; then
    # Others than root take part: let them reach the installation.
    mkdir checkout
    mount --bind "$checkout" checkout
    mount -t tmpfs -o mode=0755 docs "$shut"
    mkdir -p "$checkout"
    mount --bind checkout "$checkout"
fi
# A document may install into the virtual environment: it keeps that to itself, and is offline.
mkdir -p upper/venv work/venv
mount -t overlay -o "lowerdir=$virtual,upperdir=upper/venv,workdir=work/venv" docs "$virtual"
export PIP_NO_INDEX=1 PIP_NO_BUILD_ISOLATION=0 PIP_DISABLE_PIP_VERSION_CHECK=1
export PIP_ROOT_USER_ACTION=ignore
cp -R "$top/files/." home/work
ln -s "$virtual" home/work/.venv
export HOME=/srv/home GNUPGHOME=/srv/home/.gnupg PATH="$virtual/bin:$PATH" LC_ALL=C.UTF-8 TZ=UTC
unset XDG_CACHE_HOME
cd home/work
umask 022
exec 9>"$top/at"
exec sh -eu "$top/script"
"""


class Failed(Exception):
    """A document says what is not so."""


class World:
    """One document's host; `run` may be called once.

    Args:
        files: what lies in the working directory at first.
    """

    def __init__(self, site: Site, top: Path, files: Path) -> None:
        self._site = site
        self._top = top
        (top / "out").mkdir()
        (top / "public").symlink_to(site.public)
        (top / "files").symlink_to(files)

    def run(self, blocks: Sequence[Block]) -> None:
        """Carry out what a document says, block by block.

        Raises:
            Failed: a command ended or printed otherwise than the document has it.
        """
        terminal = Terminal()
        try:
            script = "\n".join(self._script(block, terminal.path) for block in blocks)
            (self._top / "script").write_text(f"{_FUNCTIONS}\n{script}\nsettle\n")
            self._execute(terminal)
        finally:
            terminal.close()
        for block in blocks:
            self._compare(block, terminal.shown)

    def _execute(self, terminal: Terminal) -> None:
        inside = self._site.inside("unshare", "--mount", "--propagation", "slave", "--pid",
                                   "--fork", "--kill-child", "--mount-proc")  # fmt: skip
        arguments = [str(self._top), str(Path(PODCTL).parent.parent), str(ROOT), _shut()]
        log = self._top / "log"
        with log.open("wb") as output:
            done = subprocess.run(
                [*inside, "sh", "-euc", _SET_UP, "docs", *arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False,
            )  # fmt: skip
        if done.returncode:
            raise Failed(self._tell(done.returncode, log, terminal))

    def _tell(self, code: int, log: Path, terminal: Terminal) -> str:
        at = self._top / "at"
        steps = at.read_text().split() if at.exists() else []
        if not steps:
            return f"the world could not be made ({code}):\n{log.read_text()}"
        place = steps[-1]
        printed = "\n".join(self._printed(place))
        return (
            f"line {place}: exit code {code}\n{printed}\n{terminal.shown}\n"
            f"{log.read_text(errors='replace')}"
        )

    def _script(self, block: Block, terminal: str) -> str:
        if block.verb == "file":
            assert block.note is not None
            name = shlex.quote(block.note.value)
            text = shlex.quote("\n".join(block.lines) + "\n")
            return f'mkdir -p "$(dirname {name})"\nprintf %s {text} >{name}'
        if block.verb == "skip":
            return ""
        parts = []
        told = commands(block)
        for command in told:
            parts += [f"echo {command.line} >&9", self._one(block, command.text, command.line)]
            if block.verb == "answers":
                parts[-1] = f"{parts[-1].rpartition('2>')[0]} <{terminal} 2>{terminal} 9>&-"
            if block.verb == "fails with" and command is told[-1]:
                assert block.note is not None
                parts[-1] = f"set +e\n({parts[-1]})\nended=$?\nset -e\n"
                parts[-1] += f'expect_code "$ended" {int(block.note.value)}'
        return "\n".join(parts)

    def _one(self, block: Block, text: str, line: int) -> str:
        out = shlex.quote(str(self._top / "out" / str(line)))
        if block.verb == "background until":
            assert block.note is not None
            waiting = f"wait_for {shlex.quote(block.note.value)} $!"
            return f"{{\n{text}\n}} >{out}.out 2>{out}.err {_PLAIN} &\n{waiting}"
        return f"{{\n{text}\n}} >{out}.out 2>{out}.err {_PLAIN}"

    def _compare(self, block: Block, terminal: str) -> None:
        if block.language != "console" or block.verb in UNCHECKED:
            return
        for command in commands(block):
            if command.output is None:
                continue
            if block.verb == "answers":
                if not fits(terminal, ("...", *command.output, "...")):
                    raise Failed(f"line {command.line} differs from the terminal:\n{terminal}")
                continue
            results, messages = self._printed(str(command.line))
            # On a terminal both arrive in turn; here they are apart.
            if not any(fits(f"{a}{b}", command.output) for a, b in
                       ((results, messages), (messages, results))):  # fmt: skip
                shown = "\n".join(command.output)
                told = f"line {command.line} shows\n{shown}\n\nbut it prints"
                raise Failed(f"{told}\n{results}\nand on standard error\n{messages}")

    def _printed(self, line: str) -> tuple[str, str]:
        """What the command of a line wrote to standard output and to standard error."""
        files = [self._top / "out" / f"{line}.{end}" for end in ("out", "err")]
        first, second = (f.read_text(errors="replace") if f.exists() else "" for f in files)
        return first, second


#: blocks whose output is not compared: skipped, or still running
UNCHECKED = ("skip", "background until")
#: how a command is connected unless a note says otherwise
_PLAIN = "</dev/null 9>&-"

_FUNCTIONS = """
wait_for() {
    until [ -s "$1" ]; do
        kill -0 "$2" || { echo "ended before $1 was there"; exit 1; }
        sleep 0.05
    done
    podctl status --wait-ready=60s --uuid-file="$1" >/dev/null
}
expect_code() {
    [ "$1" = "$2" ] || { echo "exit code $1, expected $2"; exit 1; }
}
settle() {
    running=$(podctl list --full --no-legend | grep -w running || true)
    [ -z "$running" ] || { echo "still running at the end: $running"; exit 1; }
}
"""


def _shut() -> str:
    """The directory on the way to this checkout that others than root cannot pass; or nothing."""
    for place in (*reversed(ROOT.parents), ROOT):
        if not place.stat().st_mode & 0o001:
            return str(place)
    return ""


class Terminal:
    """A terminal with somebody at it who answers yes to whatever is asked."""

    def __init__(self) -> None:
        self._master, self._slave = pty.openpty()
        self.path = os.ttyname(self._slave)
        self.shown = ""
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def _answer(self) -> None:
        answered = 0
        while True:
            try:
                data = os.read(self._master, 4096)
            except OSError:
                return
            self.shown += data.decode(errors="replace")
            asked = len(re.findall(r"\(yes/no\)\?", self.shown))
            if asked > answered:
                answered = asked
                os.write(self._master, b"yes\n")

    def close(self) -> None:
        """Hang up."""
        os.close(self._slave)
        self._thread.join(timeout=10)
        os.close(self._master)


def publish_redis(site: Site, files: Path) -> None:
    """Publish Debian's redis, signed; put the packager's public key into `files`."""
    image = site.top / "redis"
    program = os.path.realpath("/usr/bin/redis-server")
    (image / "rootfs/usr/bin").mkdir(parents=True)
    for name in ("etc", "data", "tmp"):
        (image / "rootfs" / name).mkdir()
    shutil.copy(program, image / "rootfs/usr/bin/redis-server")
    needed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    for library in re.findall(r"/\S+", needed):
        target = image / "rootfs" / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
    app = {
        "exec": ["/usr/bin/redis-server", "--bind", "127.0.0.1", "--save", ""],
        "workingDirectory": "/data",
        "mountPoints": [{"name": "data", "path": "/data"}],
        "ports": [{"name": "redis", "protocol": "tcp", "port": 6379}],
    }
    path = site.publish(IMAGE, version=VERSION, app=app, image=image)
    fingerprint = site.keyring.make(PACKAGER)
    site.keyring.sign(fingerprint, path)
    site.keyring.export(fingerprint, files / "pubkeys.gpg")
    site.keyring.export(fingerprint, site.public / "pubkeys.gpg")
