"""Who touches bytes from outside: seen from the kernel (strace), and from inside the functions."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from site_world import Site

pytestmark = pytest.mark.root

NAME = "apps.example/watched"
CALL = re.compile(r"^(?P<pid>\d+) +(?P<call>\w+)\((?P<arguments>.*)$")
WATCHED = "socket,connect,chroot,setresuid,capset,openat,openat2,execve,clone,clone3,fork,vfork"


@pytest.fixture(scope="module")
def watcher(published: Site) -> str:
    return published.keyring.make("watcher <watcher@example.com>")


@pytest.fixture
def signed(site: Site, watcher: str) -> Path:
    """A signed image whose key is trusted."""
    image = site.publish(NAME)
    site.keyring.sign(watcher, image)
    key = site.keyring.export(watcher, site.top / "key.asc")
    site.must("trust", "--prefix", NAME, "--skip-fingerprint-review", str(key))
    return image


class Trace:
    """What each process of one command did, in order."""

    def __init__(self, site: Site, *arguments: str) -> None:
        log = site.top / "strace.log"
        command = ["strace", "-f", "-qq", "-s", "256", "-e", f"trace={WATCHED}", "-o", str(log)]
        from site_world import PODCTL

        done = subprocess.run(
            site.inside(*command, PODCTL, *site.options, *arguments),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        self.calls: list[tuple[str, str, str]] = []
        for line in log.read_text().splitlines():
            found = CALL.match(line)
            if found:
                self.calls.append((found["pid"], found["call"], found["arguments"]))

    def powers(self) -> Iterator[tuple[str, str, str, bool]]:
        """Each call with whether its process had given up its uid by then."""
        dropped = set()
        for pid, call, arguments in self.calls:
            if call == "setresuid" and arguments.startswith("65534, 65534, 65534"):
                dropped.add(pid)
            yield pid, call, arguments, pid in dropped


def internet_sockets(trace: Trace) -> list[tuple[str, bool]]:
    return [
        (pid, dropped)
        for pid, call, arguments, dropped in trace.powers()
        if call == "socket" and arguments.startswith(("AF_INET", "AF_INET6"))
    ]


def test_d4_sockets_are_opened_only_by_processes_that_gave_up_root(
    site: Site, signed: Path
) -> None:
    trace = Trace(site, "run", "--stage1=fly", NAME)
    sockets = internet_sockets(trace)
    assert sockets
    assert all(dropped for _, dropped in sockets)


def test_control_a_privileged_socket_would_be_seen(site: Site, tmp_path: Path) -> None:
    """Control: the same reading of a trace finds a process that keeps root."""
    log = tmp_path / "log"
    program = "import socket; socket.socket(); "
    command = ["strace", "-f", "-qq", "-e", f"trace={WATCHED}", "-o", str(log)]
    subprocess.run([*command, "python3", "-c", program], check=True)
    trace = Trace.__new__(Trace)
    trace.calls = [
        (found["pid"], found["call"], found["arguments"])
        for found in map(CALL.match, log.read_text().splitlines())
        if found
    ]
    assert [dropped for _, dropped in internet_sockets(trace)] == [False]


def test_d4_extraction_opens_nothing_but_single_names_below_its_root(
    site: Site, signed: Path
) -> None:
    trace = Trace(site, "fetch", NAME)
    roots = {pid for pid, call, _ in trace.calls if call == "chroot"}
    assert len(roots) == 1
    (unpacker,) = roots
    confined = False
    opened = []
    for pid, call, arguments in trace.calls:
        if pid != unpacker:
            continue
        confined = confined or call == "chroot"
        if confined and call in ("openat", "openat2"):
            opened.append((call, arguments))
    assert any("busybox" in arguments for _, arguments in opened)
    for call, arguments in opened:
        base, path = arguments.split(", ", 2)[:2]
        if base == "AT_FDCWD":
            # Its own root directory, the one descriptor everything else starts from.
            assert path == '"/"', (call, arguments)
        elif call == "openat2":
            assert "RESOLVE_" in arguments, arguments
        else:
            assert "/" not in path, arguments
            assert "O_NOFOLLOW" in arguments or "O_PATH" in arguments, arguments


@pytest.fixture
def notes() -> Iterator[Path]:
    """A file that any process may append to, whoever it has become."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    path = directory / "notes"
    path.touch()
    path.chmod(0o666)
    yield path
    shutil.rmtree(directory)


def note(path: Path, what: str) -> None:
    effective = next(
        line.split()[1]
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("CapEff")
    )
    with path.open("a") as file:
        file.write(f"{what} {os.geteuid()} {int(effective, 16)}\n")


def noting(path: Path, what: str, function: Callable[..., object]) -> Callable[..., object]:
    def wrapped(*arguments: object, **named: object) -> object:
        note(path, what)
        return function(*arguments, **named)

    return wrapped


def test_d4_signatures_and_compression_are_handled_without_root(
    site: Site, signed: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from podctl.cli.main import run
    from podctl.images import compression
    from podctl.plugins.handles import TrustHandle

    monkeypatch.setattr(
        compression, "decompressor", noting(notes, "decompress", compression.decompressor)
    )
    for hook in ("key", "signers", "verifier"):
        wrapped = noting(notes, f"signature-{hook}", getattr(TrustHandle, hook))
        monkeypatch.setattr(TrustHandle, hook, wrapped)
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            null = os.open("/dev/null", os.O_RDWR)
            os.dup2(null, 1)
            os.dup2(null, 2)
            code = run([*site.options, "fetch", str(signed)])
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    lines = [line.split() for line in notes.read_text().splitlines()]
    assert {what for what, _, _ in lines} == {
        "decompress",
        "signature-key",
        "signature-signers",
        "signature-verifier",
    }
    assert {(uid, caps) for _, uid, caps in lines} == {("65534", "0")}


def test_fetched_files_cannot_be_read_by_others(site: Site, signed: Path) -> None:
    site.must("fetch", NAME)
    data = site.top / "data"
    for path in (data, data / "layers", data / "verified", data / "cas"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o007, path
