"""Who touches bytes from outside: seen from the kernel (strace), and from inside the functions."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from site_world import PODCTL
from watching import Call, check_confined, internet_sockets, trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from site_world import Site

pytestmark = pytest.mark.root

NAME = "apps.example/watched"


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


def traced(site: Site, *arguments: str) -> list[Call]:
    """What each process of one podctl command did."""
    command = [PODCTL, *site.options, *arguments]
    return trace(site.top / "strace.log", command, site.inside())


def test_d4_sockets_are_opened_only_by_processes_that_gave_up_root(
    site: Site, signed: Path
) -> None:
    sockets = internet_sockets(traced(site, "run", "--stage1=fly", NAME))
    assert sockets
    assert all(call.dropped for call in sockets)


def test_control_a_privileged_socket_would_be_seen(tmp_path: Path) -> None:
    """Control: the same reading of a trace finds a process, and a thread, that keep root."""
    program = (
        "import socket, threading; socket.socket(); "
        "thread = threading.Thread(target=socket.socket); thread.start(); thread.join()"
    )
    calls = trace(tmp_path / "log", ["python3", "-c", program])
    sockets = internet_sockets(calls)
    assert [call.dropped for call in sockets] == [False, False]
    assert len({call.pid for call in sockets}) == 2


def test_d4_extraction_opens_nothing_but_single_names_below_its_root(
    site: Site, signed: Path
) -> None:
    calls = traced(site, "fetch", NAME)
    (unpacker,) = {call.pid for call in calls if call.call == "chroot"}
    assert any("busybox" in opened for opened in check_confined(calls, unpacker))


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
