"""What went wrong on the wire, in words; told apart by whether another try may help."""

from __future__ import annotations

import errno
import ssl
from typing import TYPE_CHECKING

import urllib3  # noqa: TID253 - this module is imported by transport_preload, never at start-up

from podctl.errors import FetchFailed
from podctl.http.proxies import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podctl.http.pace import Pace
    from podctl.http.urls import Target

#: Nobody listens there, or there is no way: asking again at once is no use.
_FINAL = (
    errno.ECONNREFUSED,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.ETIMEDOUT,
    errno.EACCES,
    errno.EPERM,
)


class Interrupted(Exception):
    """An answer did not come, or broke off; another try may help."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def explain(error: BaseException, target: Target, pace: Pace, proxy: str | None = None) -> str:
    """Say what happened to a request, in our own words: library messages may quote headers,
    proxies with passwords, or whole URLs.

    Raises:
        FetchFailed: another try cannot help.
    """
    where = target.shown
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise FetchFailed(
                f"{where}: TLS certificate is not valid: {cause.verify_message}",
                hint="--insecure-options=tls switches the check off",
            ) from None
    if proxy is not None and any(isinstance(c, urllib3.exceptions.ProxyError) for c in causes):
        raise FetchFailed(f"{where}: proxy {shown(proxy)} did not connect us") from None
    if pace.reason is not None:
        return f"{where}: {pace.reason}"
    for cause in causes:
        if isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return f"{where}: connection was cut"
        if isinstance(cause, ssl.SSLError):
            reason = (cause.reason or "failure").lower().replace("_", " ")
            raise FetchFailed(f"{where}: TLS failed: {reason}") from None
        if isinstance(cause, OSError) and cause.errno in _FINAL:
            raise FetchFailed(f"{where}: {cause.strerror}") from None
        if isinstance(cause, TimeoutError):
            # Reads keep the pace and have been dealt with; this is the connection or its TLS.
            raise FetchFailed(f"{where}: timed out while connecting") from None
        if isinstance(cause, urllib3.exceptions.IncompleteRead):
            return f"{where}: connection was cut"
        if isinstance(cause, OSError) and cause.errno and cause.strerror:
            return f"{where}: {cause.strerror}"
    return f"{where}: connection was cut or the answer is no HTTP"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all it stems from: libraries wrap one another in arguments and contexts."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]
