"""Nothing is left behind: by commands that succeed, and by refusals, which change nothing."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import image_files
import pytest
from clean_home import Clean
from home import fingerprint
from image_files import ARCH, manifest, pack

from podctl.testing.httpserver import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from live_world import Discovery
    from site_world import Site

pytestmark = pytest.mark.root

FLY = "--stage1=fly"
NAME = "live.example/clean"
PATH = f"/{NAME}-latest-linux-{ARCH}.aci"


@pytest.fixture
def clean(tmp_path: Path, published: Site) -> Clean:
    return Clean(tmp_path, published)


def test_no_command_leaves_anything_behind(clean: Clean, live: Discovery) -> None:
    live.add(PATH, pack(manifest(NAME, app={}), image_files.busybox()))
    out = clean.top / "out"
    out.mkdir()
    uuid = out / "uuid"
    steps = [
        ["fetch", NAME],
        ["fetch", f"https://live.example{PATH}"],
        ["run", FLY, f"--uuid-file-save={uuid}", NAME],
        ["run", FLY, "--no-overlay", NAME],
        ["run", FLY, "--dry-run", NAME],
        ["list", "--full"],
        ["status", f"--uuid-file={uuid}"],
        ["cat-manifest", f"--uuid-file={uuid}"],
        ["export", "UUID", f"{out}/exported.aci"],
        ["image", "list"],
        ["image", "verify", NAME],
        ["image", "cat-manifest", NAME],
        ["image", "export", NAME, f"{out}/image.aci"],
        ["image", "extract", NAME, f"{out}/extracted"],
        ["image", "render", NAME, f"{out}/rendered"],
        ["prepare", FLY, "--quiet", NAME],
        ["run-prepared", "PREPARED"],
        ["config"],
        ["plugins"],
        ["version"],
        ["doctor"],
        ["completion", "bash"],
        ["fsck"],
        ["fsck", "--repair"],
        ["rm", f"--uuid-file={uuid}"],
        ["gc", "--mark-only"],
        ["gc", "--grace-period=0s"],
        ["image", "gc"],
        ["image", "rm", NAME],
        ["image", "gc", "--grace-period=0s"],
    ]
    prepared = ""
    for words in steps:
        line = [{"UUID": _read(uuid), "PREPARED": prepared}.get(word, word) for word in words]
        done = clean.podctl(*line)
        assert done.returncode == 0, (words, done)
        if words[0] == "prepare":
            prepared = done.stdout.strip()
        assert clean.leftovers() == [], words
    assert clean.images() == []
    assert clean.pods() == {}


def _read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def test_a_running_pod_is_the_only_thing_there_is(clean: Clean, live: Discovery) -> None:
    """D6: while it runs there is its own process, and nothing else of podctl's."""
    live.add(PATH, pack(manifest(NAME, app={}), image_files.busybox()))
    pod = clean.start("run", FLY, NAME, "--exec=/bin/sh", "--", "-c", "echo up; exec sleep 1000",
                      stdout=-1)  # fmt: skip
    try:
        assert pod.stdout is not None
        assert pod.stdout.readline() == "up\n"
        (process,) = clean.processes()
        assert process.startswith(f"{pod.pid}: ")
        assert "podctl" not in process
        assert len(clean.locks()) == 1
        assert clean.mounts() == []
    finally:
        pod.kill()
        pod.communicate()
    assert clean.leftovers() == []


# -- refusals --------------------------------------------------------------------------------


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), 1)


def member(name: str, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


GOOD = json.dumps(manifest("live.example/bad", app={})).encode()


def image_with(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    rootfs = member("rootfs", type=tarfile.DIRTYPE, mode=0o755)
    return tar(member("manifest", GOOD), rootfs, *members)


def changed(**fields: Any) -> bytes:
    return pack({**json.loads(GOOD), **fields}, {})


FILES: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "no archive": lambda: b"not an archive " * 100,
    "page": lambda: b"<!DOCTYPE html><html><body>sorry</body></html>" * 20,
    "cut off": lambda: pack(manifest("live.example/bad"), {"f": os.urandom(9000)})[:-5000],
    "flipped": lambda: _flip(pack(manifest("live.example/bad"), {"f": os.urandom(9000)})),
    "trailing bytes": lambda: image_with() + b"trailing",
    "no manifest": lambda: tar(member("rootfs", type=tarfile.DIRTYPE)),
    "two manifests": lambda: image_with(member("manifest", GOOD)),
    "manifest is a link": lambda: tar(
        member("rootfs", type=tarfile.DIRTYPE),
        member("manifest", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    ),
    "manifest no JSON": lambda: pack(b"{", {}),
    "manifest with a key twice": lambda: pack(GOOD.replace(b'"name"', b'"name": "a", "name"'), {}),
    "manifest too deep": lambda: pack(b"[" * 100000, {}),
    "other kind": lambda: changed(acKind="PodManifest"),
    "newer version": lambda: changed(acVersion="99.0.0"),
    "bad name": lambda: changed(name="Upper/Case"),
    "bad label": lambda: changed(labels=[{"name": "os", "value": "plan9"}]),
    "label twice": lambda: changed(labels=[{"name": "a", "value": "1"}] * 2),
    "relative exec": lambda: changed(app={"exec": "/bin/true", "user": "0", "group": "0"}),
    "parent": lambda: image_with(member("rootfs/../../canary", b"x")),
    "absolute": lambda: image_with(member("/canary", b"x")),
    "through a link": lambda: image_with(
        member("rootfs/out", type=tarfile.SYMTYPE, linkname="/"), member("rootfs/out/canary", b"x")
    ),
    "hard link out": lambda: image_with(
        member("rootfs/shadow", type=tarfile.LNKTYPE, linkname="/etc/shadow")
    ),
    "stranger": lambda: image_with(member("elsewhere/file", b"x")),
    "bomb": lambda: gzip.compress(bytes(300 << 20), 9),
}  # fmt: skip


def _flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x40]) + data[middle + 1 :]


LINES: dict[str, str] = {
    "no such command": "frobnicate",
    "ambiguous command": "r",
    "no such flag": "list --frobnicate",
    "bad global": "--insecure-options=magic list",
    "run nothing": "run --stage1=fly",
    "run no such file": "run --stage1=fly ./absent.aci",
    "run no such hash": "run --stage1=fly sha512-00000000",
    "run a directory": "run --stage1=fly {top}",
    "run a FIFO": "run --stage1=fly {top}/fifo.aci",
    "run a device": "run --stage1=fly {top}/zero.aci",
    "run bad name": "run --stage1=fly Upper/Case:1",
    "run without a plugin": "run --stage1=fly docker://live.example/app",
    "run bad URL": "run --stage1=fly https://live.example/app.tar",
    "run no such page": "run --stage1=fly https://live.example/absent.aci",
    "run no such host": "run --stage1=fly absent.example/app",
    "run no such name": "run --stage1=fly live.example/absent",
    "run without a flavor": "run --stage1=kvm {name}",
    "run other flavor": "run --stage1=magic {name}",
    "run foreign stage1": "run --stage1-name=example.com/own-stage1 {name}",
    "run two": "run --stage1=fly {name} {name} --name=other",
    "run with a network": "run --stage1=fly --net=none {name}",
    "run with private users": "run --stage1=fly --private-users {name}",
    "run with no memory": "run --stage1=fly {name} --memory=100k",
    "run with capabilities": "run --stage1=fly {name} --caps-retain=CAP_NONE",
    "run as nobody known": "run --stage1=fly {name} --user=unknown",
    "run what is not there": "run --stage1=fly {name} --working-dir=/absent",
    "run on what is not there": "run --stage1=fly --volume=v,kind=host,source=/absent {name}",
    "run dangling": "run --stage1=fly {name} --mount=volume=v,target=/x",
    "run with arguments first": "run --stage1=fly -- {name}",
    "run no pod manifest": "run --stage1=fly --pod-manifest={top}/absent",
    "run bad policy": "run --stage1=fly --pull-policy=maybe {name}",
    "run into no file": "run --stage1=fly --uuid-file-save={top}/absent/uuid {name}",
    "prepare a ghost": "prepare --stage1=fly --pull-policy=never live.example/ghost",
    "run-prepared exited": "run-prepared {uuid}",
    "status of nothing": "status 00000000",
    "status of no file": "status --uuid-file={top}/absent",
    "rm of nothing": "rm",
    "rm of a ghost": "rm 00000000",
    "stop a ghost": "stop 00000000",
    "enter exited": "enter {uuid} /bin/true",
    "export over": "export {uuid} {top}/there.aci",
    "export a ghost": "export 00000000 {top}/new.aci",
    "gc bad time": "gc --grace-period=soon",
    "image rm ghost": "image rm live.example/ghost",
    "image verify ghost": "image verify live.example/ghost",
    "image cat-manifest short": "image cat-manifest sha512-1",
    "image export over": "image export {name} {top}/there.aci",
    "image extract root": "image extract --overwrite {name} /",
    "image render over": "image render {name} {top}/cwd",
    "image gc bad time": "image gc --grace-period=-1h",
    "trust nothing": "trust",
    "trust both": "trust --root --prefix=a.example {top}/there.aci",
    "trust no key": "trust --root --skip-fingerprint-review {top}/there.aci",
    "trust http": "trust --prefix=a.example http://live.example/key",
    "completion of tcsh": "completion tcsh",
}


@pytest.fixture(scope="module")
def settled(published: Site, tmp_path_factory: pytest.TempPathFactory) -> Clean:
    """An installation with an image and an exited pod."""
    clean = Clean(tmp_path_factory.mktemp("settled"), published)
    clean.install("live.example/settled")
    clean.must("run", FLY, "live.example/settled")
    clean.must("image", "gc")
    os.mkfifo(clean.top / "fifo.aci")
    (clean.top / "zero.aci").symlink_to("/dev/zero")
    (clean.top / "there.aci").write_text("there\n")
    return clean


def state(clean: Clean) -> str:
    outside = [path for path in clean.top.iterdir() if path not in (clean.data, clean.top / "bad")]
    return fingerprint(clean.data, *sorted(outside))


def check_refused(clean: Clean, words: list[str]) -> str:
    """254, one line that is an error, and not a byte changed. Returns the line."""
    before = state(clean)
    done = clean.podctl(*words, timeout=60)
    assert done.returncode == 254, done
    assert done.stdout == "", done
    lines = [line for line in done.stderr.splitlines() if not line.startswith("image: ")]
    if words[0] in ("rm", "stop") or words[:2] in (["image", "rm"], ["image", "verify"]):
        # They take several objects, and end with a sum.
        lines = lines[:-1] or lines
    assert len(lines) == 1, done.stderr
    assert ": " in lines[0]
    assert "unexpected" not in lines[0]
    assert "Traceback" not in lines[0]
    assert state(clean) == before
    assert clean.leftovers() == []
    return lines[0]


@pytest.mark.parametrize("case", FILES)
def test_bad_image_files_change_nothing(settled: Clean, case: str) -> None:
    bad = settled.top / "bad"
    bad.mkdir(exist_ok=True)
    file = bad / "image.aci"
    file.write_bytes(FILES[case]())
    line = check_refused(settled, ["fetch", str(file)])
    assert line.startswith("fetch: ")
    assert not Path("/canary").exists()


@pytest.mark.parametrize("case", ["empty", "no archive", "cut off", "bad name", "parent"])
def test_bad_downloads_change_nothing(settled: Clean, live: Discovery, case: str) -> None:
    live.add(f"/live.example/bad-latest-linux-{ARCH}.aci", FILES[case]())
    check_refused(settled, ["run", FLY, "live.example/bad"])


@pytest.mark.parametrize("status", [202, 403, 404, 410, 451])
def test_bad_answers_change_nothing(settled: Clean, live: Discovery, status: int) -> None:
    live.files[f"/live.example/bad-latest-linux-{ARCH}.aci"] = Reply(status)
    line = check_refused(settled, ["fetch", "live.example/bad"])
    assert str(status) in line


@pytest.mark.parametrize("case", LINES)
def test_bad_command_lines_change_nothing(settled: Clean, live: Discovery, case: str) -> None:
    (uuid,) = settled.pods()
    words = LINES[case].format(top=settled.top, name="live.example/settled", uuid=uuid).split()
    check_refused(settled, words)


def test_several_bad_objects_are_a_line_each(settled: Clean) -> None:
    for words in (["rm", "0000", "1111"], ["stop", "0000", "1111"], ["image", "rm", "a", "b"]):
        before = state(settled)
        done = settled.podctl(*words)
        assert done.returncode == 254
        assert len(done.stderr.splitlines()) == 3, done.stderr
        assert state(settled) == before


def test_control_a_changed_byte_or_mode_is_seen(settled: Clean) -> None:
    """Control: what the refusals are held against notices the smallest change."""
    before = state(settled)
    record = next((settled.data / "cas/images").rglob("record.json"))
    text = record.read_bytes()
    record.write_bytes(text + b" ")
    assert state(settled) != before
    record.write_bytes(text)
    mode = record.stat().st_mode
    record.chmod(0o600)
    assert state(settled) != before
    record.chmod(mode)
    assert state(settled) == before
    with open(record) as file:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_SH)
        assert len(settled.locks()) == 1
