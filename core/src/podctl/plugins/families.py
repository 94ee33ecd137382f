"""The hook families: their entry-point groups, their specs, and who offers the known names."""

from __future__ import annotations

from typing import NamedTuple


class Family(NamedTuple):
    """One entry-point group.

    Args:
        key: short name, as `podctl plugins` shows it.
        group: entry-point group.
        spec: class of `podctl.api.hookspecs` its providers implement; None where none is defined
            yet.
        noun: what one provider is called in messages.
        prefix: how distributions of this family are named, after `podctl-`.
        packages: names whose distribution does not follow from the prefix.
    """

    key: str
    group: str
    spec: str | None
    noun: str
    prefix: str
    packages: dict[str, str]

    def package(self, name: str) -> str:
        """The distribution to install for `name`."""
        return self.packages.get(name) or f"podctl-{self.prefix}-{name.replace('/', '-')}"


_ACI = "podctl-fetch-aci"
_DOCKER = "podctl-fetch-docker"

TRANSPORT = Family(
    "transport",
    "podctl.transport",
    "TransportSpec",
    "transport",
    "fetch",
    {"http": _ACI, "https": _ACI, "file": _ACI, "appc": _ACI, "docker": _DOCKER},
)
FORMAT = Family(
    "format",
    "podctl.format",
    "FormatSpec",
    "image format",
    "fetch",
    {"aci": _ACI, "oci": _DOCKER, "docker-archive": _DOCKER},
)
TRUST = Family("trust", "podctl.trust", "TrustSpec", "signature scheme", "trust", {})
STAGE1 = Family("stage1", "podctl.stage1", "Stage1Spec", "stage1 flavor", "stage1", {})
_LINUX = "podctl-isolators-linux"
ISOLATOR = Family(
    "isolator",
    "podctl.isolator",
    "IsolatorSpec",
    "isolator",
    "isolators",
    {
        # An entry point's name has no slash: appc's names are written with dots.
        "default": _LINUX,
        "os.linux.capabilities-retain-set": _LINUX,
        "os.linux.capabilities-remove-set": _LINUX,
        "os.linux.seccomp-retain-set": _LINUX,
        "os.linux.seccomp-remove-set": _LINUX,
        "os.linux.no-new-privileges": _LINUX,
        "os.linux.oom-score-adj": _LINUX,
        "os.linux.cpu-shares": _LINUX,
        "os.linux.selinux-context": _LINUX,
        "resource.cpu": _LINUX,
        "resource.memory": _LINUX,
        "resource.block-bandwidth": _LINUX,
        "resource.block-iops": _LINUX,
    },
)
HOOKS = Family("hooks", "podctl.hooks", "EventSpec", "hook", "hooks", {})

FAMILIES = (TRANSPORT, FORMAT, TRUST, STAGE1, ISOLATOR, HOOKS)
BY_GROUP = {family.group: family for family in FAMILIES}
