"""Images of busybox for tests of what pods do: one with many oddities in it, and odd ones."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podctl.testing.aci import manifest, pack

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Change: TypeAlias = Callable[[Path], None]

BUSYBOX = "/bin/busybox"
PASSWD = """\
root:x:0:0:root:/root:/bin/sh
web:x:1001:1002::/home/web:/bin/sh
"""
GROUP = "root:x:0:\nweb:x:1002:\nstaff:x:50:web\n"


@cache
def applets() -> list[str]:
    """What this host's busybox can be called as."""
    done = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True)
    return [name for name in done.stdout.split() if name != "busybox"]


def box(root: Path) -> None:
    """A root filesystem of busybox: /bin, accounts, /root and a file. There is no /usr."""
    for name in ("bin", "etc", "root", "srv/data"):
        (root / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for name in applets():
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    (root / "srv/data/file").write_text("from the image\n")


def odd_programs(root: Path) -> None:
    """What cannot be executed, each for another reason, in /programs; and a file with an owner."""
    programs = root / "programs"
    programs.mkdir()
    elf = Path(os.path.realpath("/bin/true")).read_bytes()
    # The machine is the 16 bits at 18 of an ELF file; 243 is RISC-V.
    foreign = elf[:18] + (243).to_bytes(2, "little") + elf[20:]
    for name, content, mode in (
        ("dynamic", elf, 0o755),
        ("foreign", foreign, 0o755),
        ("empty", b"", 0o755),
        ("text", b"echo no shebang\n", 0o755),
        ("no-interpreter", b"#!/no/such/interpreter\n", 0o755),
        ("dos", b"#!/bin/sh\r\necho\r\n", 0o755),
        ("script", b'#!/bin/sh\necho script "$@"\n', 0o755),
        ("not-executable", b"#!/bin/sh\n", 0o644),
    ):
        (programs / name).write_bytes(content)
        (programs / name).chmod(mode)
    (programs / "directory").mkdir()
    (root / "srv/owned").write_text("owned\n")
    os.chown(root / "srv/owned", 1234, 4321)
    (root / "srv/real").mkdir()
    (root / "srv/link").symlink_to("real")
    (root / "srv/far").symlink_to("../../../../../../srv/real")
    (root / "srv/absolute").symlink_to("/srv/real")


def linked_directories(root: Path) -> None:
    """Directories that podctl or nspawn might look into, as links that lead elsewhere."""
    for name in ("etc", "tmp"):
        place = root / f"srv/{name}"
        if (root / name).exists():
            (root / name).rename(place)
        else:
            place.mkdir()
        (root / name).symlink_to(f"/srv/{name}")
    (root / "var").mkdir()
    (root / "var/run").symlink_to("/run")


def linked_proc(root: Path) -> None:
    """The place of /proc leads elsewhere (CVE-2019-16884)."""
    (root / "srv/proc").mkdir()
    (root / "proc").symlink_to("/srv/proc")


def file_for_dev(root: Path) -> None:
    """The place of /dev is a file."""
    (root / "dev").write_text("")


def foreign_system(root: Path) -> None:
    """An image that brings a systemd, and says it is another system altogether."""
    for name, content in {
        "usr/lib/systemd/systemd": "#!/bin/sh\necho image systemd\n",
        "sbin/init": "#!/bin/sh\necho init of the image as $$\n",
        "usr/lib/os-release": "ID=evil\nNAME=Evil\n",
        "etc/systemd/system/evil.service": "[Service]\nExecStart=/bin/touch /evil\n",
        "etc/systemd/nspawn/box.nspawn": "[Exec]\nParameters=/bin/touch /evil\n",
        "podctl/launch": "#!/bin/sh\necho launch of the image\n",
        "podctl/supervisor": "echo supervisor of the image\n",
        "etc/hostname": "evil\n",
        ".nspawn": "[Exec]\nBoot=yes\n",
        "etc/ld.so.preload": "/no/such/library\n",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o755)
    (root / "etc/os-release").symlink_to("/dev/zero")
    (root / "etc/machine-id").mkdir()
    (root / "etc/mtab").symlink_to("/nowhere")


def bare(root: Path) -> None:
    """Nothing but one static program."""
    for path in root.iterdir():
        shutil.rmtree(path)
    shutil.copy(BUSYBOX, root / "echo")


def hostile_accounts(root: Path) -> None:
    """Accounts that would be trouble if they were believed."""
    lines = [
        "web:x:1001:1002",
        "1001:x:0:0:digits for a name:/:/bin/sh",
        "huge:x:4294967296:1:",
        "minus:x:-1:-1::/:",
        "empty:x:::/:",
        "no-fields",
        "\x1b[31mred:x:3:3::/:",
    ]
    (root / "etc/passwd").write_text("\n".join(lines) + "\n")
    (root / "etc/group").unlink()
    os.mkfifo(root / "etc/group")


def make(
    path: Path,
    name: str,
    *changes: Change,
    annotations: dict[str, str] | None = None,
    **app: Any,
) -> Path:
    """Write an image of busybox as an ACI.

    Args:
        changes: made to its root filesystem, in order.
        app: its app section.
    """
    tree = path.with_suffix(".tree")
    root = tree / "rootfs"
    root.mkdir(parents=True)
    root.chmod(0o755)
    box(root)
    for change in changes:
        change(root)
    import json

    labels = {
        "version": "1.0",
        "os": "linux",
        "arch": {"x86_64": "amd64"}.get(os.uname().machine, "aarch64"),
    }
    document = manifest(name, labels=labels, app={"exec": ["/bin/true"], **app})
    if annotations:
        document["annotations"] = [{"name": k, "value": v} for k, v in annotations.items()]
    (tree / "manifest").write_text(json.dumps(document))
    pack(str(tree), str(path), "none")
    shutil.rmtree(tree)
    return path
