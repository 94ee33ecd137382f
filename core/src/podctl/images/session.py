"""What every step of getting an image shares: where it goes, who is trusted, what is allowed."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from podctl.images.transfer import Progress
    from podctl.model.fetching import Credential, FetchRequest
    from podctl.store import Store
    from podctl.trust.keystore import KeyStore

#: The variables whose proxies are honoured; the scheme is the key a transport looks up.
PROXY_VARIABLES = {
    "http": ("http_proxy",),
    "https": ("https_proxy", "HTTPS_PROXY"),
    "no_proxy": ("no_proxy", "NO_PROXY"),
}


class FetchSession(NamedTuple):
    """One command's way to images.

    Args:
        store: where images are kept.
        keystore: trusted keys.
        load_credentials: reads the `auth` configuration, once something is really fetched.
        load_registry_credentials: reads the `dockerAuth` configuration.
        insecure: values of --insecure-options.
        trust_keys_from_https: accept keys that discovery announces by https without review.
        proxies: scheme -> proxy URL, `no_proxy` -> list, as from the environment.
        say: prints one line of what is going on (standard error).
        progress: told how far a download is; None when nobody watches.
        layer_progress: told how far the layer of that digest is (bytes done, bytes in all).
        max_bytes: cap on one image as downloaded.
    """

    store: Store
    keystore: KeyStore
    load_credentials: Callable[[], tuple[Credential, ...]] = tuple
    load_registry_credentials: Callable[[], tuple[Credential, ...]] = tuple
    insecure: frozenset[str] = frozenset()
    trust_keys_from_https: bool = False
    proxies: Mapping[str, str] = MappingProxyType({})
    say: Callable[[str], None] = lambda _line: None
    progress: Progress | None = None
    layer_progress: Callable[[str, int, int], None] | None = None
    max_bytes: int = 16 << 30

    @property
    def verifies(self) -> bool:
        """Whether signatures are asked for."""
        return "image" not in self.insecure

    def request(self, *, want_signature: bool | None = None) -> FetchRequest:
        """Return what a transport may know of this session."""
        from podctl import __version__
        from podctl.model.fetching import FetchRequest

        return FetchRequest(
            credentials=self.load_credentials(),
            registry_credentials=self.load_registry_credentials(),
            insecure=self.insecure,
            proxies=dict(self.proxies),
            user_agent=f"podctl/{__version__}",
            max_bytes=self.max_bytes,
            want_signature=self.verifies if want_signature is None else want_signature,
            say=self.say,
        )


def proxies_from(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the proxy settings of an environment.

    `HTTP_PROXY` in capitals is not read: in a CGI it is a request header (CVE-2016-5385).
    """
    found = {}
    for scheme, names in PROXY_VARIABLES.items():
        for name in names:
            if environment.get(name):
                found[scheme] = environment[name]
                break
    return found
