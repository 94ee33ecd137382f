"""Authorities and client certificates of single registries: containers-certs.d(5)."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import UsageError
from podctl_fetch_docker.trusted import list_config, read_config

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl_fetch_docker.trusted import Surroundings


class Certificates(NamedTuple):
    """What a registry's directory has.

    Args:
        authorities: PEM, beside the system's; empty for none.
        client: paths of a client certificate and its key; None for none.
    """

    authorities: str = ""
    client: tuple[str, str] | None = None


def certificates_for(host: str, around: Surroundings, say: Callable[[str], None]) -> Certificates:
    """Read the first directory that is there for `host[:port]`.

    Raises:
        UsageError: a file cannot be read or is no PEM, a certificate has no key or a key no
            certificate, or there are several.
    """
    for directory in _directories(around):
        path = f"{directory}/{host}"
        if os.path.isdir(path):
            return _read(path, around, say)
    return Certificates()


def _directories(around: Surroundings) -> list[str]:
    own = [f"{around.config}/containers/certs.d"] if around.config and around.uid else []
    return [*own, around.etc("containers/certs.d"), around.etc("docker/certs.d")]


def _read(directory: str, around: Surroundings, say: Callable[[str], None]) -> Certificates:
    authorities = []
    for path in list_config(directory, ".crt"):
        file = read_config(path, around.uid)
        if file is None:
            continue
        authorities.append(_checked(file.data.decode("ascii", "replace"), path))
    certificates = {path.removesuffix(".cert") for path in list_config(directory, ".cert")}
    keys = {path.removesuffix(".key") for path in list_config(directory, ".key")}
    for base in sorted(certificates ^ keys):
        one, other = ("cert", "key") if base in certificates else ("key", "cert")
        raise UsageError(f"{base}.{one}: there is no {base}.{other} for it")
    if len(keys) > 1:
        raise UsageError(f"{directory}: has several client certificates, podctl shows one")
    if not keys:
        return Certificates("\n".join(authorities))
    base = keys.pop()
    _look_at_key(f"{base}.key", around, say)
    return Certificates("\n".join(authorities), (f"{base}.cert", f"{base}.key"))


def _checked(text: str, path: str) -> str:
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        raise UsageError(f"{path}: holds no certificate in PEM") from None
    return text


def _look_at_key(path: str, around: Surroundings, say: Callable[[str], None]) -> None:
    file = read_config(path, around.uid)
    if file is not None and stat.S_IMODE(os.stat(path).st_mode) & stat.S_IROTH:
        say(f"{path}: every user can read this key, chmod 600 it")
