"""Who may call what: people on a host, what commands are called on, and the documented table."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from box_world import wait_until
from home import PODCTL, fingerprint
from people_world import People

if TYPE_CHECKING:
    from collections.abc import Mapping

    from home import Done
    from site_world import Site

PAGE = Path(__file__).parents[2] / "docs/reference/privileges.md"
NAME = "apps.example/shared"
#: column of the page -> who stands for it
COLUMNS = {"root": "root", "`podctl`": "member", "`podctl-admin`": "admin", "others": "other"}
_SLEEP = ("--exec=/bin/sleep", "--", "1000")


def documented() -> dict[str, dict[str, str]]:
    """The page's table: command -> person -> "yes", or what is said when it is not."""
    said = dict(re.findall(r"^- \*\*([a-z ]+)\*\*.*?`([^`]+)`", PAGE.read_text(), re.MULTILINE))
    rows = re.findall(r"^\| `([a-z -]+)` \|(.*)\|", PAGE.read_text(), re.MULTILINE)
    found = {}
    for command, cells in rows:
        words = [cell.strip() for cell in cells.split("|")]
        assert len(words) >= len(COLUMNS), command
        found[command] = {
            person: word if word == "yes" else said[word]
            for person, word in zip(COLUMNS.values(), words, strict=False)
        }
    return found


class Scene:
    """The host. Each pod that a command uses up is made anew."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.people = People(site)
        self._pods: dict[str, str] = {}
        self._running: list[subprocess.Popen[str]] = []
        self._place = self.people.top

    def set_up(self) -> None:
        """Make people, a signed image and its key."""
        people, site = self.people, self._site
        people.make_people()
        image = site.publish(NAME, app={"exec": ["/bin/echo", "genuine"]})
        signer = site.keyring.make("shared <shared@example.com>")
        site.keyring.sign(signer, image)
        site.keyring.export(signer, people.top / "key.asc")
        people.must("trust", "--prefix", NAME, "--skip-fingerprint-review", f"{people.top}/key.asc")
        people.must("fetch", NAME)

    def words(self, line: str, person: str, fresh: bool) -> list[str]:
        """A command line on things that are there.

        Args:
            fresh: make what the command uses up anew.
        """
        mine = self.people.top / f"of-{person}"
        mine.mkdir(exist_ok=True, mode=0o777)
        mine.chmod(0o777)
        if not self.people.images():
            self.people.must("fetch", NAME)
        values: Mapping[str, str] = {
            "top": str(self.people.top),
            "mine": str(mine),
            "image": NAME,
            **{kind: self._pod(kind, fresh) for kind in _KINDS if f"{{{kind}}}" in line},
        }
        return line.format_map(values).split()

    def _pod(self, kind: str, fresh: bool) -> str:
        if kind not in self._pods or (fresh and kind in _USED_UP):
            if kind == "sandbox":
                self._pods[kind] = self._sandbox()
            else:
                self._pods[kind] = self.people.must(*_KINDS[kind]).split()[-1]
            if kind in ("exited", "finished"):
                self.people.must("status", "--wait=20s", self._pods[kind])
        return self._pods[kind]

    def _sandbox(self) -> str:
        """A pod of an app that runs."""
        file = self._place / f"uuid-{len(self._running)}"
        line = ("app", "sandbox", f"--uuid-file-save={file}")
        self._running.append(self.people.start(*line, stdout=subprocess.DEVNULL))
        wait_until(file.exists, "the pod")
        uuid = file.read_text().strip()
        self.people.must("app", "add", uuid, NAME, "--name=box", *_SLEEP)
        self.people.must("app", "start", uuid, "--app=box")
        return uuid

    def by(self, person: str, words: list[str]) -> Done:
        """Somebody runs a command; a pod that would not end by itself is stopped."""
        saved = [word.partition("=")[2] for word in words if word.startswith("--uuid-file-save=")]
        command = self.people.as_user(person, PODCTL, *self.people.options, *words)
        process = subprocess.Popen(
            command, stdin=-3, stdout=-1, stderr=-1, text=True,
            env={**os.environ, "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        for file in saved:
            wait_until(lambda: Path(file).exists() or process.poll() is not None, "the pod")  # noqa: B023
            if Path(file).exists():
                self.people.must("status", "--wait-ready=20s", f"--uuid-file={file}")
                self.people.must("stop", f"--uuid-file={file}")
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def protected(self) -> str:
        """What nobody but root, or nobody but an admin, can have changed."""
        data = self.people.data
        places = [data / name for name in ("pods", "layers", "verified", "trees", "locks")]
        return fingerprint(*places, self.people.local)

    def close(self) -> None:
        """End every pod, and the host."""
        try:
            for uuid, state in self.people.pods().items():
                if state == "running":
                    self.people.podctl("stop", "--force", "--timeout=10s", uuid)
            for process in self._running:
                process.wait(30)
            self.people.podctl("gc", "--grace-period=0s", "--expire-prepared=0s")
        finally:
            self.people.close()


#: kind of pod -> what makes one and prints its UUID
_KINDS: dict[str, tuple[str, ...]] = {
    "running": ("run", "-d", "--net=host", NAME, *_SLEEP),
    "doomed": ("run", "-d", "--net=host", NAME, *_SLEEP),
    "exited": ("run", "-d", "--net=host", NAME),
    "talking": ("run", "-d", "--net=host", NAME, "--stdout=stream", *_SLEEP),
    "finished": ("run", "-d", "--net=host", NAME),
    "prepared": ("prepare", "--quiet", NAME),
    "sandbox": (),
}
_USED_UP = {"doomed", "exited", "prepared", "sandbox"}

#: command -> what it is called with
ARGUMENTS = {
    "fetch": "{image}",
    "trust": "--prefix=apps.example/x --skip-fingerprint-review {top}/key.asc",
    "run": "--net=host {image}",
    "prepare": "{image}",
    "run-prepared": "{prepared}",
    "list": "",
    "ps": "",
    "inspect": "{running}",
    "status": "{running}",
    "logs": "{running}",
    "attach": "--mode=list {talking}",
    "wait": "{finished}",
    "stop": "{doomed}",
    "kill": "{doomed}",
    "rm": "{exited}",
    "gc": "",
    "top": "{running}",
    "stats": "--no-stream {running}",
    "enter": "{running} /bin/true",
    "exec": "{running} /bin/true",
    "cp": "{running}:/bin/busybox {mine}/copy",
    "cat-manifest": "{finished}",
    "export": "{finished} {mine}/exited.aci",
    "generate-unit": "--run {image}",
    "config": "",
    "plugins": "",
    "doctor": "",
    "fsck": "",
    "setup-data-dir": "",
    "completion": "bash",
    "version": "",
    "help": "run",
    "image list": "",
    "image rm": "{image}",
    "image gc": "",
    "image verify": "{image}",
    "image export": "{image} {mine}/exported.aci",
    "image extract": "{image} {mine}/extracted",
    "image render": "{image} {mine}/rendered",
    "image cat-manifest": "{image}",
    "app sandbox": "--uuid-file-save={mine}/uuid",
    "app add": "{sandbox} {image} --name=another",
    "app start": "{sandbox} --app=box",
    "app stop": "{sandbox} --app=box",
    "app rm": "{sandbox} --app=box",
    "app list": "{sandbox}",
    "app status": "{sandbox} --app=box",
    "app exec": "--app=box {sandbox} /bin/true",
}
