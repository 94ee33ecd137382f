"""Which secret, if any, goes with a request. Never printed, never sent by plain HTTP."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Protocol

from podctl.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podctl.http.urls import Target
    from podctl.model.fetching import Credential


class Authorisation(Protocol):
    """Adds secrets to requests: asked for each one, never for what a redirect led elsewhere."""

    def headers(self, method: str, target: Target, extra: Mapping[str, str]) -> dict[str, str]:
        """Return the headers that authenticate one request, `{}` for none.

        Args:
            extra: the request's other headers (a signature covers them).
        """

    def challenged(self, target: Target, headers: Mapping[str, str]) -> bool:
        """The server answered 401 with these headers: whether to send the request once more,
        with what `headers` returns now."""

    def advice(self, target: Target) -> str | None:
        """Return a hint for whoever was refused (401, 403)."""


class Nobody:
    """The Authorisation of who has no secrets, or is to send none."""

    def headers(self, method: str, target: Target, extra: Mapping[str, str]) -> dict[str, str]:
        """See Authorisation."""
        return {}

    def challenged(self, target: Target, headers: Mapping[str, str]) -> bool:
        """See Authorisation."""
        return False

    def advice(self, target: Target) -> str | None:
        """See Authorisation."""
        return None


class Keyring:
    """The `auth` entries of the configuration, looked up by the host they were written for."""

    def __init__(self, credentials: Sequence[Credential]) -> None:
        self._by_domain = {entry.domain.lower(): entry for entry in credentials}

    def headers(self, method: str, target: Target, extra: Mapping[str, str]) -> dict[str, str]:
        """See Authorisation.

        A domain without a port is the host at https's own port, as in rkt. Plain HTTP gets
        nothing: whoever listens would have the secret.
        """
        credential = self._by_domain.get(target.authority)
        if credential is None or target.scheme != "https":
            return {}
        fields = credential.fields
        if credential.kind == "basic":
            return basic(fields["user"], fields["password"])
        if credential.kind == "oauth":
            return {"Authorization": "Bearer " + fields["token"]}
        if credential.kind == "aws":
            from podctl.http.aws import sign

            return sign(method, target, extra, fields)
        raise Refused(f'auth type "{credential.kind}" for {credential.domain} is unknown')

    def challenged(self, target: Target, headers: Mapping[str, str]) -> bool:
        """See Authorisation: there is nothing else to offer."""
        return False

    def advice(self, target: Target) -> str | None:
        """See Authorisation."""
        host = target.authority
        if host in self._by_domain:
            return f"the credentials configured for {host} were not accepted"
        return f"configure credentials for {host} (kind auth)"


def basic(user: str, password: str) -> dict[str, str]:
    """Return the header of Basic authentication (RFC 7617), in UTF-8."""
    pair = f"{user}:{password}".encode()
    return {"Authorization": "Basic " + base64.b64encode(pair).decode()}
