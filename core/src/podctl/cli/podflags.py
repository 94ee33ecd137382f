"""What `run` and `prepare` share: rkt's image grammar around click, and flags made into a pod."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

import click

from podctl.cli.options import OptionalValue, flag, normalise, optional_value
from podctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from podctl.cli.context import Globals
    from podctl.cli.imageargs import ParsedImages
    from podctl.model.plan import FlavorDescription
    from podctl.plugins import FlavorHandle
    from podctl.pods.compose import PodImage, PodSettings
    from podctl.pods.kept import Keeping
    from podctl.pods.prepare import Contents
    from podctl.pods.prepared import RunSettings
    from podctl.store import Store

    Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_IMAGES = "podctl.images"
_MAX_ENVIRONMENT = 1 << 20
_MAX_MANIFEST = 4 << 20


class ImagesCommand(click.Command):
    """A command whose arguments are images, each with flags and arguments of its own."""

    sorts_words = True
    #: flags of an image beside those of podctl.model.settings -> whether they take the next word
    more_flags: ClassVar[dict[str, bool]] = {}

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.allow_interspersed_args = False

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Sort the words, then let click read the command's own."""
        from podctl.cli.imageargs import parse_images
        from podctl.model.settings import APP_FLAGS

        flags = {**APP_FLAGS, **self.more_flags}
        parsed = parse_images(args, _kinds(self.get_params(ctx)), app_flags=flags)
        ctx.meta[_IMAGES] = parsed
        return super().parse_args(ctx, normalise(self.params, parsed.rest))

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """What the usage line says."""
        return ["[OPTIONS]", "IMAGE [--FLAG VALUE]... [-- ARGUMENT... [---]] [IMAGE...]"]


def _kinds(parameters: Sequence[click.Parameter]) -> dict[str, str]:
    from podctl.cli.imageargs import NO_VALUE, VALUE

    return {
        name: NO_VALUE if isinstance(option, OptionalValue) or option.is_flag else VALUE
        for option in parameters
        if isinstance(option, click.Option)
        for name in option.opts
    }


def parsed_images() -> ParsedImages:
    """The images of the command line being carried out."""
    parsed: ParsedImages = click.get_current_context().meta[_IMAGES]
    return parsed


def _together(*decorators: Decorator) -> Decorator:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


#: which flavor
stage1_flags = _together(
    click.option("--stage1", metavar="FLAVOR", help="Flavor: nspawn (the default), fly, kvm."),
    click.option("--stage1-name", metavar="NAME", help="rkt's name of its stage1 image."),
    click.option("--stage1-path", metavar="FILE", help="rkt's stage1 image by file name."),
    click.option("--stage1-from-dir", metavar="FILE", help="rkt's stage1 image by file name."),
    click.option("--stage1-url", hidden=True),
    click.option("--stage1-hash", hidden=True),
)

#: environment of all apps
environment_flags = _together(
    flag("--inherit-env", help="Pass on the caller's environment."),
    click.option("--set-env", multiple=True, metavar="NAME=VALUE", help="A variable for all apps."),
    click.option(
        "--set-env-file", multiple=True, metavar="FILE", help="Lines NAME=VALUE for all apps."
    ),
)

#: what roots are made of, and whose they are
root_flags = _together(
    flag("--no-overlay", help="Copy images instead of laying the pod's changes over them."),
    flag(
        "--private-users",
        default=None,
        help="Users of the pod's own, in a user namespace; where it can be, that is the default.",
    ),
)

name_flag = _together(
    click.option(
        "--pod-name",
        metavar="NAME",
        help="Name of the pod, to be used like its UUID; before an image, --name is the same.",
    ),
)

net_flag = _together(
    optional_value(
        "--net",
        bare="default",
        multiple=True,
        metavar="LIST",
        help="Comma list of networks; fly has host.",
    ),
)

#: what hosts are called, this one and others
names_flags = _together(
    click.option(
        "--dns",
        multiple=True,
        metavar="IP",
        help="Name server; or host (the host's resolv.conf), none.",
    ),
    click.option(
        "--dns-search", multiple=True, metavar="DOMAIN", help="Domain to search names in."
    ),
    click.option("--dns-opt", multiple=True, metavar="OPTION", help="Option of resolv.conf(5)."),
    click.option("--dns-domain", metavar="DOMAIN", help="Domain of resolv.conf(5)."),
    click.option(
        "--hosts-entry",
        multiple=True,
        metavar="IP=NAME",
        help="Line for /etc/hosts; or host for the host's file.",
    ),
    click.option("--hostname", metavar="NAME", help="Host name of the pod."),
)

#: flags that shape the manifest: run, prepare
manifest_flags = _together(
    click.option("--port", multiple=True, metavar="NAME:[IP:]PORT", help="Publish a port."),
    environment_flags,
    root_flags,
    click.option(
        "--pull-policy",
        type=click.Choice(["never", "new", "update"]),
        help="Whether to fetch images: never, when missing (new, the default), always (update).",
    ),
    flag("--store-only", hidden=True),
    flag("--no-store", hidden=True),
    name_flag,
    click.option("--pod-manifest", metavar="FILE", help="Run this pod manifest."),
    stage1_flags,
)

#: flags that say how the pod runs: run, run-prepared
run_flags = _together(
    net_flag,
    flag("--interactive", help="Connect the terminal to the pod's one app."),
    names_flags,
    click.option("--ipc", type=click.Choice(["auto", "private", "parent"]), help="IPC namespace."),
    flag("-d", "--detach", help="Leave the pod running, print its UUID; see logs."),
    flag("--rm", help="Remove the pod when it ends; podctl stays as its parent."),
    flag("--mds-register", help="Register with the metadata service."),
    flag("--dry-run", help="Print the launch plan; do nothing, write nothing."),
    click.option(
        "--format",
        "form",
        type=click.Choice(["text", "json", "json-pretty"]),
        help="Form of the output.",
    ),
)


def flavor_of_flags(options: Globals, given: dict[str, Any]) -> FlavorHandle:
    """Load the flavor that flags or configuration name."""
    from podctl.pods.flavors import Stage1Flags, choose, load

    flags = Stage1Flags(**{name: given[name] for name in Stage1Flags._fields})
    return load(choose(flags, options.config().stage1))


def run_settings(
    options: Globals, description: FlavorDescription, given: dict[str, Any]
) -> RunSettings:
    """How the pod runs, from the flags of run_flags, checked against the flavor."""
    from podctl.pods.flavors import refuse_pod
    from podctl.pods.names import DnsFlags, hosts, resolv_conf
    from podctl.pods.prepared import RunSettings

    dns = DnsFlags(*(given[name] for name in DnsFlags._fields))
    networks = tuple(name for text in given["net"] for name in text.split(",") if name)
    chosen = {**_options(given, description), **dns.options()}
    refuse_pod(description, networks=networks, options=chosen)
    return RunSettings(
        networks=networks or ("default",),
        options=chosen,
        resolv_conf=resolv_conf(dns),
        hosts=hosts(dns),
        insecure=options.insecure,
        interactive=given["interactive"],
        terminal=os.environ.get("TERM", "vt100") if given["interactive"] else None,
    )


def _options(given: dict[str, Any], description: FlavorDescription) -> dict[str, str]:
    """Pod options a flavor must know, as far as they were given."""
    found = {name: given.get(name.replace("-", "_")) for name in ("hostname", "ipc")}
    if found["hostname"] and "hostname" in description.options:
        from podctl.model.names import check_hostname

        check_hostname(found["hostname"])
    found["mds-register"] = "true" if given.get("mds_register") else None
    users = given.get("private_users")
    # To have the host's users is what flavors without this option do anyway.
    if users or (users is not None and "private-users" in description.options):
        found["private-users"] = "true" if users else "false"
    if found["ipc"] == "auto":
        found["ipc"] = None
    return {name: value for name, value in found.items() if value}


def prepare_settings(
    options: Globals, description: FlavorDescription, given: dict[str, Any]
) -> RunSettings:
    """What `prepare` can already say of how the pod will run."""
    from podctl.pods.flavors import refuse_pod
    from podctl.pods.prepared import RunSettings

    chosen = _options(given, description)
    refuse_pod(description, options=chosen)
    return RunSettings(options=chosen, insecure=options.insecure)


class Decision:
    """Finds the images of a command line and decides what the pod is; call it to do so."""

    def __init__(
        self,
        options: Globals,
        store: Store,
        flavor: FlavorHandle,
        settings: RunSettings,
        given: dict[str, Any],
    ) -> None:
        self._options = options
        self._store = store
        self._flavor = flavor
        self._settings = settings
        self._given = given
        self._parsed = parsed_images()
        self._dry = bool(given.get("dry_run"))
        self._policy = _policy(given)
        if given["pod_manifest"] is not None:
            _refuse_conflicts(self._parsed, given)
        elif not self._parsed.images:
            raise UsageError("must provide at least one image or --pod-manifest")
        self._pod_settings = pod_settings(self._parsed, given)
        refuse_streams(self._parsed, flavor.describe())

    def __call__(self) -> Contents:
        """Raises whatever stands in the way, from a missing image to a bad manifest."""
        from podctl.pods.prepare import Contents

        path = self._given["pod_manifest"]
        manifest, images = self._composed() if path is None else self._read_manifest(path)
        if self._settings.interactive and len(manifest.apps) != 1:
            raise UsageError("interactive option only supports one image")
        overlay = not self._given["no_overlay"]
        return Contents(self._flavor.name, manifest, images, self._settings, overlay)

    def _composed(self) -> tuple[Any, list[PodImage]]:
        from podctl.pods.compose import Requested, compose

        images = [
            self._find(image.image, self._policy, image.settings.signature)
            for image in self._parsed.images
        ]
        requested = [
            Requested(image.settings, image.arguments, found)
            for image, found in zip(self._parsed.images, images, strict=True)
        ]
        return compose(requested, self._pod_settings, self._say), images

    def _read_manifest(self, path: str) -> tuple[Any, list[PodImage]]:
        from podctl.model.podmanifest import check_has_apps, parse_pod_manifest
        from podctl.pods.compose import complete_given

        manifest = parse_pod_manifest(_read(path, _MAX_MANIFEST, "--pod-manifest"), what=path)
        check_has_apps(manifest)
        images = [self._find(app.image_id, "never", None) for app in manifest.apps]
        return complete_given(manifest, images, self._say), images

    def _find(self, text: str, policy: str, signature: str | None) -> PodImage:
        from podctl.pods.images import obtain, stored

        if self._dry:
            return stored(self._store, text)
        return obtain(self._session(), text, policy, signature)

    def _session(self) -> Any:
        from podctl.cli.session import open_session

        return open_session(self._options)

    def _say(self, line: str) -> None:
        from podctl.cli.output import say

        say(self._options.command, line)


def _policy(given: dict[str, Any]) -> str:
    if given["store_only"] and given["no_store"]:
        raise UsageError("--store-only and --no-store exclude each other")
    if given["store_only"]:
        return "never"
    return "update" if given["no_store"] else given["pull_policy"] or "new"


def _refuse_conflicts(parsed: ParsedImages, given: dict[str, Any]) -> None:
    flags = ("port", "inherit_env", "set_env", "set_env_file", "store_only", "no_store")
    others = parsed.images or parsed.volumes or parsed.mounts or given["pull_policy"]
    if others or any(given[name] for name in flags):
        raise UsageError("conflicting flags set with --pod-manifest (see --help)")


def pod_settings(parsed: ParsedImages, given: dict[str, Any]) -> PodSettings:
    """What a command line says of all apps."""
    from podctl.model.ports import port_from_text
    from podctl.model.words import environment_from_file, environment_from_texts
    from podctl.pods.compose import PodSettings
    from podctl.pods.environment import EnvironmentSettings

    file: dict[str, str] = {}
    for path in given["set_env_file"]:
        data = _read(path, _MAX_ENVIRONMENT, "--set-env-file")
        file.update(environment_from_file(data, path))
    networks = set(given.get("net") or ())
    for name in ("none", "host"):
        if given["port"] and name in networks:
            raise UsageError(f"--port flag does not work with '{name}' networking")
    return PodSettings(
        environment=EnvironmentSettings(
            inherited=dict(os.environ) if given["inherit_env"] else {},
            file=file,
            given=environment_from_texts(given["set_env"]),
        ),
        volumes=parsed.volumes,
        mounts=parsed.mounts,
        ports=tuple(port_from_text(text) for text in given["port"]),
    )


def refuse_streams(parsed: ParsedImages, description: FlavorDescription) -> None:
    """--stdin, --stdout and --stderr are promises a flavor must make."""
    from podctl.pods.flavors import refuse_pod

    for image in parsed.images:
        streams = {name[2:]: value for name, value in image.flags if name in _STREAMS}
        refuse_pod(description, options=streams)


_STREAMS = ("--stdin", "--stdout", "--stderr")


def _read(path: str, limit: int, option: str) -> bytes:
    """Read a file the user names; links and pipes are as good as files."""
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise UsageError(f"{option}: {path}: {error.strerror}") from None
    if len(data) > limit:
        raise UsageError(f"{option}: {path} is longer than {limit} bytes")
    return data


def keeping(options: Globals, given: dict[str, Any]) -> Keeping | None:
    """Whether the pod has a parent, and what for; None where this process is to become it.

    Raises:
        UsageError: a detached pod cannot have the terminal.
    """
    if not given["detach"] and not given["rm"]:
        return None
    if given["detach"] and given["interactive"]:
        raise UsageError("--detach and --interactive exclude each other")
    from podctl.pods.kept import Keeping

    return Keeping(given["detach"], os.path.realpath(options.data_dir) if given["rm"] else "")


def pod_name(given: dict[str, Any]) -> str | None:
    """The name the pod is to have.

    Raises:
        UsageError: it is none.
    """
    if given["pod_name"] is None:
        return None
    from podctl.pods.podnames import check_pod_name

    return check_pod_name(given["pod_name"])


def uuid_announcer(path: str | None) -> Callable[[str], None]:
    """What to do as soon as a pod exists: write its UUID where --uuid-file-save says."""

    def announce(uuid: str) -> None:
        if path is not None:
            from podctl.pods.find import write_uuid_file

            write_uuid_file(path, uuid)

    return announce


def print_plan(plan: Any, form: str | None) -> None:
    """Print a launch plan as --format says."""
    from podctl.cli.output import emit_json, out
    from podctl.pods.describe import describe, plan_to_json

    if form in (None, "text"):
        for line in describe(plan):
            out(line)
    else:
        emit_json(plan_to_json(plan), pretty=form == "json-pretty")
