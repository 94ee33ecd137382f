"""The mounts and files that make an image a place to live in (appc OS-SPEC, as rkt's fly did)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from podctl.model.plan import Bind, Directory, Overlay, Symlink, WriteFile
from podctl_stage1_fly.refusals import clean_target

if TYPE_CHECKING:
    from podctl.model.manifest import App
    from podctl.model.plan import PreparedApp, PreparedPod, Step

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
_RESOLV_CONF = "/etc/resolv.conf"
_DNS_OPTIONS = frozenset({"dns", "dns-search", "dns-opt", "dns-domain"})


def root_steps(pod: PreparedPod, app: PreparedApp) -> tuple[Step, ...]:
    """All steps, in order: the image, its files, the host's /dev, /proc, /sys, then volumes, and
    the working directory where one is to be made.

    Files come before volumes, so that none of them is ever written into a volume.
    """
    mounts = _volumes(pod, app)
    targets = {mount.target for mount in mounts}
    steps: list[Step] = []
    if app.rootfs.directory is None:
        steps.append(Overlay(app.root, app.rootfs.lowers, app.upper, app.work))
    steps += _files(pod)
    steps.append(Directory("/tmp", 0o1777))
    steps += _host_trees(targets)
    steps += mounts
    if app.make_working_directory:
        steps.append(Directory(cast("App", app.app).working_directory))
    return tuple(steps)


def _files(pod: PreparedPod) -> list[Step]:
    steps: list[Step] = []
    if pod.resolv_conf is not None:
        steps.append(WriteFile(_RESOLV_CONF, pod.resolv_conf))
    if pod.hosts is not None:
        steps.append(WriteFile("/etc/hosts", pod.hosts))
    else:
        steps.append(WriteFile("/etc/hosts", _HOSTS, missing_only=True))
    steps.append(WriteFile("/etc/hostname", os.uname().nodename + "\n"))
    steps.append(Symlink("/etc/mtab", "../proc/self/mounts"))
    return steps


def _host_trees(targets: set[str]) -> list[Step]:
    """The host's own, with everything mounted below; slaves, so that mounts and unmounts of the
    host arrive and those of the app stay (rkt's fly left them shared)."""
    steps: list[Step] = []
    if "/dev" not in targets:
        steps.append(Bind("/dev", "/dev"))
    steps.append(Bind("/proc", "/proc"))
    # An app that brings anything of /sys gets none of the host's.
    if not any(target == "/sys" or target.startswith("/sys/") for target in targets):
        steps.append(Bind("/sys", "/sys"))
    return steps


def _volumes(pod: PreparedPod, app: PreparedApp) -> list[Bind]:
    """The volumes, targets cleaned, the last of equal targets, parents before children."""
    found = {clean_target(mount.target): mount for mount in app.mounts}
    if _DNS_OPTIONS & pod.options.keys():
        # What the command line says of DNS outranks a volume.
        found.pop(_RESOLV_CONF, None)
    return [found[target]._replace(target=target) for target in sorted(found)]
