"""Every hook of podctl, grouped by family.

A provider is an object (usually a module-level instance) reached by an entry point; its methods
carry `@hookimpl` and the names below. *Chooses*: exactly one provider, picked by name, answers.
*May refuse*: an exception is a refusal. *Observes*: return value and exceptions change nothing.
A provider may leave out arguments it does not need; it may not rename them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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

hookspec = pluggy.HookspecMarker("podctl")


class TransportSpec:
    """Family *image formats*, group `podctl.transport`: bring bytes. Chosen by scheme.

    All but `transport_preload` and `transport_open_local` run in a child that has given up root's
    capabilities and its uid; modules must therefore be imported by `transport_preload`.
    """

    @hookspec(firstresult=True)
    def transport_preload(self) -> None:
        """Import what the work needs. Called once, privileged, before any byte from outside."""

    @hookspec(firstresult=True)
    def transport_normalise(self, reference: Reference) -> Reference:
        """Complete a reference that leaves its registry open (`Reference.short`) by this host's
        rules for short names. Privileged; reads trusted configuration alone.

        Raises:
            Refused: the rules leave several registries to choose from.
        """

    @hookspec(firstresult=True)
    def transport_configure(self, reference: Reference, request: FetchRequest) -> object:
        """Read this host's configuration for the transport (credentials, mirrors, certificates).
        Privileged, before any byte from outside; the answer becomes `request.settings`.

        Raises:
            Refused: the configuration forbids the source.
        """

    @hookspec(firstresult=True)
    def transport_open_local(
        self, reference: Reference, request: FetchRequest
    ) -> LocalImage | None:
        """Open image and signature if the image is a local file, else return None. Privileged:
        nothing may be parsed.

        Raises:
            FetchFailed: the file is missing or not a regular file.
        """

    @hookspec(firstresult=True)
    def transport_resolve(self, reference: Reference, request: FetchRequest) -> Resolution:
        """Find the image and its signature. *Chooses.*

        Raises:
            FetchFailed: nothing was found; the message lists what was tried.
        """

    @hookspec(firstresult=True)
    def transport_download(
        self, resolution: Resolution, resume: Resume | None, request: FetchRequest, sink: Sink
    ) -> Downloaded:
        """Stream the image's bytes into `sink`, resuming where that is provably safe."""

    @hookspec(firstresult=True)
    def transport_layer(
        self,
        resolution: Resolution,
        layer: Layer,
        resume: Resume | None,
        request: FetchRequest,
        sink: Sink,
    ) -> Downloaded:
        """Stream one layer of a layered image into `sink`, as published. The digest is checked by
        core; a blob never changes, so it may be resumed whatever its validators."""

    @hookspec(firstresult=True)
    def transport_signature(self, resolution: Resolution, request: FetchRequest) -> bytes | None:
        """Fetch a deferred signature, after the image was downloaded. None where there is none."""

    @hookspec(firstresult=True)
    def transport_keys(self, prefix: str, request: FetchRequest) -> Sequence[KeyLocation]:
        """Discover where the public keys for `prefix` are. Called by `trust` and by `fetch`."""

    @hookspec(firstresult=True)
    def transport_document(self, url: str, limit: int, request: FetchRequest) -> bytes:
        """Fetch one small document (a public key), at most `limit` bytes."""


class FormatSpec:
    """Family *image formats*, group `podctl.format`: read what was brought. Chosen by name."""

    @hookspec(firstresult=True)
    def format_layout(self) -> ArchiveLayout:
        """Say which archive entry is the manifest and which prefix the root filesystem."""

    @hookspec(firstresult=True)
    def format_image(self, manifest: bytes) -> Image:
        """Parse the manifest of an archive, or the image document of a layered image. The answer
        depends on `manifest` alone: of a layered image it is kept, and asked for again when
        anything was installed or upgraded.

        Raises:
            ManifestInvalid: it breaks the format's schema.
        """

    @hookspec(firstresult=True)
    def format_documents(self, manifest: bytes) -> Mapping[str, bytes]:
        """Name the original documents in an image document, the most interesting first
        (`manifest`, `config`, `index`). Not implemented: the manifest is the one document."""

    @hookspec(firstresult=True)
    def format_preload(self) -> None:
        """Import what `format_unfold` needs. Called once, privileged, before any byte from
        outside."""

    @hookspec(firstresult=True)
    def format_unfold(self, files: LayoutFiles, request: LayoutRequest) -> Unfolded:
        """Find an image in a directory or an archive, with what lies beside it. Runs in a child
        that has given up root's capabilities, and opens nothing itself.

        Raises:
            NotFound: there is no such image; the hint lists what there is.
            Refused: there are several, or it is none that can run here.
            ManifestInvalid: the files are none of the format, or do not fit.
        """

    @hookspec(firstresult=True)
    def format_fold(self, document: bytes, signature: bytes | None, kind: str) -> Folded:
        """Say which files a directory or an archive of an image has: the reverse of
        `format_unfold`.

        Args:
            kind: `oci` (the documents as they are, and the signatures) or `docker` (what
                `docker load` reads).
        """

    @hookspec(firstresult=True)
    def format_compose(self, image: Image, layer: Layer) -> bytes:
        """Describe an image of another format that has this one layer: its image document."""


class TrustSpec:
    """Family *trust*, group `podctl.trust`: check signatures. Chosen by scheme.

    All but `trust_preload` run in a child that has given up root's capabilities.
    """

    @hookspec(firstresult=True)
    def trust_preload(self) -> None:
        """Import what the work needs. Called once, privileged, before any byte from outside."""

    @hookspec(firstresult=True)
    def trust_recognises(self, data: bytes) -> bool:
        """Say by its first bytes whether a key file is of this scheme, whatever it is worth: keys
        of all schemes lie in the same directories. Not implemented: every file is.
        """

    @hookspec(firstresult=True)
    def trust_key(self, data: bytes) -> KeyDescription:
        """Parse one public key file.

        Raises:
            KeyInvalid: not exactly one public key of this scheme.
        """

    @hookspec(firstresult=True)
    def trust_signers(self, signature: bytes) -> Sequence[str]:
        """Fingerprints or 16-digit key ids a detached signature names, to fail early."""

    @hookspec(firstresult=True)
    def trust_verifier(self, signature: bytes, keys: Sequence[bytes], now: int) -> Verifier:
        """Begin to verify `signature` against public keys (file contents). *May refuse.*

        Args:
            now: seconds since the epoch; the time expiry is judged by.

        The signed bytes are the archive as published, or the image document; `signature` is then
        a set of signatures (podctl.model.imagedocument.parse_signatures).
        """


class Stage1Spec:
    """Family *stage1 flavors*, group `podctl.stage1`. Chosen by --stage1 or configuration."""

    @hookspec(firstresult=True)
    def stage1_describe(self) -> FlavorDescription:
        """Say what the flavor enforces and what it refuses. No I/O."""

    @hookspec(firstresult=True)
    def stage1_check_host(self) -> Sequence[str]:
        """Return one line for each thing this host lacks; empty when the flavor can run."""

    @hookspec(firstresult=True)
    def stage1_prepare(self, pod: PreparedPod) -> None:
        """Look at the pod once its root filesystems exist, before it counts as prepared. *May
        refuse* (Refused, naming the option and the remedy)."""

    @hookspec(firstresult=True)
    def stage1_plan(self, pod: PreparedPod) -> LaunchPlan:
        """Turn a prepared pod into the plan that core carries out in its own process."""

    @hookspec(firstresult=True)
    def stage1_enter(self, pod: PreparedPod, app: str, argv: Sequence[str]) -> EnterPlan:
        """Plan a process inside a running pod, confined no less than the app."""

    @hookspec(firstresult=True)
    def stage1_processes(self, pod: PreparedPod, app: str) -> Sequence[tuple[int, int]]:
        """The living processes of an app of a running pod, the app itself first: number, and
        start in clock ticks after boot (podctl.sys.procs.Process). Empty when it does not run.
        Called for `kill`, `top`, `stats` and `cp`."""

    @hookspec(firstresult=True)
    def stage1_stop(self, pod: PreparedPod, force: bool) -> None:
        """Ask the running pod to end (its apps' `stop_signal`), or make it end (`force`). Returns
        at once."""

    @hookspec(firstresult=True)
    def stage1_gc(self, pod: PreparedPod) -> None:
        """Release what the dead pod still holds on the host. Idempotent, also after a reboot."""

    @hookspec(firstresult=True)
    def stage1_root(self, pod: PreparedPod) -> PodRoot:
        """Where the apps' roots of a running mutable pod lie. Waits a moment for one that is just
        starting. This hook and those that follow are for flavors whose description says `mutable`.

        Raises:
            PodStateError: the pod does not run, or its first process is not ready.
        """

    @hookspec(firstresult=True)
    def stage1_app_launch(self, pod: PreparedPod, app: str) -> AppLaunch:
        """Plan one app of a running mutable pod, after stage1_prepare has seen a pod of that app
        alone. *May refuse.* Core builds its root, attaches it inside the pod at
        `opt/stage2/APP/rootfs` and leaves the launcher's document; nothing is started."""

    @hookspec(firstresult=True)
    def stage1_app_start(self, pod: PreparedPod, app: str) -> None:
        """Let the pod's first process start an app that does not run. Returns once it has: by then
        the file `status/APP-started` in the pod's directory is new, and `status/APP` is not there
        until the app has ended."""

    @hookspec(firstresult=True)
    def stage1_app_stop(self, pod: PreparedPod, app: str) -> None:
        """Let the pod's first process stop an app: its `stop_signal`, and SIGKILL when its time is
        over. Returns once the app was told."""

    @hookspec(firstresult=True)
    def stage1_app_rm(self, pod: PreparedPod, app: str) -> None:
        """Remove what the flavor has in the pod's directory of an app that is no more, whose mounts
        are gone. Idempotent; the pod may run or not."""


class IsolatorSpec:
    """Family *isolators*, group `podctl.isolator`. Chosen by the isolator's name in appc, its
    slashes written as dots (`os.linux.cpu-shares`); `default`, which comes first, begins the record
    of every app whose flavor has defaults.

    What a provider adds to an app's record is carried out by core or by the flavor, or refused: a
    provider itself changes nothing. One object may stand behind several names, and is asked with
    the name appc writes.
    """

    @hookspec(firstresult=True)
    def isolator_contribute(
        self, name: str, value: object, record: Confinement, context: IsolatorContext
    ) -> Confinement:
        """Return the record with what this isolator adds to it. *May refuse.* Called while the pod
        is planned, for each isolator of each app in order; `value` is the JSON value (None for
        `default`), whose syntax podctl has checked if it knows the name. Reads the host, changes
        nothing.

        Raises:
            InvalidInput, Refused: the value cannot be.
        """

    @hookspec(firstresult=True)
    def isolator_lacks(
        self, name: str, value: object, record: Confinement, context: IsolatorContext
    ) -> Sequence[str]:
        """Return one line for each thing this host lacks to enforce the isolator: the pod is then
        refused. `record` is what isolator_contribute returned. Controllers of control groups are
        core's business."""


class EventSpec:
    """Group `podctl.hooks`: site policy and observers. Every installed entry is loaded."""

    @hookspec
    def image_verified(self, image: Image, verdict: Verdict | None) -> None:
        """A fetched image passed (or, with `verdict` None, was excused from) signature checks
        and is about to be committed. *May refuse* (raise Refused)."""

    @hookspec
    def pod_starting(self, pod: PreparedPod, plan: LaunchPlan) -> None:
        """The plan is about to be carried out. *May refuse* (raise Refused)."""

    @hookspec
    def app_adding(self, pod: PreparedPod, app: AppLaunch) -> None:
        """An app is about to be added to a running mutable pod; `pod` has no other. *May refuse*
        (raise Refused)."""

    @hookspec
    def pod_removed(self, uuid: str) -> None:
        """A pod's directory is gone. *Observes.*"""
