"""Debian's docker-registry with TLS and htpasswd, and the tools that fill it.

    with DockerRegistry(directory, authority, "registry.example", prefix=inside) as registry:
        registry.push(f"oci:{layout}:tag", "library/app:1.0")
        ... f"docker://{registry.name}/library/app:1.0" ...

The registry is a process of its own, and so is each tool (`skopeo`); `prefix` runs them elsewhere,
such as in other namespaces. Nothing of the host's configuration is read.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from podctl.testing.certs import Authority

USER, PASSWORD = "alice", "correct-horse"
#: bcrypt of the password above, as `htpasswd -nB alice` makes it.
_HTPASSWD = f"{USER}:$2y$05$kGKBDn0BeNjN/MFDX65hFOSuqWHy5WBn1UKYP.K3VePy5BnzlajOe\n"


class DockerRegistry:
    """A running docker-registry.

    Args:
        directory: a scratch directory; the registry's content lies in it.
        host: its name in certificate and references; it must resolve to `address`.
        protected: whether USER and PASSWORD are asked for.
        prefix: words before each command.

    Attributes:
        name: how references begin: the host, with its port unless it is 443.
    """

    def __init__(
        self,
        directory: Path,
        authority: Authority,
        host: str,
        *,
        address: str = "127.0.0.1",
        port: int = 443,
        protected: bool = True,
        prefix: Sequence[str] = (),
    ) -> None:
        self.name = host if port == 443 else f"{host}:{port}"
        self.directory = directory
        self.protected = protected
        self._prefix = list(prefix)
        directory.mkdir(parents=True, exist_ok=True)
        self._certs = directory / "certs"
        self._certs.mkdir()
        authority.write(self._certs, "ca.crt")
        certificate, key = authority.issue(host, address).write(directory, "registry")
        (directory / "htpasswd").write_text(_HTPASSWD)
        value = {
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(directory / "content")}},
            "http": {
                "addr": f"{address}:{port}",
                "tls": {"certificate": certificate, "key": key},
            },
        }
        if protected:
            access = {"realm": "test", "path": str(directory / "htpasswd")}
            value["auth"] = {"htpasswd": access}
        # JSON is YAML.
        configuration = directory / "config.yml"
        configuration.write_text(json.dumps(value))
        self._start([*self._prefix, "docker-registry", "serve", str(configuration)])

    def _start(self, command: list[str]) -> None:
        # A file, not a pipe: what nobody reads would stop the registry once the pipe is full.
        log = self.directory / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        follow = ["tail", "--follow", "--lines=+1", f"--pid={self._process.pid}", str(log)]
        with subprocess.Popen(follow, stdout=subprocess.PIPE, text=True) as lines:
            assert lines.stdout is not None
            listening = any("listening on" in line for line in lines.stdout)
            lines.kill()
        if not listening:
            raise RuntimeError(f"docker-registry: {log.read_text()}")

    def push(self, source: str, target: str, *options: str) -> None:
        """Copy an image into the registry with skopeo.

        Args:
            source: as skopeo writes it, e.g. `oci:DIRECTORY:TAG`.
            target: `repository:tag`.
        """
        words = ["skopeo", "copy", "--quiet", "--insecure-policy", *options]
        words += [f"--dest-cert-dir={self._certs}"]
        if self.protected:
            words += [f"--dest-creds={USER}:{PASSWORD}"]
        self.run(*words, source, f"docker://{self.name}/{target}")

    def run(self, *command: str) -> bytes:
        """Run a tool where the registry is; return its output.

        Raises:
            RuntimeError: it failed; with what it said.
        """
        done = subprocess.run([*self._prefix, *command], capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stderr.decode()}")
        return done.stdout

    def close(self) -> None:
        """End the registry."""
        self._process.terminate()
        self._process.wait()

    def __enter__(self) -> DockerRegistry:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
