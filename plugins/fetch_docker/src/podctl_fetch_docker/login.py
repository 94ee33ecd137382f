"""Who we are, to one registry: anonymous, Basic, or a token of the service that it names.

Distribution's token authentication (distribution docs, spec/auth/token.md and oauth.md). The
service is often another host (auth.docker.io for Docker Hub), and the registry's word alone leads
there; as with docker and containerd it is sent the credentials of the registry, by TLS alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from podctl.errors import FetchFailed, ManifestInvalid
from podctl.http.client import bad_status
from podctl.http.credentials import basic
from podctl.http.urls import Target, parse
from podctl.model import jsontext
from podctl_fetch_docker.challenges import Challenge, parse_challenges

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podctl.http.client import Client
    from podctl_fetch_docker.secret import Secret

#: bytes of a token service's answer, and of a token in it.
MAX_ANSWER = 256 << 10
MAX_TOKEN = 64 << 10
_MAX_SERVICE = 1024
_CLIENT_ID = "podctl"


class Login:
    """An Authorisation (podctl.http.credentials) for pulling from one repository.

    Args:
        host: the registry as the user knows it, for messages.
        repository: the scope of tokens; never what the registry asks for, which may be more.
        secret: None for anonymous.
    """

    def __init__(self, host: str, repository: str, secret: Secret | None) -> None:
        self._host = host
        self._scope = f"repository:{repository}:pull"
        self._secret = secret
        self._client: Client | None = None
        self._authorization = ""
        #: whether that stands for the secret
        self._private = False
        #: requests that were sent with it
        self._uses = 0
        if secret is not None and secret.registry_token:
            self._authorization, self._private = f"Bearer {secret.registry_token}", True

    def use(self, client: Client) -> None:
        """Ask for tokens by this client."""
        self._client = client

    def headers(self, method: str, target: Target, extra: Mapping[str, str]) -> dict[str, str]:
        """See Authorisation. What stands for a secret is not sent by plain HTTP."""
        if not self._authorization or (self._private and target.scheme != "https"):
            return {}
        self._uses += 1
        return {"Authorization": self._authorization}

    def challenged(self, target: Target, headers: Mapping[str, str]) -> bool:
        """See Authorisation. What was got just now and refused is not asked for again."""
        if self._authorization and self._uses <= 1:
            return False
        secret = self._secret if target.scheme == "https" else None
        value = headers.get("WWW-Authenticate")
        found = {} if value is None else _by_scheme(parse_challenges(value, target.shown))
        if "bearer" in found and not (secret is not None and secret.registry_token):
            token = self._token(target, found["bearer"], secret)
            self._authorization = f"Bearer {token}"
        elif "basic" in found and not self._authorization and secret is not None and secret.user:
            self._authorization = basic(secret.user, secret.password)["Authorization"]
        else:
            return False
        self._private = secret is not None
        self._uses = 0
        return True

    def advice(self, target: Target) -> str | None:
        """See Authorisation."""
        if self._secret is None:
            return (
                f"if it is not public, configure credentials for {self._host} "
                "(kind dockerAuth, or podman login)"
            )
        if target.scheme != "https":
            return f"credentials are not sent by plain http, and {self._host} has no other"
        return f"the credentials for {self._host} in {self._secret.source} were not accepted"

    def _token(self, target: Target, challenge: Challenge, secret: Secret | None) -> str:
        """Get a token from the service a challenge names.

        Raises:
            FetchFailed: the service may not be asked, or gives none.
        """
        realm = self._realm(target, challenge, secret)
        asked = {"service": challenge.parameters.get("service", ""), "scope": self._scope}
        if len(asked["service"]) > _MAX_SERVICE:
            raise FetchFailed(f"{target.shown}: the service it names is over {_MAX_SERVICE} bytes")
        if secret is not None and secret.identity_token:
            more = {"client_id": _CLIENT_ID, "refresh_token": secret.identity_token}
            form = {"grant_type": "refresh_token", **asked, **more}
            return self._ask(realm, None, urlencode(form).encode())
        if secret is not None:
            asked["account"] = secret.user
        query = urlencode({k: v for k, v in asked.items() if v}, quote_via=quote, safe="")
        whole = "&".join(filter(None, (realm.query, query)))
        return self._ask(realm._replace(query=whole), secret)

    def _realm(self, target: Target, challenge: Challenge, secret: Secret | None) -> Target:
        assert self._client is not None
        try:
            realm = parse(challenge.parameters.get("realm", ""))
        except FetchFailed as error:
            raise FetchFailed(
                f"{target.shown} names a bad token service: {error.message}"
            ) from None
        self._client.allow_plain(realm, f"{target.shown} names a token service by plain http")
        if realm.scheme != "https" and secret is not None:
            raise FetchFailed(
                f"{target.shown} names a token service by plain http: credentials are not sent",
                hint=f"remove the credentials for {self._host}, or give the service a certificate",
            )
        return realm

    def _ask(self, url: Target, secret: Secret | None, form: bytes | None = None) -> str:
        assert self._client is not None
        answer, data = self._client.document(
            url,
            MAX_ANSWER,
            "token",
            method="GET" if form is None else "POST",
            headers={} if form is None else {"Content-Type": "application/x-www-form-urlencoded"},
            body=form,
            named_by_server=True,
            authorisation=_Account(url, secret, self._host),
        )
        if answer.status != 200:
            raise FetchFailed(
                bad_status(answer), hint=_Account(url, self._secret, self._host).advice(url)
            )
        return _token_in(data, url)


class _Account:
    """Basic for a token service, sent at once (token.md has it so)."""

    def __init__(self, realm: Target, secret: Secret | None, host: str) -> None:
        self._realm = realm
        self._secret = secret
        self._host = host

    def headers(self, method: str, target: Target, extra: Mapping[str, str]) -> dict[str, str]:
        if self._secret is None or not self._secret.user or target.origin != self._realm.origin:
            return {}
        return basic(self._secret.user, self._secret.password)

    def challenged(self, target: Target, headers: Mapping[str, str]) -> bool:
        return False

    def advice(self, target: Target) -> str | None:
        if self._secret is None:
            return f"the image is not public, or the login for {self._host} is not valid any more"
        return f"the credentials for {self._host} in {self._secret.source} were not accepted"


def _by_scheme(challenges: list[Challenge]) -> dict[str, Challenge]:
    """The first challenge of each scheme."""
    return {challenge.scheme: challenge for challenge in reversed(challenges)}


def _token_in(data: bytes, realm: Target) -> str:
    """Read a token service's answer.

    Raises:
        FetchFailed: it is malformed, or what it holds is fit for no header.
    """
    try:
        value = jsontext.loads(data, what="answer", max_bytes=MAX_ANSWER)
    except ManifestInvalid:
        raise FetchFailed(f"{realm.shown}: answer of the token service is no JSON") from None
    token = None
    if isinstance(value, dict):
        token = value.get("token") or value.get("access_token")
    if not isinstance(token, str) or not token:
        raise FetchFailed(f"{realm.shown}: answer of the token service holds no token")
    if len(token) > MAX_TOKEN or not all("!" <= char <= "~" for char in token):
        raise FetchFailed(f"{realm.shown}: token service gives a token no header can hold")
    return token
