"""Real images, built by the tools people build them with: buildah, umoci, mmdebstrap.

    workshop = Workshop(directory)
    registry.push(workshop.busybox(), "library/busybox:1")

Each method returns how skopeo names the image it has built. Debian's comes from a mirror and takes
a while.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: a v2 file capability: cap_net_raw, permitted and effective
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
MTIME = 1_200_000_000

_BUSYBOX = """
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /etc /root /srv/data && echo root:x:0:0:root:/root:/bin/sh >/etc/passwd \
    && echo app:x:1000:1000::/:/bin/sh >>/etc/passwd && echo kept >/srv/data/kept
RUN echo gone >/srv/data/gone && chown 1000:1000 /srv/data
RUN rm /srv/data/gone
ENV PATH=/bin GREETING="hello there"
WORKDIR /srv/data
EXPOSE 8080/tcp
VOLUME /srv/volume
LABEL org.example.purpose=tests
STOPSIGNAL SIGINT
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["echo $GREETING from $PWD; cat kept; ls"]
"""


class Workshop:
    """Where images are built.

    Args:
        directory: a scratch directory; what is built stays in it, and is built once.
        prefix: words before each command.
    """

    def __init__(self, directory: Path, prefix: Sequence[str] = ()) -> None:
        self.directory = directory
        self._prefix = list(prefix)
        directory.mkdir(parents=True, exist_ok=True)
        self.layout = directory / "layout"

    def busybox(self, kind: str = "docker") -> str:
        """Busybox by buildah from a Containerfile, a layer for each step.

        Args:
            kind: `docker` (schema 2) or `oci`.
        """
        place = self.directory / f"busybox-{kind}"
        if not place.exists():
            context = self.directory / "context"
            context.mkdir(exist_ok=True)
            (context / "busybox").write_bytes(Path("/bin/busybox").read_bytes())
            (context / "busybox").chmod(0o755)
            (context / "Containerfile").write_text(_BUSYBOX)
            tag = f"busybox-{kind}"
            build = ["build", "--quiet", "--layers", f"--format={kind}", f"--tag={tag}"]
            self._buildah(*build, str(context))
            self._buildah("push", "--quiet", tag, f"dir:{place}")
        return f"dir:{place}"

    def debian(self) -> str:
        """A Debian userland of one layer, by mmdebstrap and umoci."""
        tar = self.directory / "debian.tar"
        if not tar.exists():
            self._run("mmdebstrap", "--quiet", "--variant=minbase", "bookworm", str(tar))
            self._umoci("new", "debian")
            self._umoci("raw add-layer", "debian", str(tar))
            self._umoci("config", "debian", "--config.cmd=/bin/bash", "--config.env=DEBIAN=yes")
        return f"oci:{self.layout}:debian"

    def layered(self) -> str:
        """Busybox changed in many ways in layer upon layer, each packed by umoci."""
        bundle = self.directory / "bundle"
        if not bundle.exists():
            self._umoci("new", "layered")
            self._umoci("unpack", "layered", str(bundle))
            for change in CHANGES:
                change(bundle / "rootfs")
                self._umoci("repack", "layered", "--refresh-bundle", str(bundle))
            above = self.directory / "above"
            _write(above / "fresh", "covers what was there")
            self._umoci("insert", "layered", "--opaque", str(above), "/srv/opaque")
            self._umoci("insert", "layered", "--whiteout", "/srv/whited")
            self._umoci("config", "layered", "--config.entrypoint=/bin/busybox")
        return f"oci:{self.layout}:layered"

    def unpacked(self, name: str, target: Path) -> Path:
        """Let umoci unpack an image of the layout; return its root filesystem."""
        self._umoci("unpack", name, str(target))
        return target / "rootfs"

    def _umoci(self, command: str, name: str, *words: str) -> None:
        if not self.layout.exists():
            self._run("umoci", "init", "--layout", str(self.layout))
        image = f"{self.layout}:{name}"
        self._run("umoci", *command.split(), "--image", image, *words)

    def _buildah(self, *words: str) -> None:
        top = self.directory
        places = [f"--root={top}/storage", f"--runroot={top}/run", "--storage-driver=vfs"]
        isolation = {"BUILDAH_ISOLATION": "chroot"}
        self._run("buildah", *places, "--registries-conf=/dev/null", *words, **isolation)

    def _run(self, *words: str, **environment: str) -> None:
        subprocess.run(
            # What a tool mounts while it works is not for others to see.
            [*self._prefix, "unshare", "--mount", *words],
            check=True,
            capture_output=True,
            env={**os.environ, **environment},
        )


def _base(root: Path) -> None:
    _write(root / "bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755)
    for name in ("sh", "true", "cat", "ls"):
        (root / "bin" / name).symlink_to("busybox")
    _write(root / "etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    for name in ("opaque", "whited", "kept", "replaced"):
        for number in range(3):
            _write(root / f"srv/{name}/{number}/file", f"{name} {number}")


def _owners_and_modes(root: Path) -> None:
    for number, mode in enumerate((0o644, 0o755, 0o4755, 0o2755, 0o600, 0o000, 0o1666)):
        path = _write(root / f"srv/modes/{mode:04o}", "x", mode=mode)
        os.chown(path, number * 1000, 3_000_000_000 - number)
        path.chmod(mode)
    os.chown(root / "srv/modes", 12, 34)
    (root / "srv/modes").chmod(0o1777)


def _links(root: Path) -> None:
    for name in ("one", "two", "three"):
        path = root / "srv/links" / name
        if name == "one":
            _write(path, "linked")
        else:
            os.link(root / "srv/links/one", path)
    (root / "srv/links/absolute").symlink_to("/etc/passwd")
    (root / "srv/links/dangling").symlink_to("nowhere/" * 40)
    os.lchown(root / "srv/links/dangling", 42, 43)


def _attributes(root: Path) -> None:
    path = _write(root / "srv/attributes/file", "x")
    os.setxattr(path, "user.binary", bytes(range(256)))
    os.setxattr(path, "user.text", b"plain")
    os.setxattr(root / "srv/attributes", "user.directory", b"yes")
    os.setxattr(_write(root / "bin/ping", "#!", mode=0o755), "security.capability", CAPABILITY)


def _devices(root: Path) -> None:
    place = root / "srv/devices"
    place.mkdir()
    os.mknod(place / "null", 0o020666, os.makedev(1, 3))
    os.mknod(place / "loop", 0o060660, os.makedev(7, 200))
    os.mkfifo(place / "fifo", 0o620)


def _names(root: Path) -> None:
    place = root / "srv/names"
    deep = place / ("d" * 100) / ("e" * 120) / ("f" * 150)
    _write(deep / ("g" * 255), "deep")
    _write(place / "snow \u2603 and\ttab", "snow")
    # A path of exactly the sizes ustar has fields for.
    _write(place / ("a" * (100 - len("srv/names/"))), "100")
    (place / "link").symlink_to("t" * 200)


def _removals(root: Path) -> None:
    (root / "srv/kept/0/file").unlink()
    _remove(root / "srv/kept/1")
    (root / "srv/links/two").unlink()


def _changes_of_kind(root: Path) -> None:
    _remove(root / "srv/replaced/0")
    _write(root / "srv/replaced/0", "was a directory")
    (root / "srv/replaced/1/file").unlink()
    (root / "srv/replaced/1/file").mkdir(0o700)
    _remove(root / "srv/replaced/2")
    (root / "srv/replaced/2").symlink_to("1")


def _remade_directory(root: Path) -> None:
    _remove(root / "srv/kept/2")
    _write(root / "srv/kept/2/other", "another under the same name")


def _touched(root: Path) -> None:
    (root / "srv/modes/0644").chmod(0o640)
    os.chown(root / "srv/names", 5, 6)
    os.utime(root / "etc/passwd", (MTIME + 7, MTIME + 7))


#: What each layer does to what lies below it.
CHANGES: tuple[Callable[[Path], None], ...] = (
    _base, _owners_and_modes, _links, _attributes, _devices, _names, _removals, _changes_of_kind,
    _remade_directory, _touched,
)  # fmt: skip


def _write(path: Path, content: str | bytes, mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    os.utime(path, (MTIME, MTIME))
    return path


def _remove(path: Path) -> None:
    subprocess.run(["rm", "-r", str(path)], check=True)
