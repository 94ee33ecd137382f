"""A Debian guest with cgroup v2, booted by qemu over this machine's own root, read-only.

It needs no image: the kernel is Debian's, its initramfs is a busybox with a few modules, and the
root comes by virtiofs. What the guest writes lies in its memory. Emulated (tcg), because the
machines tests run on rarely lend their processor's virtualisation; a boot takes three seconds.

Debian: qemu-system-x86 (with its virtiofsd), linux-image-cloud-amd64, busybox-static, cpio.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from podctl.testing.pods import busybox, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

#: seconds a guest may take altogether
LIMIT = 400
_VIRTIOFSD = "/usr/lib/qemu/virtiofsd"
#: modules, without those they need
_MODULES = ("virtio_pci", "virtiofs", "overlay")
_INIT = """#!/bin/sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do /bin/busybox insmod /$module.ko; done
root=/mnt
/bin/busybox mount -t virtiofs -o ro host $root || /bin/busybox poweroff -f
/bin/busybox mkdir /kept
/bin/busybox mount --bind $root{checkout} /kept
for tree in proc sys dev; do /bin/busybox mount --move /$tree $root/$tree; done
/bin/busybox mount -t tmpfs -o mode=1777 tmpfs $root/tmp
/bin/busybox mount -t tmpfs tmpfs $root/var/tmp
/bin/busybox mount -t tmpfs tmpfs $root/run
/bin/busybox mount -t tmpfs tmpfs $root/var/lib
# The checkout may lie in one of these.
/bin/busybox mkdir -p $root{checkout} && /bin/busybox mount --bind /kept $root{checkout}
/bin/busybox mount -t tmpfs -o mode=1777 shm $root/dev/shm 2>/dev/null
/bin/busybox mount -t cgroup2 -o nsdelegate cgroup2 $root/sys/fs/cgroup
cd $root
# The ramfs stays below, as in every initramfs: pivot_root(2) takes another file system than that.
/bin/busybox mount --move . /
exec /bin/busybox chroot . /bin/sh -c 'export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp
    {command}; echo "status $?" >/dev/ttyS1; echo o >/proc/sysrq-trigger; sleep 60'
"""


class Guest:
    """One boot that runs one command.

    Args:
        directory: for sockets, the initramfs and the console; on a path of less than 80 bytes.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        kernels = sorted(Path("/boot").glob("vmlinuz-*-cloud-amd64"))
        if not kernels:
            raise FileNotFoundError("no kernel; Debian: apt-get install linux-image-cloud-amd64")
        self._kernel = kernels[-1]

    @property
    def console(self) -> str:
        """What kernel and command have written."""
        return (self._directory / "console").read_text(errors="replace")

    def run(self, command: Sequence[str]) -> str:
        """Boot, run the command as root, power off; returns what it wrote to /dev/ttyS1, whose last
        line is `status CODE`."""
        self._make_initramfs(" ".join(command))
        socket = self._directory / "fs"
        server = subprocess.Popen(
            [_VIRTIOFSD, f"--socket-path={socket}", "-o", "source=/", "-o", "sandbox=chroot",
             "--rlimit-nofile=0"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_until(socket.exists, "virtiofsd")
            subprocess.run(self._qemu(socket), check=True, timeout=LIMIT, stdin=subprocess.DEVNULL)
        finally:
            server.kill()
            server.wait()
        return (self._directory / "answer").read_text(errors="replace")

    def _qemu(self, socket: Path) -> list[str]:
        top = self._directory
        return [
            "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "2",
            "-m", "1024", "-nodefaults", "-display", "none", "-no-reboot",
            "-kernel", str(self._kernel), "-initrd", str(top / "initramfs"),
            "-append", "console=ttyS0 quiet panic=-1 systemd.unified_cgroup_hierarchy=1",
            "-object", "memory-backend-memfd,id=mem,size=1024M,share=on",
            "-numa", "node,memdev=mem",
            "-chardev", f"socket,id=fs,path={socket}",
            "-device", "vhost-user-fs-pci,chardev=fs,tag=host",
            "-serial", f"file:{top / 'console'}", "-serial", f"file:{top / 'answer'}",
        ]  # fmt: skip

    def _make_initramfs(self, command: str) -> None:
        tree = self._directory / "tree"
        for name in ("bin", "proc", "sys", "dev", "mnt"):
            (tree / name).mkdir(parents=True)
        shell = busybox()
        assert shell is not None
        (tree / "bin" / "busybox").write_bytes(Path(shell).read_bytes())
        (tree / "bin" / "busybox").chmod(0o755)
        (tree / "bin" / "sh").symlink_to("busybox")
        names = []
        for path in self._modules():
            names.append(path.stem)
            (tree / path.name).write_bytes(path.read_bytes())
        modules, checkout = " ".join(names), Path(__file__).parents[2]
        text = _INIT.format(modules=modules, command=command, checkout=checkout)
        (tree / "init").write_text(text)
        (tree / "init").chmod(0o755)
        with open(self._directory / "initramfs", "wb") as file:
            subprocess.run(
                "find . | cpio -o -H newc --quiet", shell=True, cwd=tree, stdout=file, check=True
            )

    def _modules(self) -> list[Path]:
        """Files of the modules, what each needs before it (modules.dep(5))."""
        top = Path("/lib/modules") / self._kernel.name.removeprefix("vmlinuz-")
        needs: dict[str, tuple[str, list[str]]] = {}
        for line in (top / "modules.dep").read_text().splitlines():
            path, _, others = line.partition(":")
            needs[Path(path).stem] = (path, others.split())
        found: dict[str, None] = {}

        def add(path: str) -> None:
            for other in needs[Path(path).stem][1]:
                add(other)
            found.setdefault(path)

        for name in _MODULES:
            add(needs[name][0])
        return [top / path for path in found]
