"""Under root nothing of the caller chooses what is imported: plugins, modules, caches.

Every plant is first shown to work where podctl's defence is not in its way.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

MALLORY = 12345

PLUGIN = {
    "evil-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n",
    "evil-1.0.dist-info/entry_points.txt": "[podctl.stage1]\nevil = evil_flavor:flavor\n",
    "evil_flavor.py": "MARK\nflavor = None\n",
}
SHADOW = {"click.py": "MARK\nraise SystemExit(9)\n", "json.py": "MARK\n", "pluggy.py": "MARK\n"}
PLACES = ("user-site", "user-base", "pythonpath", "cwd")

SEEN = (
    "import sys; from podctl.plugins import installed;"
    "print(any(provider.name == 'evil' for provider in installed.scan()))"
)


def run(command: list[str], **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, **settings
    )


def names(done: subprocess.CompletedProcess[str]) -> set[str]:
    assert done.returncode == 0, done.stderr
    return {plugin["name"] for plugin in json.loads(done.stdout)}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, surroundings: Any) -> tuple[Path, dict[str, Any]]:
    """A directory the caller chooses, and how a process is led to it."""
    elsewhere = surroundings.home / "elsewhere"
    elsewhere.mkdir()
    base = {"env": surroundings.environment(), "cwd": "/"}
    if request.param == "user-site":
        return surroundings.user_site(), base
    if request.param == "user-base":
        environment = surroundings.environment(PYTHONUSERBASE=str(elsewhere))
        return surroundings.user_site(elsewhere), {**base, "env": environment}
    if request.param == "pythonpath":
        return elsewhere, {**base, "env": surroundings.environment(PYTHONPATH=str(elsewhere))}
    return elsewhere, {**base, "cwd": str(elsewhere)}


@pytest.mark.parametrize("way", ["launcher", "module"])
def test_a_planted_plugin_is_not_seen(
    installation: Any, surroundings: Any, place: tuple[Path, dict[str, Any]], way: str
) -> None:
    directory, settings = place
    surroundings.plant(directory, PLUGIN)
    control = run(installation.python("-c", SEEN), **settings)
    assert control.stdout == "True\n", control.stderr
    assert not surroundings.sprung()
    listed = run([*getattr(installation, way), "plugins", "--format=json"], **settings)
    assert "evil" not in names(listed)
    assert "fly" in names(listed)
    assert not surroundings.sprung()


@pytest.mark.parametrize("way", ["launcher", "module"])
def test_a_planted_module_is_not_imported(
    installation: Any, surroundings: Any, place: tuple[Path, dict[str, Any]], way: str
) -> None:
    directory, settings = place
    surroundings.plant(directory, SHADOW)
    if "site-packages" not in str(directory):
        # User site-packages come last on the path and shadow nothing.
        run(installation.python("-c", "import click"), **settings)
        assert surroundings.sprung()
    for command in (["version"], ["plugins"], ["config"]):
        done = run([*getattr(installation, way), *command], **settings)
        assert done.returncode == 0, done.stderr
        assert not surroundings.sprung()


@pytest.mark.parametrize(
    ("where", "files"),
    [
        ("user-site", {"evil.pth": "import sys; MARK\n"}),
        ("user-site", {"usercustomize.py": "MARK\n"}),
        ("pythonpath", {"sitecustomize.py": "MARK\n"}),
    ],
)
def test_code_that_runs_at_every_start_is_not_run(
    installation: Any, surroundings: Any, where: str, files: dict[str, str]
) -> None:
    if where == "user-site":
        surroundings.plant(surroundings.user_site(), files)
        environment = surroundings.environment()
    else:
        directory = surroundings.plant(surroundings.home / "path", files)
        environment = surroundings.environment(PYTHONPATH=str(directory))
    run(installation.python("-c", "pass"), env=environment)
    assert surroundings.sprung()
    done = run([*installation.launcher, "version"], env=environment)
    assert done.returncode == 0, done.stderr
    assert not surroundings.sprung()


def test_the_launcher_finds_its_interpreter_beside_itself(
    installation: Any, surroundings: Any
) -> None:
    fake = surroundings.plant(surroundings.home / "bin", {"python3": "#!/bin/sh\necho planted\n"})
    (fake / "python3").chmod(0o755)
    path = f"{fake}:{installation.top}/bin:/usr/bin:/bin"
    environment = surroundings.environment() | {"PATH": path}
    assert run(["python3"], env=environment).stdout == "planted\n"
    done = run(["sh", "-c", "podctl version"], env=environment, cwd=str(fake))
    assert done.stdout.startswith("podctl Version:")


FILL_CACHE = """
import json, os, sys
from stevedore import _cache
path = tuple(sys.path)
digest, values = _cache._hash_settings_for_path(path)
data = _cache._build_cacheable_data()
data["path_values"] = values
data["groups"]["podctl.stage1"] = [["fly", "evil_flavor:flavor", "podctl.stage1"]]
directory = os.path.join(os.environ["XDG_CACHE_HOME"], "python-entrypoints")
os.makedirs(directory)
with open(os.path.join(directory, digest), "w") as file:
    json.dump(data, file)
"""
BELIEVE_CACHE = """
from stevedore.driver import DriverManager
print(DriverManager("podctl.stage1", "fly").extensions[0].entry_point_target)
"""
LOAD_WITHOUT_INDEX = """
from podctl import plugins
from podctl.plugins import index
index.directory = lambda: None
print(plugins.flavor("fly").describe().name)
print(plugins.snapshot().indexed)
"""


def test_a_planted_stevedore_cache_is_not_believed(installation: Any, surroundings: Any) -> None:
    # The module the cache leads to is importable, as any module of the interpreter is.
    site = next(installation.top.glob("lib/python3*/site-packages"))
    surroundings.plant(site, {"evil_flavor.py": "MARK\ndef flavor(): pass\n"})
    cache = surroundings.home / ".cache"
    environment = surroundings.environment(XDG_CACHE_HOME=str(cache))
    try:
        filled = run(installation.python("-I", "-c", FILL_CACHE), env=environment)
        assert filled.returncode == 0, filled.stderr
        control = run(installation.python("-I", "-c", BELIEVE_CACHE), env=environment)
        assert control.stdout == "evil_flavor:flavor\n", control.stderr
        assert surroundings.sprung()
        before = sorted(cache.rglob("*"))
        done = run(installation.python("-I", "-c", LOAD_WITHOUT_INDEX), env=environment)
        assert done.stdout == "fly\nFalse\n", done.stderr
        assert not surroundings.sprung()
        listed = run([*installation.launcher, "plugins"], env=environment)
        assert "evil" not in listed.stdout
        assert not surroundings.sprung()
        # Nor does root leave files in the caller's cache.
        assert sorted(cache.rglob("*")) == before
    finally:
        (site / "evil_flavor.py").unlink()


PLANT_INDEX = """
import sys
from podctl.plugins import index, installed
from podctl.plugins.provider import Provider
evil = Provider("podctl.stage1", "evil", "evil_flavor", "flavor", "evil", "1")
index.write(sys.argv[1], installed.fingerprint(), [*installed.scan(), evil])
"""


def as_mallory(command: list[str]) -> list[str]:
    from podctl.testing.reach import as_user

    return as_user(MALLORY, MALLORY, *command)


def test_an_index_in_the_callers_cache_is_the_callers_only(
    installation: Any, surroundings: Any
) -> None:
    cache = surroundings.home / ".cache"
    environment = surroundings.environment(XDG_CACHE_HOME=str(cache))
    plant = installation.python("-I", "-c", PLANT_INDEX, f"{cache}/podctl")
    assert run(as_mallory(plant), env=environment).returncode == 0
    listing = [*installation.launcher, "plugins", "--format=json"]
    assert "evil" in names(run(as_mallory(listing), env=environment))
    assert "evil" not in names(run(listing, env=environment))


@pytest.mark.parametrize("owner", [0, MALLORY])
def test_an_index_of_another_owner_is_ignored_where_roots_own_is_believed(
    installation: Any, surroundings: Any, owner: int
) -> None:
    script = (
        "set -e; mount -t tmpfs none /var/cache; "
        '"$0" -I -c "$1" /var/cache/podctl; chown -R "$2" /var/cache/podctl; '
        'exec "$3" plugins --format=json'
    )
    python, launcher = installation.python()[0], installation.launcher[0]
    command = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", script]
    done = run(
        [*command, python, PLANT_INDEX, str(owner), launcher], env=surroundings.environment()
    )
    assert ("evil" in names(done)) is (owner == 0)
