"""Who touches what comes from a registry: seen from the kernel, and from inside the functions."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from home import PODCTL
from small import busybox
from watching import Call, check_confined, internet_sockets, trace

from podctl.testing import cosigning
from podctl.testing.cosigning import Signer
from podctl.testing.ociimages import image, index
from podctl.testing.ocilayers import file, layer

if TYPE_CHECKING:
    from pathlib import Path

    from clean_home import Clean

    from podctl.testing.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

NAME = "registry.example/team/watched"
ASKED = f"docker://{NAME}:1"
COMPRESSIONS = ("gzip", "zstd", "none")


@pytest.fixture
def signed(registry: Registry, home: Clean) -> Registry:
    """A signed image of several layers in a registry, whose key is trusted."""
    tops = [
        layer(file(f"words{number}", "words " * 1000), compression=compression)
        for number, compression in enumerate(COMPRESSIONS)
    ]
    signer = Signer()
    made = index(image(busybox(), *tops, config={"Cmd": ["/bin/true"]}))
    digest = registry.put("team/watched", made, "1")
    cosigning.attach_tag(registry, "team/watched", digest, signer.simple(NAME, digest))
    home.options.remove("--insecure-options=image")
    key = home.top / "key.pub"
    key.write_bytes(signer.public)
    home.must("trust", "--prefix", NAME, "--skip-fingerprint-review", str(key))
    return registry


def traced(home: Clean, *arguments: str) -> list[Call]:
    """What each process and thread of one podctl command did."""
    return trace(home.top / "strace.log", [PODCTL, *home.options, *arguments], home.prefix)


@pytest.mark.parametrize("command", [["fetch"], ["run", "--stage1=fly"]])
def test_d4_sockets_are_opened_only_by_processes_that_gave_up_root(
    home: Clean, signed: Registry, command: list[str]
) -> None:
    calls = traced(home, *command, ASKED)
    sockets = internet_sockets(calls)
    # One for the documents, and one for each layer: busybox and the others.
    assert len({call.pid for call in sockets}) >= 2 + len(COMPRESSIONS)
    assert all(call.dropped for call in sockets)
    assert signed.asked("blob")


def test_d4_each_layer_is_unpacked_below_a_root_of_its_own(home: Clean, signed: Registry) -> None:
    calls = traced(home, "fetch", ASKED)
    unpackers = {call.pid for call in calls if call.call == "chroot"}
    assert len(unpackers) == 1 + len(COMPRESSIONS)
    opened = [" ".join(check_confined(calls, unpacker)) for unpacker in unpackers]
    for name in ("busybox", *(f"words{number}" for number in range(len(COMPRESSIONS)))):
        assert sum(f'"{name}"' in one for one in opened) == 1
    assert not unpackers & {call.pid for call in internet_sockets(calls)}


def test_d4_threads_share_the_work_of_those_who_gave_up_root(home: Clean, signed: Registry) -> None:
    """Every thread there is belongs to such a process: it could not have given anything up since,
    and has what its maker had."""
    calls = traced(home, "fetch", ASKED)
    makers = [call for call in calls if "CLONE_THREAD" in call.arguments]
    # Two for each layer: one decompresses, one hashes.
    assert len(makers) >= 2 * (1 + len(COMPRESSIONS))
    assert all(call.dropped for call in makers)


#: Notes who calls what reads bytes from outside, then runs a command line.
_NOTING = """
import sys, os
from podctl.cli.main import run
from podctl.images import compression, ingest
from podctl.plugins.handles import TransportHandle, TrustHandle

def note(what):
    with open("/proc/thread-self/status") as file:
        found = dict(line.split(":", 1) for line in file)
    ids = "-".join(found["Uid"].split())
    powers = int(found["CapEff"], 16)
    fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
    os.write(fd, f"{what} {ids} {powers:x} {found['NoNewPrivs'].strip()}\\n".encode())
    os.close(fd)

def noting(place, name, what):
    right = getattr(place, name)
    def wrapped(*arguments, **named):
        note(what)
        return right(*arguments, **named)
    setattr(place, name, wrapped)

noting(compression, "decompressor", "decompress")
noting(ingest._Unwrap, "_hash", "hash")
noting(TransportHandle, "resolve", "resolve")
noting(TransportHandle, "layer", "layer")
for hook in ("key", "signers", "verifier"):
    noting(TrustHandle, hook, f"signature-{hook}")
note("control")
sys.exit(run(sys.argv[2:]))
"""


def test_d4_foreign_bytes_are_handled_without_power(home: Clean, signed: Registry) -> None:
    """Documents, signatures, layers, compression and hashes, each in whatever thread does it."""
    script = home.top / "noting.py"
    script.write_text(_NOTING)
    notes = home.top / "notes"
    notes.touch()
    notes.chmod(0o666)
    reach(notes)
    command = [*home.prefix, sys.executable, "-I", str(script), str(notes), *home.options]
    done = subprocess.run([*command, "fetch", ASKED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, set[str]] = {}
    for line in notes.read_text().splitlines():
        what, who = line.split(" ", 1)
        found.setdefault(what, set()).add(who)
    nobody = {"65534-65534-65534-65534 0 1"}
    assert found.keys() >= {"resolve", "layer", "decompress", "hash", "signature-verifier"}
    # The control: before anything is given up, the same look sees root.
    control = found.pop("control")
    assert {who.split()[0] for who in control} == {"0-0-0-0"}
    assert {who.split()[1] for who in control} != {"0"}
    for what, who in found.items():
        assert who == nobody, what


def reach(path: Path) -> None:
    """Let everybody through to a file of a test's."""
    for parent in path.parents:
        if parent.stat().st_uid == 0 and parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o001)
