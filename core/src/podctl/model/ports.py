"""Ports of apps published on the host.

Rules: appc 0.8.11 pods.md and rkt's command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from podctl.errors import InvalidInput, UsageError
from podctl.model.manifest import PORT_KEYS, Port, parse_port, port_value
from podctl.model.names import check_name
from podctl.model.words import optional_integer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from podctl.model.fields import Fields
    from podctl.model.manifest import App


class ExposedPort(NamedTuple):
    """A port published on the host: that of the apps' port `name`, or of `pod_port` if given.

    `host_ip` is empty for every address.
    """

    name: str
    host_port: int
    host_ip: str = ""
    pod_port: Port | None = None


class ForwardedPort(NamedTuple):
    """An exposed port with what it leads to; `count` consecutive ports on both sides."""

    name: str
    protocol: str
    host_ip: str
    host_port: int
    port: int
    count: int = 1  # type: ignore[assignment]  # hides tuple.count(), as in Port


def parse_exposed_port(item: Fields) -> ExposedPort:
    """Read a published port of a pod manifest.

    Raises:
        ManifestInvalid: it breaks the schema.
    """
    number = item.need("hostPort", int)
    if not 1 <= number <= 65535:
        raise item.error("hostPort must be in 1-65535 range")
    pod_port = item.child("podPort", PORT_KEYS)
    return ExposedPort(
        item.checked("name", check_name),
        number,
        item.call(_check_address, item.get("hostIP", str) or ""),
        None if pod_port is None else parse_port(pod_port),
    )


def _check_address(text: str) -> str:
    if not text:
        return text
    from ipaddress import ip_address

    try:
        address = ip_address(text)
    except ValueError:
        raise InvalidInput(f"host address {text!r} is no IP address") from None
    if getattr(address, "scope_id", None):
        raise InvalidInput(f"host address {text!r} must not name an interface")
    return str(address)


def exposed_port_value(port: ExposedPort) -> dict[str, Any]:
    """The JSON form of a published port."""
    value: dict[str, Any] = {"name": port.name, "hostPort": port.host_port}
    if port.host_ip:
        value["hostIP"] = port.host_ip
    if port.pod_port is not None:
        value["podPort"] = port_value(port.pod_port)
    return value


def forward_ports(
    ports: Iterable[ExposedPort], apps: Mapping[str, App]
) -> tuple[ForwardedPort, ...]:
    """Find what every exposed port leads to.

    Args:
        apps: app name -> its effective app section.

    Raises:
        UsageError: no app or several have a port of that name, or two publish one host port.
    """
    forwarded: list[ForwardedPort] = []
    for exposed in ports:
        port = exposed.pod_port or _find_port(exposed.name, apps)
        new = ForwardedPort(
            exposed.name, port.protocol, exposed.host_ip, exposed.host_port, port.port, port.count
        )
        if new.host_port + new.count - 1 > 65535:
            raise UsageError(
                f"port {new.name}: {new.count} host ports from {new.host_port} end beyond 65535"
            )
        for other in forwarded:
            if _overlap(new, other):
                raise UsageError(
                    f"port {new.protocol}-{new.host_ip or '0.0.0.0'}:{new.host_port} "
                    f"already mapped to pod port {other.port}"
                )
        forwarded.append(new)
    return tuple(forwarded)


def _find_port(name: str, apps: Mapping[str, App]) -> Port:
    found = [port for app in apps.values() for port in app.ports if port.name == name]
    if not found:
        raise UsageError(f'port name "{name}" could not be found in any apps')
    if len(found) > 1:
        raise UsageError(f'port name "{name}" defined multiple apps')
    return found[0]


def _overlap(one: ForwardedPort, other: ForwardedPort) -> bool:
    every = ("", "0.0.0.0", "::")
    same_address = one.host_ip == other.host_ip or one.host_ip in every or other.host_ip in every
    return (
        one.protocol.lower() == other.protocol.lower()
        and same_address
        and one.host_port < other.host_port + other.count
        and other.host_port < one.host_port + one.count
    )


def port_from_text(text: str) -> ExposedPort:
    """Read `NAME:[HOSTIP:]HOSTPORT`; an IPv6 address stands in brackets.

    Raises:
        UsageError: it is malformed.
    """
    name, colon, rest = text.partition(":")
    address, _, number = rest.rpartition(":")
    try:
        if not colon:
            raise InvalidInput("write NAME:[HOSTIP:]HOSTPORT")
        check_name(name, "port name")
        host_port = optional_integer(number, "host port") or 0
        if not 1 <= host_port <= 65535:
            raise InvalidInput(f"host port {number} must be in 1-65535 range")
        if address.startswith("[") and address.endswith("]"):
            address = address[1:-1]
        elif ":" in address:
            raise InvalidInput("write an IPv6 address in brackets")
        return ExposedPort(name, host_port, _check_address(address))
    except InvalidInput as error:
        raise UsageError(f"--port {text!r}: {error.message}") from None
