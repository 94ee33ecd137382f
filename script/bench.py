"""Side-by-side measurements for script/bench.

Every round runs each contender once, so that noise meets all of them alike; medians are compared,
and only ratios are worth keeping. Arguments: path of podctl, a directory to work in, then the
groups to measure.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Python is started isolated (-I), so that its neighbour is not found by itself.
sys.path.insert(0, str(Path(__file__).parent))

ROUNDS = 15
#: what issue and design ask for: podctl's median over the other's, at most
TARGETS: dict[tuple[str, str], float] = {
    ("podctl run --stage1=fly", "podman run"): 0.7,
    ("podctl run --stage1=fly", "docker run"): 0.5,
    ("podctl run --net=none", "docker run --network none"): 0.95,
    ("podctl version", "python -I -c pass"): 4.0,
    ("podctl list, 1000 pods", "podctl version"): 2.0,
    ("podctl fetch file.aci", "tar -xzf"): 1.0,
    ("podctl pull", "docker pull"): 0.4,
    ("podctl pull", "podman pull"): 0.35,
    ("podctl run docker image", "podctl run aci"): 1.0,
}


def measure(contenders: dict[str, Callable[[], None]], rounds: int = ROUNDS) -> dict[str, float]:
    """Return the median seconds of each contender over interleaved rounds; the first warms up."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, work in contenders.items():
            started = time.perf_counter()
            work()
            if turn:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def report(medians: dict[str, float]) -> None:
    """Print each median, then every ratio with a target among them."""
    for name, seconds in medians.items():
        print(f"  {name:32} {seconds * 1000:9.1f} ms")
    for (ours, theirs), target in TARGETS.items():
        if ours in medians and theirs in medians:
            ratio = medians[ours] / medians[theirs]
            verdict = "ok" if ratio <= target else "MISSED"
            print(f"  {ours} / {theirs}: {ratio:.2f} (at most {target}) {verdict}")


def quiet(*words: str | Path, **settings: object) -> None:
    """Run a command that must succeed, without its output; what it complained of shows if not."""
    done = subprocess.run(  # type: ignore[call-overload]
        [os.fspath(word) for word in words],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        **settings,
    )
    if done.returncode:
        sys.exit(f"{shlex.join(done.args)}: exit {done.returncode}\n{done.stderr.decode()}")


def make_manifest(name: str) -> bytes:
    """Return a small image manifest that runs /bin/true."""
    machine = {"x86_64": "amd64"}.get(os.uname().machine, os.uname().machine)
    labels = [("version", "1"), ("os", "linux"), ("arch", machine)]
    return json.dumps(
        {
            "acKind": "ImageManifest",
            "acVersion": "0.8.11",
            "name": name,
            "labels": [{"name": key, "value": value} for key, value in labels],
            "app": {"exec": ["/bin/true"], "user": "0", "group": "0"},
        }
    ).encode()


def make_busybox(work: Path) -> Path:
    """Make a root filesystem of busybox; return its directory (beside a manifest)."""
    image = work / "busybox"
    (image / "rootfs/bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", image / "rootfs/bin/busybox")
    for name in ("sh", "true", "sleep"):
        (image / "rootfs/bin" / name).symlink_to("busybox")
    (image / "manifest").write_bytes(make_manifest("bench.example/busybox"))
    return image


def pack(image: Path, target: Path) -> None:
    """Write an ACI of an image directory with GNU tar."""
    quiet("tar", "-C", image, "--numeric-owner", "-czf", target, "manifest", "rootfs")


@contextmanager
def docker(work: Path) -> Iterator[list[str]]:
    """Run a docker daemon of our own; yield the client's command."""
    socket = work / "docker.sock"
    daemon = subprocess.Popen(
        ["dockerd", "--host", f"unix://{socket}", "--data-root", str(work / "docker")]
        + ["--exec-root", str(work / "docker-exec"), "--pidfile", str(work / "docker.pid")]
        + ["--iptables=false", "--bridge=none", "--log-level=error"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    client = ["docker", "--host", f"unix://{socket}"]
    try:
        for _ in range(300):
            if subprocess.run([*client, "version"], capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        yield client
    finally:
        daemon.terminate()
        daemon.wait()


def podman_command(work: Path) -> list[str]:
    """podman with a store of its own."""
    # Its defaults raise limits, which takes CAP_SYS_RESOURCE; not every host has that.
    limits = work / "containers.conf"
    limits.write_text('[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n')
    os.environ["CONTAINERS_CONF"] = str(limits)
    podman = ["podman", "--root", str(work / "podman"), "--runroot", str(work / "podman-run")]
    return [*podman, "--cgroup-manager=cgroupfs", "--events-backend=none"]


def bench_start(podctl: str, work: Path) -> None:
    """Cached image, /bin/true, no network set-up on any side."""
    image = make_busybox(work)
    pack(image, work / "busybox.aci")
    quiet("tar", "-C", image / "rootfs", "-cf", work / "rootfs.tar", ".")
    base = [podctl, "--dir", str(work / "data"), "--insecure-options=image"]
    quiet(*base, "fetch", work / "busybox.aci")
    podman = podman_command(work)
    quiet(*podman, "import", work / "rootfs.tar", "bench:1")
    with docker(work) as client:
        quiet(*client, "import", work / "rootfs.tar", "bench:1")
        run = ["run", "--rm", "--network", "none", "bench:1", "/bin/true"]
        ours = [*base, "run", "--stage1=fly", "bench.example/busybox:1"]
        medians = measure(
            {
                "podctl run --stage1=fly": lambda: quiet(*ours),
                "podman run": lambda: quiet(*podman, *run),
                "docker run": lambda: quiet(*client, *run),
            }
        )
    report(medians)


def bench_list(podctl: str, work: Path) -> None:
    """A thousand exited pods; plain interpreter and version beside it."""
    image = make_busybox(work)
    pack(image, work / "busybox.aci")
    base = [podctl, "--dir", str(work / "data"), "--insecure-options=image"]
    quiet(*base, "fetch", work / "busybox.aci")
    quiet(*base, "run", "--stage1=fly", "bench.example/busybox:1")
    pods = work / "data/pods/run"
    (model,) = list(pods.iterdir())
    for _ in range(999):
        shutil.copytree(model, pods / str(uuid.uuid4()), symlinks=True)
    python = os.path.join(os.path.dirname(podctl), "python3")
    report(
        measure(
            {
                "python -I -c pass": lambda: quiet(python, "-I", "-c", "pass"),
                "podctl version": lambda: quiet(podctl, "version"),
                "podctl list, 1000 pods": lambda: quiet(*base, "list"),
            }
        )
    )


def bench_nspawn(podctl: str, work: Path) -> None:
    """The default flavor: a pod's start without a network, and the memory that one takes."""
    from bench_nspawn import compare, make_tree

    image = make_busybox(work)
    pack(image, work / "busybox.aci")
    quiet("tar", "-C", image / "rootfs", "-cf", work / "rootfs.tar", ".")
    base = [podctl, "--dir", str(work / "data"), "--insecure-options=image"]
    quiet(*base, "fetch", work / "busybox.aci")
    ours = [*base, "run", "--stage1=nspawn", "--net=none"]
    name = "bench.example/busybox:1"
    podman = podman_command(work)
    quiet(*podman, "import", work / "rootfs.tar", "bench:1")
    with docker(work) as client:
        quiet(*client, "import", work / "rootfs.tar", "bench:1")
        run = ["run", "--rm", "--network", "none", "bench:1", "/bin/true"]
        report(
            measure(
                {
                    "podctl run --net=none": lambda: quiet(*ours, name),
                    "podctl run, host's users": lambda: quiet(*ours, "--private-users=no", name),
                    "podman run --network none": lambda: quiet(*podman, *run),
                    "docker run --network none": lambda: quiet(*client, *run),
                }
            )
        )
    make_tree(work / "tree")
    pod = [*ours, name, "--exec=/bin/sleep", "--", "600"]
    mine, theirs = (sizes for sizes in compare(pod, work / "tree"))
    for what, sizes in (("pod with sleep", mine), ("systemd-nspawn --boot", theirs)):
        shares = ", ".join(f"{command} {size}" for command, size in sorted(sizes.items()))
        print(f"  {what:32} {sum(sizes.values()):9} KiB PSS: {shares}")
    ratio = sum(mine.values()) / sum(theirs.values())
    verdict = "ok" if ratio <= 1 else "MISSED"
    print(f"  pod with sleep / systemd-nspawn --boot: {ratio:.2f} (at most 1.0) {verdict}")


def make_large(work: Path, files: int = 10_000, size: int = 190 << 20) -> Path:
    """Make an image of many files whose content compresses about as programs do."""
    image = work / "large"
    generator = random.Random(1)
    words = [generator.randbytes(12) for _ in range(4096)]
    for number in range(files):
        path = image / "rootfs/usr" / f"d{number % 100}" / f"file-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        amount = size // files // 16
        path.write_bytes(b"".join(generator.choice(words) + b"\0\0\0\0" for _ in range(amount)))
    (image / "manifest").write_bytes(make_manifest("bench.example/large"))
    return image


def bench_import(podctl: str, work: Path) -> None:
    """A 190 MiB gzip archive of 10,000 files into a fresh store, beside GNU tar."""
    archive = work / "large.aci"
    pack(make_large(work), archive)
    counter = iter(range(1000))

    def ours() -> None:
        data = work / f"data-{next(counter)}"
        quiet(podctl, "--dir", data, "--insecure-options=image", "fetch", archive)

    def theirs() -> None:
        target = work / f"tar-{next(counter)}"
        target.mkdir()
        quiet("tar", "-C", target, "-xzf", archive)

    # Nothing is deleted between rounds: on ext4 a big removal slows the creation after it.
    report(measure({"podctl fetch file.aci": ours, "tar -xzf": theirs}, rounds=5))


def bench_pull(podctl: str, work: Path) -> None:
    """Images from a registry on loopback into cold stores, durability on all sides."""
    from bench_pull import IMAGES, Pulls, compare, make_image, registry

    layout = work / "layout"
    with registry(work) as host:
        for name, (layers, files, size) in IMAGES.items():
            make_image(layout, name, layers, files, size)
            target = f"docker://{host}/bench/{name}:1"
            quiet("skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false",
                  f"oci:{layout}:{name}", target)  # fmt: skip
        pulls = Pulls(podctl, work, host)
        for name in IMAGES:
            times, peaks = compare(pulls, f"bench/{name}:1", rounds=5)
            print(f"  image {name}:")
            for contender, peak in peaks.items():
                print(f"  {contender} pull, peak memory {peak / (1 << 20):9.0f} MiB")
            report({f"{who} pull": statistics.median(values) for who, values in times.items()})


def bench_cached(podctl: str, work: Path) -> None:
    """The same files and command as an App Container Image and as a Docker image, both cached."""
    from bench_pull import registry

    image = make_busybox(work)
    pack(image, work / "busybox.aci")
    base = [podctl, "--dir", str(work / "data"), "--insecure-options=image,http"]
    quiet(*base, "fetch", work / "busybox.aci")
    quiet("tar", "-C", image / "rootfs", "-cf", work / "rootfs.tar", ".")
    layout = work / "layout"
    quiet("umoci", "init", "--layout", layout)
    quiet("umoci", "new", "--image", f"{layout}:bench")
    quiet("umoci", "raw", "add-layer", "--image", f"{layout}:bench", work / "rootfs.tar")
    quiet("umoci", "config", "--image", f"{layout}:bench", "--config.cmd=/bin/true")
    with registry(work) as host:
        name = f"docker://{host}/bench/busybox:1"
        quiet("skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false",
              f"oci:{layout}:bench", name)  # fmt: skip
        quiet(*base, "fetch", name)
        run = [*base, "run", "--stage1=fly"]
        report(
            measure(
                {
                    "podctl run aci": lambda: quiet(*run, "bench.example/busybox:1"),
                    "podctl run docker image": lambda: quiet(*run, name),
                }
            )
        )


GROUPS = {
    "start": bench_start,
    "list": bench_list,
    "import": bench_import,
    "pull": bench_pull,
    "cached": bench_cached,
    "nspawn": bench_nspawn,
}


def main() -> None:
    podctl, place, *names = sys.argv[1:]
    for name in names or list(GROUPS):
        print(f"{name}:", flush=True)
        directory = Path(tempfile.mkdtemp(dir=place, prefix="podctl-bench."))
        try:
            GROUPS[name](podctl, directory)
        finally:
            # podman leaves a mount of its own store behind; we are in a mount namespace of ours.
            # Nothing is removed: a big removal slows what comes after, and the disk goes anyway.
            for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
                if line.split()[4].startswith(str(directory)):
                    subprocess.run(["umount", "--lazy", line.split()[4]], check=False)


if __name__ == "__main__":
    main()
