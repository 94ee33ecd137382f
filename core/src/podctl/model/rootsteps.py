"""The files and volumes every flavor gives an app's root: the same image and flags look the same.

Names are judged as text here; what they lead to inside the root, core judges on descriptors.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from podctl.errors import Refused
from podctl.model.plan import Symlink, WriteFile

if TYPE_CHECKING:
    from podctl.model.plan import Bind, PreparedApp, PreparedPod, Step

RESOLV_CONF = "/etc/resolv.conf"

#: for an image without /etc/hosts
_HOSTS = """\
127.0.0.1 localhost localhost.domain localhost4 localhost4.localdomain4
::1 ip6-localhost ip6-loopback localhost6 localhost6.localdomain6
fe00::0 ip6-localnet
ff00::0 ip6-mcastprefix
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
ff02::3 ip6-allhosts
"""
_DNS_OPTIONS = frozenset({"dns", "dns-search", "dns-opt", "dns-domain"})


def file_steps(pod: PreparedPod, hostname: str) -> list[Step]:
    """The files of /etc that are the pod's, not the image's (appc OS-SPEC)."""
    steps: list[Step] = []
    if pod.resolv_conf is not None:
        steps.append(WriteFile(RESOLV_CONF, pod.resolv_conf))
    if pod.hosts is not None:
        steps.append(WriteFile("/etc/hosts", pod.hosts))
    else:
        steps.append(WriteFile("/etc/hosts", _HOSTS, missing_only=True))
    steps.append(WriteFile("/etc/hostname", hostname + "\n"))
    steps.append(Symlink("/etc/mtab", "../proc/self/mounts"))
    return steps


def volume_steps(pod: PreparedPod, app: PreparedApp) -> list[Bind]:
    """The volumes, targets cleaned, the last of equal targets, parents before children."""
    found = {clean_target(mount.target): mount for mount in app.mounts}
    if _DNS_OPTIONS & pod.options.keys():
        # What the command line says of DNS outranks a volume.
        found.pop(RESOLV_CONF, None)
    return [found[target]._replace(target=target) for target in sorted(found)]


def clean_target(target: str) -> str:
    """A mount target without `.`, `..` and doubled slashes."""
    return posixpath.normpath("/" + target.lstrip("/"))


def refuse_target(target: str) -> None:
    """Refuse what text alone can tell of a mount target.

    Raises:
        Refused: it is the root, or lies in /proc.
    """
    path = clean_target(target)
    if path == "/":
        raise Refused(f"mount target {target} is the root of the image", hint="mount below it")
    if path == "/proc" or path.startswith("/proc/"):
        raise Refused(f"mount target {target} lies in /proc", hint="mount somewhere else")


def is_below(path: str, tree: str) -> bool:
    """Whether a cleaned path is `tree` or lies in it."""
    return path == tree or path.startswith(tree + "/")
