"""Typed handles: what core calls instead of pluggy, checked on the way in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from podctl.errors import PluginBroken
from podctl.plugins.loading import Contained

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pluggy

    from podctl.model.confinement import Confinement, IsolatorContext
    from podctl.model.fetching import (
        Downloaded,
        FetchRequest,
        KeyLocation,
        LocalImage,
        Resolution,
        Resume,
        Sink,
    )
    from podctl.model.image import Image, Layer
    from podctl.model.layout import ArchiveLayout
    from podctl.model.layoutfiles import Folded, LayoutFiles, LayoutRequest, Unfolded
    from podctl.model.plan import (
        AppLaunch,
        EnterPlan,
        FlavorDescription,
        LaunchPlan,
        PodRoot,
        PreparedPod,
    )
    from podctl.model.reference import Reference
    from podctl.model.trusting import KeyDescription, Verdict, Verifier
    from podctl.plugins.provider import Provider
    from podctl.sys.procs import Process

    T = TypeVar("T")


class Handle:
    """One loaded provider.

    Attributes:
        provider: where it comes from.
        name: its entry-point name.
    """

    __slots__ = ("_manager", "name", "provider")

    def __init__(self, provider: Provider, manager: pluggy.PluginManager) -> None:
        self.provider = provider
        self.name = provider.name
        self._manager = manager

    def offers(self, hook: str) -> bool:
        """Whether the provider implements a hook."""
        return bool(getattr(self._manager.hook, hook).get_hookimpls())

    def _call(self, hook: str, **arguments: object) -> Any:
        if not self.offers(hook):
            raise PluginBroken(f"{self.provider} does not implement {hook}")
        with Contained(self.provider, f"failed in {hook}"):
            return getattr(self._manager.hook, hook)(**arguments)

    def _ask(self, hook: str, expected: type[T], **arguments: object) -> T:
        """Call a hook whose answer must be an instance of `expected`."""
        return check(self.provider, hook, expected, self._call(hook, **arguments))

    def _ask_maybe(self, hook: str, expected: type[T], **arguments: object) -> T | None:
        """Call a hook that may answer None; not implemented means None."""
        answer = self._call(hook, **arguments) if self.offers(hook) else None
        return None if answer is None else check(self.provider, hook, expected, answer)

    def _ask_some(
        self, hook: str, expected: type[T], *, optional: bool = True, **arguments: object
    ) -> tuple[T, ...]:
        """Call a hook whose answer is a sequence of `expected`; not implemented means empty."""
        answer = self._call(hook, **arguments) if self.offers(hook) or not optional else ()
        if isinstance(answer, str) or not isinstance(answer, list | tuple):
            _wrong(self.provider, hook, f"a list of {expected.__name__}", answer)
        return tuple(check(self.provider, hook, expected, element) for element in answer)

    def _tell(self, hook: str, **arguments: object) -> None:
        """Call a hook without an answer; not implemented means nothing to do."""
        if self.offers(hook):
            self._call(hook, **arguments)


def check(provider: Provider, hook: str, expected: type[T], answer: object) -> T:
    """Return `answer` if it has the type the spec promises.

    Raises:
        PluginBroken: it has not.
    """
    if not isinstance(answer, expected):
        _wrong(provider, hook, expected.__name__, answer)
    return answer


def _wrong(provider: Provider, hook: str, expected: str, answer: object) -> NoReturn:
    raise PluginBroken(
        f"{provider} returned {type(answer).__name__} from {hook} instead of {expected}",
        hint=f"update or remove {provider.distribution}, or tell its author",
    )


class TransportHandle(Handle):
    """A provider of `podctl.transport`; see podctl.api.hookspecs.TransportSpec."""

    __slots__ = ()

    def preload(self) -> None:
        """Import what the work needs."""
        self._tell("transport_preload")

    def normalise(self, reference: Reference) -> Reference:
        """Complete a reference that leaves its registry open."""
        from podctl.model.reference import Reference

        answer = self._ask_maybe("transport_normalise", Reference, reference=reference)
        return reference if answer is None else answer

    def configure(self, reference: Reference, request: FetchRequest) -> object:
        """Read this host's configuration for the transport."""
        hook = "transport_configure"
        return self._ask_maybe(hook, object, reference=reference, request=request)

    def open_local(self, reference: Reference, request: FetchRequest) -> LocalImage | None:
        """Open image and signature if the image is a local file; None if it is not."""
        from podctl.model.fetching import LocalImage

        hook = "transport_open_local"
        return self._ask_maybe(hook, LocalImage, reference=reference, request=request)

    def resolve(self, reference: Reference, request: FetchRequest) -> Resolution:
        """Find the image and its signature."""
        from podctl.model.fetching import Resolution

        return self._ask("transport_resolve", Resolution, reference=reference, request=request)

    def download(
        self, resolution: Resolution, resume: Resume | None, request: FetchRequest, sink: Sink
    ) -> Downloaded:
        """Stream the image's bytes into `sink`."""
        from podctl.model.fetching import Downloaded

        return self._ask(
            "transport_download",
            Downloaded,
            resolution=resolution,
            resume=resume,
            request=request,
            sink=sink,
        )

    def layer(
        self,
        resolution: Resolution,
        layer: Layer,
        resume: Resume | None,
        request: FetchRequest,
        sink: Sink,
    ) -> Downloaded:
        """Stream one layer into `sink`."""
        from podctl.model.fetching import Downloaded

        return self._ask(
            "transport_layer",
            Downloaded,
            resolution=resolution,
            layer=layer,
            resume=resume,
            request=request,
            sink=sink,
        )

    def signature(self, resolution: Resolution, request: FetchRequest) -> bytes | None:
        """Fetch a deferred signature."""
        hook = "transport_signature"
        return self._ask_maybe(hook, bytes, resolution=resolution, request=request)

    def keys(self, prefix: str, request: FetchRequest) -> tuple[KeyLocation, ...]:
        """Discover where the public keys for `prefix` are."""
        from podctl.model.fetching import KeyLocation

        return self._ask_some("transport_keys", KeyLocation, prefix=prefix, request=request)

    def document(self, url: str, limit: int, request: FetchRequest) -> bytes:
        """Fetch one small document of at most `limit` bytes."""
        hook = "transport_document"
        answer = self._ask(hook, bytes, url=url, limit=limit, request=request)
        if len(answer) > limit:
            raise PluginBroken(f"{self.provider} returned more than {limit} bytes from {hook}")
        return answer


class FormatHandle(Handle):
    """A provider of `podctl.format`; see podctl.api.hookspecs.FormatSpec."""

    __slots__ = ()

    def layout(self) -> ArchiveLayout:
        """Which archive entry is the manifest and which prefix the root filesystem."""
        from podctl.model.layout import ArchiveLayout

        return self._ask("format_layout", ArchiveLayout)

    def image(self, manifest: bytes) -> Image:
        """Parse the manifest of an archive."""
        from podctl.model.image import Image

        return self._ask("format_image", Image, manifest=manifest)

    def documents(self, manifest: bytes) -> dict[str, bytes]:
        """The original documents, by name; the most interesting first."""
        answer = self._ask_maybe("format_documents", dict, manifest=manifest)
        return {"manifest": manifest} if answer is None else answer

    def preload(self) -> None:
        """Import what finding images in layouts needs."""
        self._tell("format_preload")

    def unfold(self, files: LayoutFiles, request: LayoutRequest) -> Unfolded:
        """Find an image in a directory or an archive."""
        from podctl.model.layoutfiles import Unfolded

        return self._ask("format_unfold", Unfolded, files=files, request=request)

    def fold(self, document: bytes, signature: bytes | None, kind: str) -> Folded:
        """Which files a directory or an archive of an image has."""
        from podctl.model.layoutfiles import Folded

        hook = "format_fold"
        return self._ask(hook, Folded, document=document, signature=signature, kind=kind)

    def compose(self, image: Image, layer: Layer) -> bytes:
        """The image document for an image of another format."""
        return self._ask("format_compose", bytes, image=image, layer=layer)


class VerifierHandle:
    """A provider's Verifier, contained like its hooks."""

    __slots__ = ("_provider", "_verifier")

    def __init__(self, provider: Provider, verifier: Verifier) -> None:
        self._provider = provider
        self._verifier = verifier

    def update(self, data: bytes) -> None:
        """Hash the next bytes of the signed content."""
        with Contained(self._provider, "failed in its verifier's update"):
            self._verifier.update(data)

    def finish(self) -> Verdict:
        """The verdict; raises TrustRefused unless one signature is good."""
        from podctl.model.trusting import Verdict

        with Contained(self._provider, "failed in its verifier's finish"):
            answer = self._verifier.finish()
        return check(self._provider, "its verifier's finish", Verdict, answer)


class TrustHandle(Handle):
    """A provider of `podctl.trust`; see podctl.api.hookspecs.TrustSpec."""

    __slots__ = ()

    def preload(self) -> None:
        """Import what the work needs."""
        self._tell("trust_preload")

    def recognises(self, data: bytes) -> bool:
        """Whether a key file is of this scheme."""
        return self._ask_maybe("trust_recognises", bool, data=data) is not False

    def key(self, data: bytes) -> KeyDescription:
        """Parse one public key file."""
        from podctl.model.trusting import KeyDescription

        return self._ask("trust_key", KeyDescription, data=data)

    def signers(self, signature: bytes) -> tuple[str, ...]:
        """Fingerprints or key ids a detached signature names."""
        return self._ask_some("trust_signers", str, optional=False, signature=signature)

    def verifier(self, signature: bytes, keys: Sequence[bytes], now: int) -> VerifierHandle:
        """Begin to verify `signature` against public keys."""
        hook = "trust_verifier"
        answer = self._call(hook, signature=signature, keys=keys, now=now)
        if not all(callable(getattr(answer, name, None)) for name in ("update", "finish")):
            _wrong(self.provider, hook, "a Verifier", answer)
        return VerifierHandle(self.provider, answer)


class FlavorHandle(Handle):
    """A provider of `podctl.stage1`; see podctl.api.hookspecs.Stage1Spec."""

    __slots__ = ()

    def describe(self) -> FlavorDescription:
        """What the flavor enforces and what it refuses."""
        from podctl.model.plan import FlavorDescription

        return self._ask("stage1_describe", FlavorDescription)

    def check_host(self) -> tuple[str, ...]:
        """One line for each thing this host lacks."""
        return self._ask_some("stage1_check_host", str)

    def prepare(self, pod: PreparedPod) -> None:
        """Let the flavor look at the pod, and refuse, before it counts as prepared."""
        self._tell("stage1_prepare", pod=pod)

    def plan(self, pod: PreparedPod) -> LaunchPlan:
        """Turn a prepared pod into a launch plan."""
        from podctl.model.plan import LaunchPlan

        return self._ask("stage1_plan", LaunchPlan, pod=pod)

    def enter(self, pod: PreparedPod, app: str, argv: Sequence[str]) -> EnterPlan:
        """Plan a process inside a running pod."""
        from podctl.model.plan import EnterPlan

        return self._ask("stage1_enter", EnterPlan, pod=pod, app=app, argv=argv)

    def processes(self, pod: PreparedPod, app: str) -> tuple[Process, ...]:
        """The living processes of an app, the app itself first."""
        from podctl.sys.procs import Process

        found = self._ask_some("stage1_processes", tuple, optional=False, pod=pod, app=app)
        return tuple(Process(*one) for one in found)

    def stop(self, pod: PreparedPod, force: bool) -> None:
        """Ask the running pod to end, or make it end."""
        self._call("stage1_stop", pod=pod, force=force)

    def gc(self, pod: PreparedPod) -> None:
        """Release what the dead pod still holds on the host."""
        self._tell("stage1_gc", pod=pod)

    def root(self, pod: PreparedPod) -> PodRoot:
        """Where the apps' roots of a running mutable pod lie."""
        from podctl.model.plan import PodRoot

        return self._ask("stage1_root", PodRoot, pod=pod)

    def app_launch(self, pod: PreparedPod, app: str) -> AppLaunch:
        """Plan one app of a running mutable pod."""
        from podctl.model.plan import AppLaunch

        return self._ask("stage1_app_launch", AppLaunch, pod=pod, app=app)

    def app_start(self, pod: PreparedPod, app: str) -> None:
        """Let the pod's first process start an app."""
        self._call("stage1_app_start", pod=pod, app=app)

    def app_stop(self, pod: PreparedPod, app: str) -> None:
        """Let the pod's first process stop an app."""
        self._call("stage1_app_stop", pod=pod, app=app)

    def app_rm(self, pod: PreparedPod, app: str) -> None:
        """Remove what the flavor has of an app that is no more."""
        self._call("stage1_app_rm", pod=pod, app=app)


class IsolatorHandle(Handle):
    """A provider of `podctl.isolator`; see podctl.api.hookspecs.IsolatorSpec."""

    __slots__ = ()

    def contribute(
        self, name: str, value: object, record: Confinement, context: IsolatorContext
    ) -> Confinement:
        """The record with what the isolator adds to it."""
        from podctl.model.confinement import Confinement

        hook = "isolator_contribute"
        return self._ask(hook, Confinement, name=name, value=value, record=record, context=context)

    def lacks(
        self, name: str, value: object, record: Confinement, context: IsolatorContext
    ) -> tuple[str, ...]:
        """One line for each thing this host lacks to enforce it."""
        hook = "isolator_lacks"
        return self._ask_some(hook, str, name=name, value=value, record=record, context=context)
