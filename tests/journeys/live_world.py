"""A second HTTPS host in the site's namespaces, whose answers a test decides."""

from __future__ import annotations

import ctypes
import os
import threading
from typing import TYPE_CHECKING

from podctl.testing.httpserver import Content, Reply, Request, Route, Server, answer, page

if TYPE_CHECKING:
    from site_world import Site

LIVE = "live.example"
ADDRESS = "127.0.0.2"
_CLONE_NEWNET = 0x40000000


def serve(site: Site) -> Server:
    """Start the host; its certificate is good, its pages are `routes` of the server."""
    made: list[Server] = []
    identity = site.authority.issue(LIVE)

    def work() -> None:
        # A network namespace is a property of the thread; the socket keeps it.
        fd = os.open(f"/proc/{site.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            made.append(Server(identity=identity, host=ADDRESS, port=443))
        finally:
            os.close(fd)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return made[0]


class Discovery:
    """A route for every path: discovery pages, and files by path.

    Attributes:
        files: path -> route; changed by tests.
    """

    def __init__(self, *tags: tuple[str, str]) -> None:
        self.tags = tags or (
            ("ac-discovery", f"{LIVE} https://{LIVE}/{{name}}-{{version}}-{{os}}-{{arch}}.{{ext}}"),
        )
        self.files: dict[str, Route] = {}

    def __call__(self, request: Request) -> Reply:
        if request.query.get("ac-discovery") == ["1"]:
            return page(*self.tags)
        route = self.files.get(request.path)
        return Reply(404) if route is None else answer(route, request)

    def add(self, path: str, data: bytes, **settings: object) -> Content:
        """Serve bytes as a careful server does."""
        content = Content(data, **settings)  # type: ignore[arg-type]
        self.files[path] = content
        return content
