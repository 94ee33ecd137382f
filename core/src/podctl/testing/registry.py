"""A registry (OCI distribution-spec 1.1) of values in memory that misbehaves on demand.

    registry = Registry()
    registry.put("library/app", image(layer(file("hello"))), "1.0")
    registry.spoil("blob", first(2, reset_at(0.5)))
    with registry.serve(authority.issue("127.0.0.1")) as server:
        ... f"docker://127.0.0.1:{server.port}/library/app:1.0" ...
    assert registry.asked("blob")[0].request.header("Authorization") is None

It answers honestly what was put into it; faults (podctl.testing.registryfaults) stand between it
and the client and may change any answer. Who may ask is decided by a guard
(podctl.testing.registryauth). Reading alone is possible: a test fills it by value. By itself it
serves OCI layouts: `python -m podctl.testing.registry library/app=DIRECTORY`.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from podctl.testing.httpserver import Content, Handler, Reply, Request, Server
from podctl.testing.ociimages import OCI, Document, blobs_of, documents_of, top_of
from podctl.testing.ocilayers import digest_of

if TYPE_CHECKING:
    from pathlib import Path

    from podctl.testing.certs import Identity
    from podctl.testing.ociimages import Image, Index

#: What a fault is: given a request and the way to the honest answer, it answers.
Fault = Callable[[Request, Handler], Reply]

_NAME = r"(?P<repository>[a-z0-9._/-]+)"
_PLACES = {
    "base": re.compile(r"/v2/?"),
    "manifest": re.compile(rf"/v2/{_NAME}/manifests/(?P<name>[^/]+)"),
    "blob": re.compile(rf"/v2/{_NAME}/blobs/(?P<name>[^/]+)"),
    "referrers": re.compile(rf"/v2/{_NAME}/referrers/(?P<name>[^/]+)"),
    "tags": re.compile(rf"/v2/{_NAME}/tags/(?P<name>list)"),
    "token": re.compile(r"/token"),
}


class Place(NamedTuple):
    """What a path of a registry leads to.

    Args:
        kind: `base`, `manifest`, `blob`, `referrers`, `tags`, `token` or `other`.
        repository: empty where there is none.
        name: tag or digest.
    """

    kind: str
    repository: str = ""
    name: str = ""


class Visit(NamedTuple):
    """One request, what it was for and how it was answered.

    Args:
        status: of the answer as it was meant; it may have been spoilt on the wire.
    """

    request: Request
    place: Place
    status: int

    @property
    def start(self) -> int:
        """The first byte that was asked for."""
        wanted = self.request.header("Range")
        return int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0


class Guard(Protocol):
    """Decides who may ask (podctl.testing.registryauth)."""

    def refusal(self, request: Request, place: Place) -> Reply | None:
        """The answer to who may not; None lets the request pass."""

    def token(self, request: Request) -> Reply:
        """Answer a request for a token."""


@dataclass(slots=True)
class Repository:
    """What lies under one name.

    Attributes:
        manifests: digest -> document.
        tags: tag -> digest.
        blobs: digest -> bytes; the key need not be theirs.
        referrers: digest -> descriptors of what refers to it.
    """

    manifests: dict[str, Document] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    referrers: dict[str, list[dict[str, object]]] = field(default_factory=dict)


class _Spoilt(NamedTuple):
    kind: str
    repository: str | None
    name: str | None
    fault: Fault

    def covers(self, place: Place) -> bool:
        return (
            self.kind in ("any", place.kind)
            and self.repository in (None, place.repository)
            and self.name in (None, place.name)
        )


class Registry:
    """A registry's content and conduct; a route of podctl.testing.httpserver.

    Args:
        guard: who may ask; None: everybody.
        referrers_api: whether it knows the referrers API, or answers 404 as older ones do.

    Attributes:
        repositories: name -> content; tests may change all of it at any time.
        log: every request in the order of arrival.
    """

    def __init__(self, *, guard: Guard | None = None, referrers_api: bool = True) -> None:
        self.guard = guard
        self.referrers_api = referrers_api
        self.repositories: dict[str, Repository] = {}
        self.log: list[Visit] = []
        self._spoilt: list[_Spoilt] = []
        self._lock = threading.Lock()

    def put(self, repository: str, made: Image | Index, *tags: str) -> str:
        """Publish an image or an index with all it leads to; return its digest."""
        place = self.at(repository)
        place.blobs.update(blobs_of(made))
        for one in documents_of(made):
            place.manifests[one.digest] = one
        return self.put_document(repository, top_of(made), *tags)

    def put_layout(self, repository: str, directory: Path) -> None:
        """Publish all that is in an OCI image layout, under the tags it has there."""
        top = json.loads((directory / "index.json").read_text())
        place = self.at(repository)
        for path in (directory / "blobs" / "sha256").iterdir():
            place.blobs[f"sha256:{path.name}"] = path.read_bytes()
        pending = list(top["manifests"])
        while pending:
            entry = pending.pop()
            one = Document(entry["mediaType"], place.blobs[entry["digest"]])
            tag = entry.get("annotations", {}).get("org.opencontainers.image.ref.name")
            self.put_document(repository, one, *([tag] if tag else []))
            pending += one.value.get("manifests", [])

    def put_document(self, repository: str, one: Document, *tags: str) -> str:
        """Publish one manifest or index alone; return its digest."""
        place = self.at(repository)
        place.manifests[one.digest] = one
        for tag in tags:
            place.tags[tag] = one.digest
        return one.digest

    def put_blob(self, repository: str, data: bytes, digest: str | None = None) -> str:
        """Publish bytes, under a digest that is not theirs if one is given; return it."""
        name = digest_of(data) if digest is None else digest
        self.at(repository).blobs[name] = data
        return name

    def refer(self, repository: str, subject: str, one: Document, **fields: object) -> str:
        """Publish a manifest as a referrer of `subject` (a digest); return its digest.

        Args:
            fields: members of its descriptor, such as artifactType and annotations.
        """
        digest = self.put_document(repository, one)
        listed = self.at(repository).referrers.setdefault(subject, [])
        listed.append(one.descriptor(**fields))
        return digest

    def at(self, repository: str) -> Repository:
        """The content under a name, empty at first."""
        return self.repositories.setdefault(repository, Repository())

    def spoil(
        self, kind: str, fault: Fault, *, repository: str | None = None, name: str | None = None
    ) -> None:
        """Put a fault before every answer of a kind; the last one put is the outermost.

        Args:
            kind: a kind of Place, or `any`.
            name: only for this tag or digest.
        """
        self._spoilt.append(_Spoilt(kind, repository, name, fault))

    def mend(self) -> None:
        """Take all faults away."""
        self._spoilt.clear()

    def asked(self, kind: str, name: str | None = None) -> list[Visit]:
        """The requests of a kind so far, in order."""
        return [
            visit
            for visit in list(self.log)
            if visit.place.kind == kind and name in (None, visit.place.name)
        ]

    def serve(self, identity: Identity | None, *, host: str = "127.0.0.1", port: int = 0) -> Server:
        """Start a server of this registry; plain HTTP without a certificate."""
        return Server({"": self}, identity=identity, host=host, port=port)

    def __call__(self, request: Request) -> Reply:
        """Answer one request."""
        place = place_of(request.path)
        handler: Handler = self._guarded
        for one in list(self._spoilt):
            if one.covers(place):
                handler = _behind(one.fault, handler)
        # Logged on arrival: a test may look while the answer is still held back.
        with self._lock:
            position = len(self.log)
            self.log.append(Visit(request, place, 0))
        reply = handler(request)
        self.log[position] = Visit(request, place, reply.status)
        return reply

    def _guarded(self, request: Request) -> Reply:
        place = place_of(request.path)
        if self.guard is not None:
            if place.kind == "token":
                return self.guard.token(request)
            refusal = self.guard.refusal(request, place)
            if refusal is not None:
                return refusal
        return self._honest(request, place)

    def _honest(self, request: Request, place: Place) -> Reply:
        if request.method not in ("GET", "HEAD"):
            return problem(405, "UNSUPPORTED")
        if place.kind == "base":
            return Reply(200, {"Docker-Distribution-Api-Version": "registry/2.0"}, b"{}")
        content = self.repositories.get(place.repository)
        if place.kind in ("other", "token") or content is None:
            return problem(404, "NAME_UNKNOWN")
        return getattr(self, f"_{place.kind}")(request, place, content)  # type: ignore[no-any-return]

    def _manifest(self, request: Request, place: Place, content: Repository) -> Reply:
        one = content.manifests.get(content.tags.get(place.name, place.name))
        if one is None:
            return problem(404, "MANIFEST_UNKNOWN")
        headers = {"Content-Type": one.media_type, "Docker-Content-Digest": one.digest}
        return Reply(200, {**headers, "ETag": f'"{one.digest}"'}, one.data)

    def _blob(self, request: Request, place: Place, content: Repository) -> Reply:
        data = content.blobs.get(place.name)
        if data is None:
            return problem(404, "BLOB_UNKNOWN")
        reply = Content(data, etag=f'"{place.name}"')(request)
        headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": place.name}
        reply.headers = {**reply.headers, **headers}
        return reply

    def _referrers(self, request: Request, place: Place, content: Repository) -> Reply:
        if not self.referrers_api:
            return problem(404, "NOT_FOUND")
        listed = content.referrers.get(place.name, [])
        value = {"schemaVersion": 2, "mediaType": OCI.index, "manifests": listed}
        return Reply(200, {"Content-Type": OCI.index}, json.dumps(value).encode())

    def _tags(self, request: Request, place: Place, content: Repository) -> Reply:
        value = {"name": place.repository, "tags": sorted(content.tags)}
        return Reply(200, {"Content-Type": "application/json"}, json.dumps(value).encode())


def place_of(path: str) -> Place:
    """Read a path as a registry does."""
    for kind, pattern in _PLACES.items():
        found = pattern.fullmatch(path)
        if found:
            return Place(kind, **found.groupdict())
    return Place("other")


def problem(status: int, code: str, message: str = "") -> Reply:
    """An error as the distribution specification writes it."""
    value = {"errors": [{"code": code, "message": message or code.replace("_", " ").lower()}]}
    return Reply(status, {"Content-Type": "application/json"}, json.dumps(value).encode())


def main(arguments: list[str] | None = None) -> None:
    """Serve OCI layouts by plain HTTP until killed; prints the port once it is open."""
    import argparse
    import time
    from pathlib import Path

    parser = argparse.ArgumentParser(prog="python -m podctl.testing.registry")
    parser.add_argument("layouts", nargs="+", metavar="REPOSITORY=DIRECTORY")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args(arguments)
    registry = Registry()
    for word in options.layouts:
        repository, _, directory = word.partition("=")
        registry.put_layout(repository, Path(directory))
    with registry.serve(None, port=options.port) as server:
        print(server.port, flush=True)
        while True:
            time.sleep(3600)


def _behind(fault: Fault, handler: Handler) -> Handler:
    return lambda request: fault(request, handler)


if __name__ == "__main__":
    main()
