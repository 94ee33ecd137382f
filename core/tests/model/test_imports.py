"""The model is on the path of every command: it may not bring anything heavy with it."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {
    "asyncio", "dataclasses", "datetime", "email", "http", "inspect", "importlib.metadata",
    "ipaddress", "logging", "pluggy", "shutil", "socket", "sqlite3", "stevedore", "subprocess",
    "tempfile", "urllib.parse", "uuid",
}  # fmt: skip

PROGRAM = """
import sys
import podctl.cli.imageargs, podctl.model.image, podctl.model.podmanifest
import podctl.model.reference, podctl.model.settings, podctl.model.uuids
reference = podctl.model.reference.parse("example.com/app:1.0,os=linux", is_file=lambda _: False)
reference.canonical(), reference.search_labels()
podctl.model.podmanifest.parse_pod_manifest(podctl.model.podmanifest.PodManifest().to_json())
podctl.cli.imageargs.parse_images(["a", "--memory=1Mi", "--volume=v,kind=empty"], {})
print(*sys.modules)
"""


def test_looking_up_a_name_and_a_pod_imports_nothing_heavy() -> None:
    command = [sys.executable, "-I", "-c", PROGRAM]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert "podctl.model.podmanifest" in loaded
    assert HEAVY.intersection(loaded) == set()
