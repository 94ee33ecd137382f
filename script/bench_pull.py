"""Pulling images from a registry on loopback into cold stores, beside docker and podman.

Durability counts on every side: podctl syncs its store before a pull is over, so the others'
stores are synced within their time as well. Peak memory is the proportional set size (PSS) of all
processes that take part, sampled in a run of its own.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import tarfile
import threading
import time
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Timed = Callable[[], None]

#: name -> (layers, files in all, bytes in all)
IMAGES = {"debian-like": (1, 9_000, 190 << 20), "stack": (12, 30_600, 250 << 20)}


def make_image(layout: Path, tag: str, layers: int, files: int, size: int) -> None:
    """Write an image of generated files, which compress about as programs do, into a layout."""
    generator = random.Random(7)
    words = [generator.randbytes(12) for _ in range(4096)]
    descriptors, diff_ids = [], []
    for number in range(layers):
        tar = _layer(generator, words, number, files // layers, size // layers)
        diff_ids.append(f"sha256:{hashlib.sha256(tar).hexdigest()}")
        media = "application/vnd.oci.image.layer.v1.tar+gzip"
        descriptors.append(_blob(layout, gzip.compress(tar, 6, mtime=0), media))
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "config": {"Cmd": ["/usr/l0-0/file-0"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _json(layout, config, "application/vnd.oci.image.config.v1+json"),
        "layers": descriptors,
    }
    top = _json(layout, manifest, manifest["mediaType"])
    index = layout / "index.json"
    known = json.loads(index.read_text())["manifests"] if index.exists() else []
    top["annotations"] = {"org.opencontainers.image.ref.name": tag}
    index.write_text(json.dumps({"schemaVersion": 2, "manifests": [*known, top]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _layer(
    generator: random.Random, words: list[bytes], number: int, files: int, size: int
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _directory(tar, "usr")
        for at in range(files):
            # As in an image of real programs, the files of a directory follow one another.
            directory = f"usr/l{number}-{at // 100}"
            if at % 100 == 0:
                _directory(tar, directory)
            data = b"".join(
                generator.choice(words) + b"\0\0\0\0" for _ in range(size // files // 16)
            )
            entry = tarfile.TarInfo(f"{directory}/file-{at}")
            entry.size, entry.mode, entry.mtime = len(data), 0o644, 1_700_000_000
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _directory(tar: tarfile.TarFile, name: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    tar.addfile(entry)


def _blob(layout: Path, data: bytes, media: str) -> dict[str, object]:
    digest = hashlib.sha256(data).hexdigest()
    place = layout / "blobs/sha256"
    place.mkdir(parents=True, exist_ok=True)
    (place / digest).write_bytes(data)
    return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}


def _json(layout: Path, value: object, media: object) -> dict[str, object]:
    return _blob(layout, json.dumps(value).encode(), str(media))


@contextmanager
def registry(work: Path) -> Iterator[str]:
    """Debian's registry on loopback; yields HOST:PORT."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = work / "registry.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {work}/registry}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
        "log: {level: error, accesslog: {disabled: true}}\n"
    )
    with open(work / "registry.log", "wb") as log:
        server = subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log)
    try:
        wait_for(lambda: socket.create_connection(("127.0.0.1", port), 1).close())
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def wait_for(attempt: Callable[[], object]) -> None:
    """Try until it works, for a minute at most."""
    for left in reversed(range(600)):
        try:
            attempt()
            return
        except (OSError, subprocess.CalledProcessError):
            if not left:
                raise
            time.sleep(0.1)


class Pss:
    """Samples the proportional set size of processes and their descendants; `peak` in bytes."""

    def __init__(self, roots: Callable[[], set[int]]) -> None:
        self._roots = roots
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self.peak = 0

    def __enter__(self) -> Pss:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.01):
            self.peak = max(self.peak, sum(map(_pss, _with_descendants(self._roots()))))


def _with_descendants(roots: set[int]) -> set[int]:
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = set(roots)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _pss(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return sum(int(line.split()[1]) << 10 for line in file if line.startswith("Pss:"))
    except OSError:
        return 0


class Pulls:
    """The contenders: each returns what is to be timed, its cold store made beforehand."""

    def __init__(self, podctl: str, work: Path, host: str) -> None:
        self._podctl = podctl
        self._work = work
        self._host = host
        self._numbers = count()
        self._daemon: subprocess.Popen[bytes] | None = None

    def podctl(self, image: str, data: Path | None = None) -> list[str]:
        words = [self._podctl, "--dir", str(data or self._fresh("podctl"))]
        return [*words, "--insecure-options=image,http", "fetch", f"docker://{self._host}/{image}"]

    def podman(self, image: str) -> list[str]:
        place = self._fresh("podman")
        words = ["podman", "--root", str(place), "--runroot", f"{place}-run"]
        words += ["--storage-driver=overlay", "--events-backend=none", "pull", "--tls-verify=false"]
        return self._durably(place, [*words, f"{self._host}/{image}"])

    def docker(self, image: str) -> list[str]:
        """With a daemon of its own, which is stopped by `stop`."""
        self.stop()
        place = self._fresh("docker")
        socket_path = f"unix://{place}.sock"
        self._daemon = subprocess.Popen(
            ["dockerd", "--host", socket_path, "--data-root", str(place)]
            + ["--exec-root", f"{place}-exec", "--pidfile", f"{place}.pid"]
            + ["--iptables=false", "--bridge=none", "--log-level=error"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        client = ["docker", "--host", socket_path]
        wait_for(lambda: subprocess.run([*client, "version"], capture_output=True, check=True))
        return self._durably(place, [*client, "pull", f"{self._host}/{image}"])

    def roots(self) -> set[int]:
        """The processes besides the command itself."""
        return set() if self._daemon is None else {self._daemon.pid}

    def stop(self) -> None:
        """End the daemon."""
        if self._daemon is not None:
            self._daemon.send_signal(signal.SIGTERM)
            self._daemon.wait()
            self._daemon = None

    def _fresh(self, name: str) -> Path:
        return self._work / f"{name}-{next(self._numbers)}"

    @staticmethod
    def _durably(place: Path, words: list[str]) -> list[str]:
        return ["sh", "-c", '"$@" && sync -f "$0"', str(place), *words]


def run(words: list[str]) -> None:
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, capture_output=True)


def settle() -> None:
    """Wait until the disk is quiet: a loop device's own file is written after the loop device."""
    for _ in range(3):
        os.sync()
        time.sleep(0.3)


def compare(pulls: Pulls, image: str, rounds: int) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Seconds of each round and the peak PSS of one more, for each contender."""
    contenders = {"podctl": pulls.podctl, "podman": pulls.podman, "docker": pulls.docker}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    peaks: dict[str, int] = {}
    for turn in range(rounds + 1):
        for name, prepare in contenders.items():
            words = prepare(image)
            settle()
            if turn == 0:
                process = subprocess.Popen(
                    words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
                with Pss(lambda pid=process.pid: {pid} | pulls.roots()) as sample:
                    process.wait()
                peaks[name] = sample.peak
                pulls.stop()
                continue
            started = time.perf_counter()
            run(words)
            times[name].append(time.perf_counter() - started)
            # Nobody is measured while another one is still at work.
            pulls.stop()
    return times, peaks
