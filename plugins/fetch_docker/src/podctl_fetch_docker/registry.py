"""One repository of one registry, over one conversation (OCI distribution-spec 1.1).

Nothing here believes a registry: documents are taken by their digest, or, asked for by tag, get
one that is pinned from then on.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import FetchFailed, InvalidInput
from podctl.http.client import Client
from podctl.http.credentials import Nobody
from podctl.http.download import download
from podctl.http.urls import follow, parse
from podctl.model.imagedocument import MAX_PART
from podctl_fetch_docker.descriptors import check_digest, has_digest
from podctl_fetch_docker.login import Login
from podctl_fetch_docker.mediatypes import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    bare,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podctl.http.client import Answer
    from podctl.http.limits import Limits
    from podctl.model.fetching import Downloaded, FetchRequest, Resume, Sink
    from podctl_fetch_docker.endpoints import Endpoint

#: In the order of docker and containerd; schema 1 is not among them.
ACCEPT = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))
#: There is no such document.
ABSENT = (404, 410)


class Served(NamedTuple):
    """A document, as a registry served it: its digest is that of its bytes."""

    data: bytes
    content_type: str | None
    digest: str


class Repository:
    """See the module. Made by `converse`.

    Args:
        base: `https://HOST/v2/REPOSITORY`, found by an earlier conversation.
    """

    def __init__(self, client: Client, endpoint: Endpoint, base: str | None = None) -> None:
        self._client = client
        self._endpoint = endpoint
        self._base = base

    @property
    def base(self) -> str:
        """The repository's URL: by https; by http where that is allowed and https not spoken.

        Raises:
            FetchFailed: neither is.
        """
        if self._base is None:
            url = f"{self._scheme()}://{self._endpoint.host}/v2/{self._endpoint.repository}"
            self._base = parse(url).url
        return self._base

    def _scheme(self) -> str:
        if "http" not in self._client.request.insecure:
            return "https"
        try:
            self._greet("https")
        except FetchFailed as error:
            try:
                self._greet("http")
            except FetchFailed as other:
                raise FetchFailed(f"{error.message}; {other.message}", hint=error.hint) from None
            return "http"
        return "https"

    def _greet(self, scheme: str) -> None:
        """Ask for what every registry answers, if only by 401; no secret is sent."""
        target = parse(f"{scheme}://{self._endpoint.host}/v2/")
        with self._client.open(target, authorisation=Nobody()) as answer:
            answer.skip_body()

    def manifest(self, reference: str, accept: str = ACCEPT) -> Served | None:
        """GET a manifest or index by tag or digest, both of which must have been checked.

        Returns:
            None: there is none.

        Raises:
            FetchFailed: no answer, or the bytes have another digest than asked for, or stated.
        """
        answer, data = self._document(f"manifests/{reference}", MAX_PART, "manifest", accept)
        if answer.status in ABSENT:
            return None
        if answer.status != 200:
            raise self._client.refuse_status(answer)
        return _pinned(answer, data, reference if ":" in reference else None)

    def digest(self, tag: str) -> str | None:
        """HEAD: the digest the registry says a tag has now; None where it does not say so."""
        try:
            target = parse(f"{self.base}/manifests/{tag}")
            answer = self._client.open(target, method="HEAD", headers={"Accept": ACCEPT})
        except FetchFailed:
            # What is wrong with it, the GET that follows will say.
            return None
        with answer:
            stated = answer.headers.get("Docker-Content-Digest", "")
            return stated if answer.status == 200 and _is_digest(stated) else None

    def blob(self, digest: str, size: int, what: str) -> bytes | None:
        """GET a small blob; None where there is none.

        Raises:
            FetchFailed: no answer, or other bytes than those.
        """
        answer, data = self._document(f"blobs/{check_digest(digest)}", size, what)
        if answer.status in ABSENT:
            return None
        if answer.status != 200:
            raise self._client.refuse_status(answer)
        if len(data) != size or not has_digest(data, digest):
            raise FetchFailed(f"{answer.target.shown}: bytes are not those of the digest")
        return data

    def referrers(self, digest: str, query: str = "") -> tuple[Served | None, str]:
        """GET one page of what refers to a manifest: an index, and the query of the next page.

        None in place of the index: the registry does not know the question. Registries have many
        ways to say so.
        """
        path = f"referrers/{check_digest(digest)}" + (f"?{query}" if query else "")
        answer, data = self._document(path, MAX_PART, "list of referrers", OCI_INDEX)
        if answer.status != 200 or bare(answer.headers.get("Content-Type", "")) != OCI_INDEX:
            return None, ""
        return _pinned(answer, data, None), _next_page(answer)

    def download(
        self, digest: str, size: int, resume: Resume | None, sink: Sink, what: str
    ) -> Downloaded:
        """Stream a blob. Its receiver checks the digest.

        Raises:
            FetchFailed: it is not there, has another size, or breaks off for good.
        """
        target = parse(f"{self.base}/blobs/{check_digest(digest)}")
        return download(self._client, target, resume, sink, what=what, size=size)

    def _document(
        self, path: str, limit: int, what: str, accept: str = "*/*"
    ) -> tuple[Answer, bytes]:
        target = parse(f"{self.base}/{path}")
        return self._client.document(target, limit, what, headers={"Accept": accept})


@contextmanager
def converse(
    endpoint: Endpoint, request: FetchRequest, limits: Limits, base: str | None = None
) -> Iterator[Repository]:
    """Talk to a repository at one endpoint.

    Args:
        base: its URL, where an earlier conversation has found it out.
    """
    login = Login(endpoint.host, endpoint.repository, endpoint.secret)
    if endpoint.insecure:
        request = replace(request, insecure=request.insecure | {"http", "tls"})
    client = Client(
        request,
        limits,
        authorisation=login,
        context=endpoint.context,
        contexts=endpoint.contexts(),
    )
    login.use(client)
    with client:
        if base is not None:
            # It comes from a child that had read bytes from outside.
            client.allow_plain(parse(base), f"{endpoint.host} by plain http")
        yield Repository(client, endpoint, base)


def _pinned(answer: Answer, data: bytes, digest: str | None) -> Served:
    """Give a document the digest of its bytes, which must be that asked for, and that stated.

    Raises:
        FetchFailed: it is not.
    """
    stated = answer.headers.get("Docker-Content-Digest")
    if digest is None and stated is not None and _is_digest(stated):
        digest = stated
    if digest is None:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    elif not has_digest(data, digest):
        raise FetchFailed(f"{answer.target.shown}: bytes are not those of {digest}")
    return Served(data, answer.headers.get("Content-Type"), digest)


def _is_digest(text: str) -> bool:
    try:
        check_digest(text)
    except InvalidInput:
        return False
    return True


def _next_page(answer: Answer) -> str:
    """The query of the next page (RFC 8288 Link, distribution-spec "Listing Referrers"); empty
    where there is none. Only the query is taken: the page is asked of the same registry."""
    link = answer.headers.get("Link", "")
    url, _, parameters = link.strip().partition(">")
    if not url.startswith("<") or 'rel="next"' not in parameters:
        return ""
    try:
        return follow(answer.target, url[1:]).query
    except FetchFailed:
        return ""
