"""Which proxy, if any, a request takes: explicit settings alone, never the environment."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from podctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podctl.http.urls import Target


def proxy_for(target: Target, proxies: Mapping[str, str]) -> str | None:
    """Return the proxy's URL for a request, None for a direct connection.

    Raises:
        UsageError: the setting is no http:// URL; it is not quoted, it may hold a password.
    """
    proxy = proxies.get(target.scheme)
    if not proxy or _bypasses(target, proxies.get("no_proxy", "")):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    try:
        parts = urlsplit(proxy)
        good = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise UsageError(
            f"the proxy for {target.scheme} is not of the form http://host:port",
            hint=f"set {target.scheme}_proxy",
        )
    return proxy


def shown(proxy: str) -> str:
    """A proxy for messages: host and port, no password."""
    parts = urlsplit(proxy)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def _bypasses(target: Target, rules: str) -> bool:
    """Whether a `no_proxy` list names the host: `*`, a host with its subdomains, an address
    range; each but the first may carry a port."""
    return any(_matches(target, rule.strip().lower()) for rule in rules.split(","))


def _matches(target: Target, rule: str) -> bool:
    if rule in ("", "*"):
        return rule == "*"
    try:
        return ip_address(target.host) in ip_network(rule.strip("[]"), strict=False)
    except ValueError:
        pass
    host, colon, port = rule.rpartition(":")
    if colon and port.isdigit():
        if int(port) != target.port:
            return False
        rule = host
    name = rule.strip("[]").removeprefix("*").lstrip(".")
    return bool(name) and (target.host == name or target.host.endswith("." + name))
