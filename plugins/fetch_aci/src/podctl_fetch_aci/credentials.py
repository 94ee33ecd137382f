"""Which secret, if any, goes with a request. Never printed, never sent by plain HTTP."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from podctl.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podctl.model.fetching import Credential
    from podctl_fetch_aci.urls import Target


class Keyring:
    """The `auth` entries of the configuration, looked up by the host they were written for."""

    def __init__(self, credentials: Sequence[Credential]) -> None:
        self._by_domain = {entry.domain.lower(): entry for entry in credentials}

    def headers(self, method: str, target: Target, extra: dict[str, str]) -> dict[str, str]:
        """Return the headers that authenticate one request, `{}` where nothing is configured.

        A domain without a port is the host at https's own port, as in rkt. Plain HTTP gets
        nothing: whoever listens would have the secret.

        Args:
            extra: the request's other headers (a signature covers them).
        """
        credential = self._by_domain.get(target.authority)
        if credential is None or target.scheme != "https":
            return {}
        fields = credential.fields
        if credential.kind == "basic":
            pair = f"{fields['user']}:{fields['password']}".encode()
            return {"Authorization": "Basic " + base64.b64encode(pair).decode()}
        if credential.kind == "oauth":
            return {"Authorization": "Bearer " + fields["token"]}
        if credential.kind == "aws":
            from podctl_fetch_aci.aws import sign

            return sign(method, target, extra, fields)
        raise Refused(f'auth type "{credential.kind}" for {credential.domain} is unknown')

    def knows(self, target: Target) -> bool:
        """Whether a secret is configured for the host (to word a refusal)."""
        return target.authority in self._by_domain
