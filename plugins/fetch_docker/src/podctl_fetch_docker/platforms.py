"""Which of an index's images is for this host, and how appc and OCI spell architectures.

OCI image-spec 1.1, image-index.md ("platform"); the variants and the order in which one stands in
for another are those of containerd's platforms package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import ManifestInvalid, Refused
from podctl.model.labels import host_labels
from podctl_fetch_docker.mediatypes import INDEXES, MANIFESTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podctl.model.fields import Fields
    from podctl_fetch_docker.descriptors import Descriptor
    from podctl_fetch_docker.manifests import Index

PLATFORM_KEYS = "architecture os os.version os.features variant features"


class Platform(NamedTuple):
    """An operating system and an architecture as OCI spells them.

    Args:
        os: `linux` and others.
        architecture: GOARCH: `amd64`, `arm64`, `arm`, ...
        variant: `v7`, ...; empty where nothing was said.
        os_features: what the host must offer besides; nothing on Linux is known by name.
    """

    os: str
    architecture: str
    variant: str = ""
    os_features: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


#: appc arch -> GOARCH and variant, where they differ.
_FROM_APPC = {
    "i386": ("386", ""),
    "aarch64": ("arm64", "v8"),
    "aarch64_be": ("arm64be", ""),
    "armv6l": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv7b": ("armbe", "v7"),
}
#: what a missing variant means.
_DEFAULT_VARIANTS = {"arm": "v7", "arm64": "v8", "amd64": "v1"}
#: architecture -> variants, each of which runs what all behind it are made for.
_VARIANTS = {
    "amd64": ("v4", "v3", "v2", "v1"),
    "arm": ("v8", "v7", "v6", "v5"),
    "arm64": ("v8",),
}
#: other spellings of an architecture, as containerd reads them.
_ALIASES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
#: x86-64 psABI micro-architecture level -> flags of /proc/cpuinfo beyond those of the level below.
_LEVELS = (
    ("v2", "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3"),
    ("v3", "avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"),
    ("v4", "avx512f avx512bw avx512cd avx512dq avx512vl"),
)
_CPUINFO = "/proc/cpuinfo"
_MAX_LISTED = 12


def parse_platform(fields: Fields) -> Platform:
    """Read the platform of an index's entry.

    Raises:
        ManifestInvalid: it breaks the schema.
    """
    return Platform(
        os=fields.need("os", str),
        architecture=fields.need("architecture", str),
        variant=fields.get("variant", str) or "",
        os_features=fields.strings("os.features"),
    )


def normalise(platform: Platform) -> Platform:
    """One spelling for one platform; a missing variant becomes the one it means."""
    architecture = platform.architecture.lower()
    variant = platform.variant.lower()
    architecture, implied = _ALIASES.get(architecture, (architecture, ""))
    variant = variant or implied or _DEFAULT_VARIANTS.get(architecture, "")
    if variant.isdigit():
        variant = f"v{variant}"
    return platform._replace(os=platform.os.lower(), architecture=architecture, variant=variant)


def wanted_platform(labels: Mapping[str, str]) -> Platform:
    """The platform that labels `os` and `arch` (appc's spelling) ask for; by default this host's.

    The variant is the best one this host's processor has, or the architecture's default for
    another architecture.
    """
    host = host_labels()
    platform = platform_of({**host, **labels})
    if platform.architecture == "amd64" and host["arch"] == labels.get("arch", host["arch"]):
        platform = platform._replace(variant=_amd64_level())
    return normalise(platform)


def platform_of(labels: Mapping[str, str]) -> Platform:
    """The platform that labels `os` and `arch` name, both of which must be there."""
    architecture, variant = _FROM_APPC.get(labels["arch"], (labels["arch"], ""))
    return Platform(labels["os"], architecture, variant)


def _amd64_level(path: str = _CPUINFO) -> str:
    try:
        with open(path, errors="replace") as file:
            line = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        line = ""
    flags = set(line.split())
    level = "v1"
    for name, needed in _LEVELS:
        if not flags.issuperset(needed.split()):
            break
        level = name
    return level


def appc_arch(platform: Platform) -> str:
    """The architecture as appc spells it; one appc has no name for stays as it is."""
    platform = normalise(platform)
    if platform.architecture == "arm":
        return "armv6l" if platform.variant in ("v5", "v6") else "armv7l"
    for arch, (architecture, _) in _FROM_APPC.items():
        if architecture == platform.architecture:
            return arch
    return platform.architecture


def choose(index: Index, wanted: Platform, what: str = "image index") -> Descriptor:
    """The manifest for a platform: the best variant that runs there, of equals the first.

    Entries that are no image manifests are passed over: attestations (their platform is
    `unknown/unknown`), artifacts, further indexes. An index whose one manifest says no platform
    is taken at its word; its configuration is checked later.

    Args:
        wanted: see wanted_platform.
        what: names the index in messages.

    Raises:
        Refused: no entry is for the platform; the hint lists those that exist.
    """
    wanted = normalise(wanted)
    ranked = [(_rank(entry, wanted), entry) for entry in _images(index)]
    fitting = [(rank, entry) for rank, entry in ranked if rank is not None]
    if fitting:
        return min(fitting, key=lambda pair: pair[0])[1]
    unsaid = [entry for entry in _images(index) if entry.platform is None]
    if len(unsaid) == 1 == len(_images(index)):
        return unsaid[0]
    raise Refused(f"{what} has no image for {wanted}", hint=_existing(index, unsaid))


def _images(index: Index) -> list[Descriptor]:
    return [
        entry
        for entry in index.manifests
        if entry.media_type in MANIFESTS
        and not entry.artifact_type
        and "vnd.docker.reference.type" not in entry.annotations
    ]


def _rank(entry: Descriptor, wanted: Platform) -> int | None:
    """How far an entry is from the best that runs on `wanted`; None: it does not run there."""
    if entry.platform is None or entry.platform.os_features:
        return None
    offered = normalise(entry.platform)
    if offered[:2] != wanted[:2]:
        return None
    variants = _runnable_variants(wanted)
    return variants.index(offered.variant) if offered.variant in variants else None


def _runnable_variants(wanted: Platform) -> Sequence[str]:
    """What runs on a variant, best first."""
    variants = _VARIANTS.get(wanted.architecture, ())
    if wanted.variant not in variants:
        return (wanted.variant,)
    return variants[variants.index(wanted.variant) :]


def _existing(index: Index, unsaid: Sequence[Descriptor]) -> str:
    names = sorted({str(entry.platform) for entry in _images(index) if entry.platform is not None})
    if len(names) > _MAX_LISTED:
        names = [*names[:_MAX_LISTED], f"{len(names) - _MAX_LISTED} more"]
    if unsaid:
        names.append(f"{len(unsaid)} without a platform")
    if any(entry.media_type in INDEXES for entry in index.manifests):
        names.append("further indexes, which are not followed")
    return f"it has: {', '.join(names)}" if names else "it has no image at all"


def check_same(stated: Platform, chosen: Platform | None, what: str) -> None:
    """Check that a configuration is for the platform that the index gave its manifest.

    Args:
        stated: of the configuration.
        chosen: of the index's entry; None where there was none.

    Raises:
        ManifestInvalid: they differ.
    """
    if chosen is None:
        return
    one, other = normalise(stated), normalise(chosen)
    # Most builders name the variant in one of the two places only.
    same_variant = one.variant == other.variant or not (stated.variant and chosen.variant)
    if one[:2] != other[:2] or not same_variant:
        raise ManifestInvalid(f"{what} is for {stated}, its index says {chosen}")
