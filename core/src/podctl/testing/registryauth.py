"""Who may ask a test registry: Basic, Bearer tokens, and challenges that are traps."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs

from podctl.testing.httpserver import Reply, Request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podctl.testing.registry import Place


class Basic(NamedTuple):
    """HTTP Basic: users -> passwords."""

    users: Mapping[str, str]

    def refusal(self, request: Request, place: Place) -> Reply | None:
        """See podctl.testing.registry.Guard."""
        if basic_user(request, self.users) is not None:
            return None
        return challenge('Basic realm="registry"')

    def token(self, request: Request) -> Reply:
        """There are none."""
        return Reply(404)


class Challenge(NamedTuple):
    """401 with one WWW-Authenticate header for ever, whatever is sent (rows R1, R3)."""

    header: str

    def refusal(self, request: Request, place: Place) -> Reply | None:
        """See podctl.testing.registry.Guard."""
        return challenge(self.header)

    def token(self, request: Request) -> Reply:
        """A token that will not help."""
        return _json({"token": "useless"})


@dataclass(slots=True)
class Tokens:
    """Bearer tokens of the distribution specification.

    Args:
        realm: URL of the token service; it may be on another server (`service`).
        users: user -> password of those who get one; empty: everybody.
        refresh_tokens: identity tokens that are taken by POST (OAuth 2).
        uses: requests a token is good for; None: any number.
        field_name: `token` or `access_token`.

    Attributes:
        issued: token -> scopes it was issued for.
        asked: the requests for tokens.
    """

    realm: str
    users: Mapping[str, str] = field(default_factory=dict)
    refresh_tokens: tuple[str, ...] = ()
    uses: int | None = None
    service_name: str = "registry.test"
    field_name: str = "token"
    issued: dict[str, list[str]] = field(default_factory=dict)
    asked: list[Request] = field(default_factory=list)
    _used: dict[str, int] = field(default_factory=dict)

    def refusal(self, request: Request, place: Place) -> Reply | None:
        """See podctl.testing.registry.Guard."""
        scope = f"repository:{place.repository}:pull" if place.repository else ""
        scheme, _, token = (request.header("Authorization") or "").partition(" ")
        if scheme == "Bearer" and self._good(token, scope):
            return None
        words = f'Bearer realm="{self.realm}",service="{self.service_name}"'
        if scope:
            words += f',scope="{scope}"'
        return challenge(f'{words},error="invalid_token"' if token else words)

    def token(self, request: Request) -> Reply:
        """Answer a request for a token, GET or POST."""
        self.asked.append(request)
        form = parse_qs(request.body.decode()) if request.method == "POST" else request.query
        known = not self.users or basic_user(request, self.users) is not None
        if request.method == "POST":
            known = form.get("refresh_token", [""])[0] in self.refresh_tokens
        if not known:
            return challenge('Basic realm="tokens"')
        token = secrets.token_urlsafe(24)
        self.issued[token] = form.get("scope", [])
        return _json({self.field_name: token, "expires_in": 300})

    def service(self, request: Request) -> Reply:
        """The token service as a route of another server."""
        return self.token(request)

    def expire(self) -> None:
        """Take no token issued so far any more."""
        self.issued.clear()

    def _good(self, token: str, scope: str) -> bool:
        if token not in self.issued or (scope and scope not in self.issued[token]):
            return False
        self._used[token] = self._used.get(token, 0) + 1
        return self.uses is None or self._used[token] <= self.uses


def challenge(header: str) -> Reply:
    """401 with a WWW-Authenticate header."""
    body = b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}'
    headers = {"WWW-Authenticate": header, "Content-Type": "application/json"}
    return Reply(401, headers, body)


def basic_user(request: Request, users: Mapping[str, str]) -> str | None:
    """The user a request's Basic credentials are right for."""
    scheme, _, word = (request.header("Authorization") or "").partition(" ")
    if scheme != "Basic":
        return None
    user, _, password = base64.b64decode(word).decode().partition(":")
    return user if users.get(user) == password else None


def _json(value: object) -> Reply:
    return Reply(200, {"Content-Type": "application/json"}, json.dumps(value).encode())
