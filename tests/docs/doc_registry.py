"""The registries of the documents' world: what `registry.example` and `mirror.example` have.

`registry.example` asks for a password and has a certificate of a company's own authority;
`mirror.example` has copies, below `company/`, for everybody.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from namespaces import in_network_of

from podctl.testing.certs import Authority
from podctl.testing.httpserver import Server
from podctl.testing.ociimages import image, index
from podctl.testing.ocilayers import directory, file, layer, symlink
from podctl.testing.registry import Registry
from podctl.testing.registryauth import Basic

if TYPE_CHECKING:
    from site_world import Site

REGISTRY, MIRROR = "registry.example", "mirror.example"
ADDRESS = {REGISTRY: "127.0.0.3", MIRROR: "127.0.0.4"}
USER, PASSWORD = "builder", "correct horse"


def hello() -> object:
    """An image of two layers that says hello."""
    busybox = Path("/bin/busybox").read_bytes()
    program = layer(
        directory("bin"), file("bin/busybox", busybox, mode=0o755), symlink("bin/sh", "busybox")
    )
    words = layer(directory("srv"), file("srv/hello", "Hello from a registry.\n"))
    return index(image(program, words, config={"Cmd": ["/bin/busybox", "cat", "/srv/hello"]}))


def serve_registries(site: Site, files: Path) -> ExitStack:
    """Serve both in the site's network until the stack is closed; put the company's authority into
    `files`."""
    company = Authority("company")
    company.write(files, "company-ca.crt")
    made = hello()
    registry, mirror = Registry(guard=Basic({USER: PASSWORD})), Registry()
    registry.put("team/hello", made, "1.0")  # type: ignore[arg-type]
    mirror.put("company/team/hello", made, "1.0")  # type: ignore[arg-type]
    stack = ExitStack()
    for name, content, authority in (
        (REGISTRY, registry, company),
        (MIRROR, mirror, site.authority),
    ):
        identity = authority.issue(name)
        server = in_network_of(
            site.pid,
            lambda content=content, name=name, identity=identity: Server(
                {"": content}, identity=identity, host=ADDRESS[name], port=443
            ),
        )
        stack.enter_context(server)
    return stack
