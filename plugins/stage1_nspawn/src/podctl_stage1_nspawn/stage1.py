"""The stage1 tree: where systemd-nspawn starts the pod's first process.

It is made of the host: its /usr, read-only, and podctl's own few files. There is nothing to
download and nothing to keep up to date; a directory of the pod holds the mount points.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

from podctl.model.plan import Bind, Directory, Symlink, WriteFile
from podctl.sys.files import remove_tree

if TYPE_CHECKING:
    from podctl.model.manifest import App
    from podctl.model.plan import PreparedApp, PreparedPod, Step

#: below the pod's directory
ROOT, STATUS, RUN = "stage1", "status", "supervisor"
#: that last one, as the pod's first process sees it
RUN_INSIDE = "/podctl/run"
#: as of supervisor.sh; no app can be called so
REQUESTS, READY = f"{RUN}/_requests", f"{RUN}/_ready"
#: directories of the root that are links into /usr (or directories, on a host where they are)
_MERGED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
_LIBRARY = "/podctl/lib/podctl"
LAUNCHER = f"{_LIBRARY}/sys/applauncher.py"


def make(pod: PreparedPod) -> None:
    """Make the directories of the pod that the plan's steps mount and that the supervisor
    writes to."""
    if not os.path.isdir(pod.directory):
        return  # a pod that is only imagined
    for name in (ROOT, STATUS, RUN, REQUESTS):
        os.makedirs(f"{pod.directory}/{name}", 0o700, exist_ok=True)
    for app in pod.apps:
        directory = f"{pod.directory}/{RUN}/{app.name}"
        os.makedirs(directory, 0o700, exist_ok=True)
        if app.stop_timeout is not None:
            _write(f"{directory}/timeout", f"{app.stop_timeout}\n")
        # Last: with it the directory is an app's.
        _write(f"{directory}/signal", f"{app.stop_signal}\n")
        for handler in cast("App", app.app).event_handlers:
            _write(f"{directory}/{handler}", "")


def forget(pod: PreparedPod, app: str) -> None:
    """Remove what is an app's in these directories; not its status."""
    root = f"{pod.directory}/{ROOT}"
    for path in (
        f"{root}/podctl/apps/{app}",
        f"{root}/podctl/groups/{app}",
        f"{root}/opt/stage2/{app}",
        f"{pod.directory}/{RUN}/{app}",
    ):
        remove_tree(path)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def app_root(pod: PreparedPod, app: PreparedApp) -> str:
    """Host path an app's root is mounted on; rkt's place for it."""
    return f"{pod.directory}/{ROOT}/opt/stage2/{app.name}/rootfs"


def stage1_steps(pod: PreparedPod, hostname: str) -> tuple[Step, ...]:
    """What makes the tree of an empty directory."""
    made: list[Step] = [Directory(name) for name in ("dev", "proc", "sys", "run", "etc", "var")]
    made += [Directory("tmp", 0o1777), Directory("podctl", 0o700), Directory("podctl/apps", 0o700)]
    made += [Directory(f"opt/stage2/{app.name}/rootfs") for app in pod.apps]
    # nspawn wants a tree that looks like a system's.
    made.append(WriteFile("/etc/os-release", "ID=podctl\nNAME=podctl\n"))
    made.append(WriteFile("/etc/machine-id", pod.uuid.replace("-", "") + "\n"))
    made.append(WriteFile("/etc/hostname", hostname + "\n"))
    made.append(Bind("/usr", "/usr", read_only=True, owners="host"))
    made += _merged()
    for source, target in (*((path, path) for path in _interpreter()), (_package(), _LIBRARY)):
        made.append(Bind(source, target, read_only=True, owners="either"))
    made.append(WriteFile("/podctl/supervisor", _supervisor()))
    launch = f'#!/bin/sh\nexec {" ".join(launcher())} "$@"\n'
    made.append(WriteFile("/podctl/launch", launch, mode=0o755))
    made.append(Bind(f"{pod.directory}/{RUN}", RUN_INSIDE, propagation="private"))
    made.append(Bind(f"{pod.directory}/{STATUS}", "/podctl/status", propagation="private"))
    return tuple(made)


def launcher() -> tuple[str, ...]:
    """The command that starts an app, as seen in the tree. The interpreter is the host's own, not
    that of a virtual environment, whose paths are not there."""
    return os.path.realpath(sys.executable), "-ISE", LAUNCHER


def _merged() -> list[Step]:
    found: list[Step] = []
    for name in _MERGED:
        try:
            found.append(Symlink(f"/{name}", os.readlink(f"/{name}")))
        except FileNotFoundError:
            continue
        except OSError:
            found.append(Bind(f"/{name}", f"/{name}", read_only=True, owners="host"))
    return found


def _interpreter() -> list[str]:
    """Where Python lives, unless that is below /usr."""
    prefix = os.path.realpath(sys.base_prefix)
    return [] if prefix == "/usr" or prefix.startswith("/usr/") else [prefix]


def _package() -> str:
    spec = find_spec("podctl")
    assert spec is not None and spec.submodule_search_locations
    return next(iter(spec.submodule_search_locations))


def _supervisor() -> str:
    with open(os.path.join(os.path.dirname(__file__), "supervisor.sh"), encoding="ascii") as file:
        return file.read()
