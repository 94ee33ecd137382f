"""A second HTTPS host in the site's namespaces, whose answers a test decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from namespaces import in_network_of

from podctl.testing.httpserver import Content, Reply, Request, Route, Server, answer, page

if TYPE_CHECKING:
    from site_world import Site

LIVE = "live.example"
ADDRESS = "127.0.0.2"


def serve(site: Site) -> Server:
    """Start the host; its certificate is good, its pages are `routes` of the server."""
    identity = site.authority.issue(LIVE)
    return in_network_of(site.pid, lambda: Server(identity=identity, host=ADDRESS, port=443))


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
