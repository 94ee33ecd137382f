"""One HTTP client for small documents and large bodies: redirects, retries, caps, secrets."""

from __future__ import annotations

import random
import time
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import requests  # noqa: TID253 - this module is imported by transport_preload, never at start-up
import urllib3  # noqa: TID253 - as above

from podctl.errors import FetchFailed
from podctl.http import proxies
from podctl.http.credentials import Keyring
from podctl.http.reach import Reach
from podctl.http.retry import Patience, retry_after
from podctl.http.troubles import Interrupted, explain
from podctl.http.urls import Target, follow
from podctl.http.wire import Adapter, Wire, tls_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    from podctl.http.credentials import Authorisation
    from podctl.http.limits import Limits
    from podctl.model.fetching import FetchRequest

REDIRECTS = (301, 302, 303, 307, 308)
#: Answers of a server that may do better in a moment.
PASSING = (429, 500, 502, 503, 504)
#: Read at once: large enough to be cheap, small enough that a broken connection loses little.
CHUNK = 128 << 10
#: An unwanted body up to this size is read, since that costs less than another connection.
_WORTH_READING = 64 << 10


class Answer:
    """The headers of an answer; the body is read from it. Close it, or use it in `with`."""

    def __init__(self, response: requests.Response, target: Target, wire: Wire) -> None:
        self._response = response
        self._wire = wire
        self.target = target
        self.status = response.status_code
        self.headers = response.headers

    def length(self) -> int | None:
        """Content-Length; None where it is absent or no number."""
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as sent: content encodings are not undone.

        Raises:
            Interrupted: it ended early or stopped coming.
        """
        self._wire.pace.expect_body(small=False)
        yield from self._read(CHUNK)

    def small_body(self, limit: int, what: str) -> bytes:
        """Read a body of at most `limit` bytes.

        Raises:
            FetchFailed: it is larger, or encoded though that was not offered.
            Interrupted: see chunks.
        """
        encoding = self.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", ""):
            raise FetchFailed(f"{what} at {self.target.shown} is sent with a content encoding")
        self._wire.pace.expect_body(small=True)
        parts: list[bytes] = []
        size = 0
        if (self.length() or 0) > limit:
            raise FetchFailed(f"{what} at {self.target.shown} is larger than {limit} bytes")
        for data in self._read(min(CHUNK, limit + 1)):
            parts.append(data)
            size += len(data)
            if size > limit:
                raise FetchFailed(f"{what} at {self.target.shown} is larger than {limit} bytes")
        return b"".join(parts)

    def skip_body(self) -> None:
        """Read a body nobody wants, if it is small: its connection can then be used again."""
        length = self.length()
        if length is None or length > _WORTH_READING:
            return
        self._wire.pace.expect_body(small=True)
        with suppress(Interrupted):
            for _ in self._read(CHUNK):
                pass

    def _read(self, chunk: int) -> Iterator[bytes]:
        raw, pace = self._response.raw, self._wire.pace
        missing = None if "Transfer-Encoding" in self.headers else self.length()
        while True:
            try:
                data = raw.read(chunk, decode_content=False)
            except (OSError, urllib3.exceptions.HTTPError) as error:
                raise Interrupted(explain(pace.broken or error, self.target, pace)) from None
            if not data:
                break
            pace.delivered(len(data))
            missing = None if missing is None else missing - len(data)
            yield data
        if pace.broken is not None:
            raise Interrupted(explain(pace.broken, self.target, pace))
        if missing:
            raise Interrupted(f"{self.target.shown}: connection was cut")

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._response.close()


class _Step(NamedTuple):
    """One request as it is sent; redirects make further ones of it.

    Args:
        first: whether the host is the user's choice.
        authorisation: who adds secrets; None: nobody.
    """

    target: Target
    method: str
    headers: dict[str, str]
    body: bytes | None
    first: bool
    authorisation: Authorisation | None


class Client:
    """Talks to servers on behalf of one FetchRequest; use it in `with`.

    Args:
        verify: check servers' certificates; None: unless `tls` is among request.insecure.
        authorisation: adds secrets to requests; None: the request's credentials, by host.
        context: TLS settings in place of `verify` and the request's authorities (see tls_context).
        contexts: TLS settings for single origins, e.g. with a client certificate.
        sleep: waits some seconds between two tries.
    """

    def __init__(
        self,
        request: FetchRequest,
        limits: Limits,
        *,
        verify: bool | None = None,
        authorisation: Authorisation | None = None,
        context: ssl.SSLContext | None = None,
        contexts: Mapping[tuple[str, str, int], ssl.SSLContext] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.request = request
        self.limits = limits
        self.patience = Patience(limits, sleep, random.random)
        self.reach = Reach()
        self.authorisation = authorisation or Keyring(request.credentials)
        self._wire = Wire(limits)
        if context is None:
            verify = "tls" not in request.insecure if verify is None else verify
            context = tls_context(request.ca_file, verify=verify)
        self._session = _session(Adapter(self._wire, context))
        for origin, own in (contexts or {}).items():
            self._session.mount(f"{_prefix(origin)}/", Adapter(self._wire, own))

    def open(
        self, url: Target, *, method: str = "GET", headers: dict[str, str] | None = None,
        body: bytes | None = None, named_by_server: bool = False,
        authorisation: Authorisation | None = None,
    ) -> Answer:  # fmt: skip
        """Send a request; follow redirects, try again where a server may do better in a moment.

        Args:
            body: sent as it is; it may hold a secret, so that no redirect is followed with it.
            named_by_server: the URL is a server's word, not the user's.
            authorisation: who adds secrets to this request, instead of the client's.

        Raises:
            FetchFailed: no answer was to be had. Whatever the final status is, it is returned.
        """
        first = _Step(
            url, method, headers or {}, body, not named_by_server,
            authorisation or self.authorisation,
        )  # fmt: skip
        tries = 0
        while True:
            tries += 1
            try:
                answer = self._follow(first)
            except Interrupted as trouble:
                if tries >= self.limits.attempts:
                    raise FetchFailed(trouble.message) from None
                self.patience.wait(tries, None, trouble.message)
                continue
            if answer.status not in PASSING or tries >= self.limits.attempts:
                return answer
            with answer:
                asked = retry_after(answer.headers.get("Retry-After"), time.time())
            self.patience.wait(tries, asked, bad_status(answer))

    def document(
        self, url: Target, limit: int, what: str, *, method: str = "GET",
        headers: dict[str, str] | None = None, body: bytes | None = None,
        named_by_server: bool = False, authorisation: Authorisation | None = None,
    ) -> tuple[Answer, bytes]:  # fmt: skip
        """Ask for a small document; the answer's body is read for status 200 alone. See `open`.

        Raises:
            FetchFailed: no answer, or the document is larger than `limit` bytes.
        """
        tries = 0
        while True:
            tries += 1
            with self.open(
                url, method=method, headers=headers, body=body,
                named_by_server=named_by_server, authorisation=authorisation,
            ) as answer:  # fmt: skip
                if answer.status != 200:
                    answer.skip_body()
                    return answer, b""
                try:
                    return answer, answer.small_body(limit, what)
                except Interrupted as trouble:
                    if tries >= self.limits.attempts:
                        raise FetchFailed(trouble.message) from None
                    message = trouble.message
            self.patience.wait(tries, None, message)

    def refuse_status(self, answer: Answer) -> FetchFailed:
        """Word the refusal of an answer's status."""
        denied = answer.status in (401, 403)
        hint = self.authorisation.advice(answer.target) if denied else None
        return FetchFailed(bad_status(answer), hint=hint)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._session.close()

    def _follow(self, step: _Step) -> Answer:
        """Follow redirects. Secrets go to the first origin only, never back to it once left."""
        url = step.target
        for _ in range(self.limits.redirects + 1):
            answer = self._authorised(step)
            location = answer.headers.get("Location")
            if answer.status not in REDIRECTS or location is None:
                return answer
            with answer:
                if step.body is not None:
                    raise FetchFailed(f"{step.target.shown} redirects a request with a body")
                following = self._checked(step.target, location)
            stays = following.origin == step.target.origin
            step = step._replace(
                target=following, first=False, authorisation=step.authorisation if stays else None
            )
        raise FetchFailed(f"{url.shown} redirects more than {self.limits.redirects} times")

    def _authorised(self, step: _Step) -> Answer:
        """Send a request; again, with other credentials, while the server's refusals lead to some.

        Only whoever would be sent credentials can ask for them.
        """
        for _ in range(self.limits.challenges):
            answer = self._send(step)
            if answer.status != 401 or step.authorisation is None:
                return answer
            answer.skip_body()
            if not step.authorisation.challenged(answer.target, answer.headers):
                return answer
            with answer:
                pass
        return self._send(step)

    def _checked(self, target: Target, location: str) -> Target:
        try:
            following = follow(target, location)
        except FetchFailed as error:
            raise FetchFailed(f"{target.shown} redirects badly: {error.message}") from None
        if target.scheme == "https" and following.scheme == "http":
            self.allow_plain(following, f"{target.shown} redirects to plain http")
        self.reach.check_host(following.host, first=False)
        return following

    def allow_plain(self, target: Target, what: str) -> None:
        """Raise FetchFailed unless `http` (or, for keys, `pubkey`) was called acceptable."""
        if target.scheme == "http" and not self.request.insecure & {"http"}:
            raise FetchFailed(f"{what}: refused", hint="--insecure-options=http allows it")

    def _send(self, step: _Step) -> Answer:
        target = step.target
        proxy = proxies.proxy_for(target, self.request.proxies)
        if proxy is not None or not step.first:
            self.reach.check_host(target.host, first=step.first)
        headers = {**self._common(), **step.headers}
        if step.authorisation is not None:
            headers |= step.authorisation.headers(step.method, target, step.headers)
        self._wire.reach, self._wire.first = self.reach, step.first
        self._wire.pace.expect_headers()
        prepared = self._session.prepare_request(
            requests.Request(step.method, target.url, headers=headers, data=step.body)
        )
        try:
            # Past Session.send, which would follow redirects and keep cookies: cookies pass between
            # the ports and steps of a host.
            response = self._session.get_adapter(target.url).send(
                prepared,
                stream=True,
                timeout=(self.limits.connect, self.limits.idle),
                proxies={} if proxy is None else {target.scheme: proxy},
            )
        except (OSError, urllib3.exceptions.HTTPError) as error:
            raise Interrupted(explain(error, target, self._wire.pace, proxy)) from None
        return Answer(response, target, self._wire)

    def _common(self) -> dict[str, str]:
        return {
            "User-Agent": self.request.user_agent,
            "Accept": "*/*",
            # The signature is over the bytes as published, and a decoder is one more thing to fool.
            "Accept-Encoding": "identity",
        }


def bad_status(answer: Answer) -> str:
    """rkt's words for a status that is no good, with the URL that answered."""
    return f"{answer.target.shown}: bad HTTP status code: {answer.status}"


def _prefix(origin: tuple[str, str, int]) -> str:
    """The beginning of an origin's URLs."""
    return Target(*origin, path="", query="").url


def _session(adapter: Adapter) -> requests.Session:
    session = requests.Session()
    # No .netrc (CVE-2024-47081), no proxy and no CA bundle from the environment.
    session.trust_env = False
    session.headers.clear()
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    # Unverified TLS is the user's explicit word; it needs no warning per request.
    warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
    return session
