"""Registries in namespaces of their own: names, a trusted authority, and podctl beside them.

Each host of HOSTS has an address that is no loopback one, as registries have. Scriptable registries
(podctl.testing.registry) run in threads of the test process, docker-registry in a process; podctl
and other tools are started inside the namespaces. The host's container configuration is hidden.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from namespaces import in_network_of

from podctl.testing.certs import Authority
from podctl.testing.httpserver import Server

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podctl.testing.certs import Identity
    from podctl.testing.httpserver import Handler

#: host -> address; the first is where scripted registries are.
HOSTS = {
    "registry.example": "192.0.2.1",
    "real.example": "192.0.2.2",
    "tokens.example": "192.0.2.3",
    "mirror.example": "192.0.2.4",
    "evil.example": "192.0.2.5",
}
REGISTRY, REAL = "registry.example", "real.example"
_SET_UP = """
mount --bind "$1/hosts" /etc/hosts
mount --bind "$1/authorities" /etc/ssl/certs/ca-certificates.crt
for place in /etc/containers /etc/docker; do
    if [ -d $place ]; then mount --bind "$1/containers" $place; fi
done
if [ -d /run/containers ]; then mount -t tmpfs none /run/containers; fi
ip link set lo up
for address in $2; do ip address add $address/32 dev lo; done
echo ready
exec cat
"""


class World:
    """The namespaces, and what is in them.

    Attributes:
        hosts: host -> address.
        containers: stands for /etc/containers.
        user_home: the home directory of whoever runs podctl in it.
    """

    def __init__(self, top: Path, hosts: Mapping[str, str] = HOSTS) -> None:
        self.top = top
        self.hosts = hosts
        self.authority = Authority()
        self.containers = top / "containers"
        self.containers.mkdir(parents=True)
        self.user_home = top / "home"
        self.user_home.mkdir()
        system = Path("/etc/ssl/certs/ca-certificates.crt").read_bytes()
        (top / "authorities").write_bytes(system + self.authority.pem)
        lines = [f"{address} {host}" for host, address in hosts.items()]
        (top / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "slave"]
            + ["sh", "-euc", _SET_UP, "world", str(top), " ".join(hosts.values())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"

    @property
    def pid(self) -> int:
        """A process in the namespaces."""
        return self._holder.pid

    def inside(self, *command: str) -> list[str]:
        """The command line that runs `command` in the namespaces, with a home of its own."""
        # --root: also where the tests themselves run below a chroot.
        enter = ["nsenter", "--target", str(self.pid), "--net", "--mount", "--root"]
        return [*enter, "env", "--unset=XDG_RUNTIME_DIR", f"HOME={self.user_home}", *command]

    def serve(
        self,
        handler: Handler,
        host: str = REGISTRY,
        *,
        identity: Identity | None = None,
        port: int | None = None,
        tls: bool = True,
    ) -> Server:
        """Serve everything at a host by one handler; HTTPS by a good certificate by default."""
        if identity is None and tls:
            identity = self.authority.issue(host)
        if port is None:
            port = 80 if identity is None else 443
        routes = {"": handler}
        return in_network_of(
            self.pid,
            lambda: Server(routes, identity=identity, host=self.hosts[host], port=port),
        )

    def close(self) -> None:
        """Let the namespaces go."""
        self._holder.communicate()
