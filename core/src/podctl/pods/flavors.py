"""Which flavor runs a pod, and what of a pod a flavor would not enforce."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import PluginMissing, Refused, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from podctl.config import Stage1
    from podctl.model.plan import FlavorDescription
    from podctl.model.podmanifest import PodManifest, RuntimeApp
    from podctl.plugins import FlavorHandle

DEFAULT = "nspawn"
#: rkt's own stage1 images -> the flavor that does what they did
_RKT = {"coreos": "nspawn", "src": "nspawn", "host": "nspawn", "fly": "fly", "kvm": "kvm"}
_RKT_NAME = "coreos.com/rkt/stage1-"
_RKT_FILE = "stage1-"
#: beginning of an isolator's name -> the insecure option that excuses it
_EXCUSED = {"os/linux/capabilities-": "capabilities", "os/linux/seccomp-": "seccomp"}
_CHOOSE = "choose a flavor with --stage1=nspawn, fly or kvm"


class Stage1Flags(NamedTuple):
    """The flags a flavor may be named by; at most one is given. `stage1` is podctl's own."""

    stage1: str | None = None
    stage1_name: str | None = None
    stage1_path: str | None = None
    stage1_from_dir: str | None = None
    stage1_url: str | None = None
    stage1_hash: str | None = None


def choose(flags: Stage1Flags, configured: Stage1) -> str:
    """Name of the flavor asked for, configured, or else the default.

    Raises:
        UsageError: two flags name one.
        Refused: a stage1 image is named that is not one of rkt's.
    """
    given = {name: value for name, value in flags._asdict().items() if value is not None}
    if len(given) > 1:
        shown = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(f"{shown} exclude each other")
    if flags.stage1 is not None:
        return flags.stage1
    if flags.stage1_name is not None:
        return _by_name(flags.stage1_name)
    if flags.stage1_hash is not None:
        raise _foreign(flags.stage1_hash)
    for value in given.values():
        return _by_file(value)
    return _configured(configured)


def _configured(stage1: Stage1) -> str:
    if stage1.name is not None:
        return _by_name(stage1.name)
    return DEFAULT if stage1.location is None else _by_file(stage1.location)


def _by_name(name: str) -> str:
    """rkt's image name (a version may follow), or simply the name of a flavor."""
    bare = name.split(":", 1)[0].split(",", 1)[0]
    if "/" not in bare:
        return bare
    return _mapped(bare.removeprefix(_RKT_NAME) if bare.startswith(_RKT_NAME) else "", name)


def _by_file(path: str) -> str:
    file = posixpath.basename(path)
    bare = file.removesuffix(".aci").removeprefix(_RKT_FILE)
    return _mapped(bare if file.startswith(_RKT_FILE) and file.endswith(".aci") else "", path)


def _mapped(name: str, given: str) -> str:
    if name not in _RKT:
        raise _foreign(given)
    return _RKT[name]


def _foreign(given: str) -> Refused:
    return Refused(
        f"stage1 image \"{given}\" is not one of rkt's: podctl's flavors are plugins, not images",
        hint=_CHOOSE,
    )


def load(name: str) -> FlavorHandle:
    """Load the flavor.

    Raises:
        PluginMissing: it is not installed; the hint names the package.
    """
    from podctl.plugins import flavor

    try:
        return flavor(name)
    except PluginMissing as error:
        if name != "fly" and error.hint:
            error.hint = f"{error.hint} or pass --stage1=fly"
        raise


def refuse_pod(
    description: FlavorDescription,
    *,
    networks: Sequence[str] = (),
    options: Mapping[str, str] | None = None,
    apps: int = 0,
) -> None:
    """Refuse what the flavor does not do of what is known before any image is.

    Args:
        networks: those named by --net; empty when nothing was said.

    Raises:
        Refused: names the first thing.
    """
    flavor = description.name
    if description.max_apps is not None and apps > description.max_apps:
        raise Refused(
            f"flavor {flavor} runs at most {description.max_apps} app(s) in a pod, not {apps}",
            hint=_CHOOSE,
        )
    for network in networks:
        name = network.split(":", 1)[0]
        if "*" not in description.networks and name not in description.networks:
            known = ", ".join(description.networks) or "none"
            raise Refused(
                f'flavor {flavor} cannot use network "{name}"', hint=f"it offers: {known}"
            )
    for option in options or ():
        if option not in description.options:
            raise Refused(f"flavor {flavor} does not support --{option}", hint=_CHOOSE)


def refuse_manifest(
    description: FlavorDescription, manifest: PodManifest, insecure: frozenset[str]
) -> None:
    """Refuse what the flavor does not enforce of a complete manifest. Isolators of apps of a flavor
    that carries out records are podctl.pods.confining's business.

    Raises:
        Refused: names app and isolator.
    """
    refuse_pod(description, apps=len(manifest.apps))
    if manifest.ports and "port" not in description.options:
        raise Refused(f"flavor {description.name} does not publish ports", hint=_CHOOSE)
    _refuse_isolators(description, "the pod", [one.name for one in manifest.isolators], frozenset())
    for app in manifest.apps:
        refuse_pod(description, options=dict.fromkeys(_stream_options(app), ""))
    for app in manifest.apps if not description.confines else ():
        names = [one.name for one in (app.app.isolators if app.app else ())]
        _refuse_isolators(description, f'app "{app.name}"', names, insecure)


def _stream_options(app: RuntimeApp) -> list[str]:
    """Streams that are something else than the default, as options."""
    if app.streams is None:
        return []
    from podctl.model.conversion import STREAMS

    return [name.removeprefix(STREAMS) for name in app.streams.annotations()]


def _refuse_isolators(
    description: FlavorDescription, owner: str, names: Iterable[str], insecure: frozenset[str]
) -> None:
    for name in names:
        # No flavor enforces anything on a pod as a whole unless it says so.
        known = name if owner != "the pod" else f"pod:{name}"
        option = next((o for start, o in _EXCUSED.items() if name.startswith(start)), None)
        if known in description.isolators or option in insecure:
            continue
        excuse = f"--insecure-options={option} runs it without, or " if option else ""
        raise Refused(
            f"{owner} has isolator {name}, which flavor {description.name} cannot enforce",
            hint=excuse + _CHOOSE,
        )
