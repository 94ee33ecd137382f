"""A published world of its own: HTTPS site, invented names and trusted authority in namespaces.

The site runs in a network and mount namespace; podctl is started inside them, as a user of that
host would start it. Nothing of it is visible to the machine the tests run on.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from podctl.testing.certs import Authority

HOST = "apps.example"
PODCTL = str(Path(sys.executable).parent / "podctl")
_SET_UP = """
mount --bind "$1/hosts" /etc/hosts
mount --bind "$1/authorities" /etc/ssl/certs/ca-certificates.crt
ip link set lo up
exec "$2" -I -m podctl.testing.httpserver "$1/public" --port 443 \
    --certificate "$1/site.pem" --key "$1/site.key" \
    --meta ac-discovery "$3 https://$3/{name}-{version}-{os}-{arch}.{ext}" \
    --meta ac-discovery-pubkeys "$3 https://$3/pubkeys.gpg"
"""


class Keyring:
    """OpenPGP keys made by gpg in a directory of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(mode=0o700)

    def gpg(self, *words: str) -> bytes:
        """Run gpg; return its output."""
        base = ["gpg", "--homedir", str(self.home), "--batch", "--yes", "--quiet"]
        command = [*base, "--pinentry-mode", "loopback", "--passphrase", "", *words]
        return subprocess.run(command, check=True, capture_output=True).stdout

    def make(self, user: str, *options: str, expire: str = "never") -> str:
        """Make a signing key; return its fingerprint."""
        self.gpg(*options, "--quick-gen-key", user, "ed25519", "sign", expire)
        listing = self.gpg("--with-colons", "--list-keys", user).decode()
        line = next(line for line in listing.splitlines() if line.startswith("fpr:"))
        return line.split(":")[9].lower()

    def sign(self, fingerprint: str, path: Path, *options: str) -> None:
        """Write a detached, armored signature beside a file."""
        self.gpg(*options, "--local-user", fingerprint, "--armor", "--output", f"{path}.asc",
                 "--detach-sign", str(path))  # fmt: skip

    def export(self, fingerprint: str, path: Path) -> Path:
        """Write a public key, armored."""
        path.write_bytes(self.gpg("--armor", "--export", fingerprint))
        return path

    def close(self) -> None:
        """End the agent gpg has started."""
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], check=True)


class Site:
    """The site and the directories of a podctl installation.

    Attributes:
        public: what the site serves.
        options: global options of podctl for this installation.
        authority: signs the certificates of the site's hosts.
        pid: a process in the site's namespaces.
    """

    def __init__(self, top: Path) -> None:
        self.top = top
        self.public = top / "public"
        self.public.mkdir(parents=True)
        self.keyring = Keyring(top / "gnupg")
        (top / "etc").mkdir(mode=0o755)
        self.options = ["--dir", f"{top}/data", "--local-config", f"{top}/etc"]
        self.options += ["--system-config", f"{top}/usr"]
        self._serve()

    def _serve(self) -> None:
        self.authority = authority = Authority()
        authority.issue(HOST).write(self.top, "site")
        system = Path("/etc/ssl/certs/ca-certificates.crt").read_bytes()
        (self.top / "authorities").write_bytes(system + authority.pem)
        (self.top / "hosts").write_text(
            f"127.0.0.1 localhost {HOST}\n127.0.0.2 live.example\n"
            "127.0.0.3 registry.example\n127.0.0.4 mirror.example\n"
        )
        self._server = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "slave"]
            + ["sh", "-euc", _SET_UP, "site", str(self.top), sys.executable, HOST],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline().strip() == "443"
        self.pid = self._server.pid

    def inside(self, *command: str) -> list[str]:
        """The command line that runs `command` inside the site's namespaces."""
        # --root: also where the tests themselves run below a chroot.
        enter = ["nsenter", "--target", str(self._server.pid), "--net", "--mount", "--root"]
        return [*enter, *command]

    def podctl(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run podctl to its end."""
        command = self.inside(PODCTL, *self.options, *arguments)
        return subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=cwd, check=False
        )

    def must(self, *arguments: str) -> str:
        """Run podctl, which has to succeed; return standard output."""
        done = self.podctl(*arguments)
        assert done.returncode == 0, f"podctl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def publish(
        self,
        name: str,
        *,
        version: str = "1",
        app: dict[str, object] | None = None,
        image: Path | None = None,
    ) -> Path:
        """Publish an unsigned image under `name`; return its file.

        Args:
            image: a directory with the image's `rootfs`; None: busybox.
        """
        if image is None:
            image = self._busybox()
        machine = {"x86_64": "amd64"}.get(os.uname().machine, os.uname().machine)
        labels = {"version": version, "os": "linux", "arch": machine}
        manifest = {
            "acKind": "ImageManifest",
            "acVersion": "0.8.11",
            "name": name,
            "labels": [{"name": key, "value": value} for key, value in labels.items()],
            "app": {"exec": ["/bin/true"], "user": "0", "group": "0", **(app or {})},
        }
        (image / "manifest").write_text(json.dumps(manifest))
        target = self.public / f"{name}-{version}-linux-{machine}.aci"
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["tar", "-C", str(image), "-czf", str(target), "manifest", "rootfs"], check=True
        )
        latest = self.public / f"{name}-latest-linux-{machine}.aci"
        for suffix in ("", ".asc"):
            link = Path(f"{latest}{suffix}")
            link.unlink(missing_ok=True)
            link.symlink_to(f"{target}{suffix}")
        return target

    def _busybox(self) -> Path:
        image = self.top / "image"
        shutil.rmtree(image, ignore_errors=True)
        (image / "rootfs/bin").mkdir(parents=True)
        shutil.copy("/bin/busybox", image / "rootfs/bin/busybox")
        for applet in ("sh", "true", "sleep", "echo"):
            (image / "rootfs/bin" / applet).symlink_to("busybox")
        return image

    def forget(self) -> None:
        """Empty store and key store."""
        shutil.rmtree(self.top / "data", ignore_errors=True)
        shutil.rmtree(self.top / "etc/trustedkeys", ignore_errors=True)

    def close(self) -> None:
        """Stop the site; its namespaces go with it."""
        self._server.terminate()
        self._server.wait()
        assert self._server.stdout is not None
        self._server.stdout.close()
        self.keyring.close()
