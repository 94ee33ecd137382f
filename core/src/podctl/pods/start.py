"""From images and settings to a pod that is prepared, or that this process becomes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from podctl.errors import PodStateError
from podctl.pods.directories import PREPARED, RUN
from podctl.pods.flavors import refuse_manifest
from podctl.pods.prepare import Contents, check_sources, imagine, overlay_problem, populate
from podctl.pods.prepared import CONFINEMENT, SETTINGS, assemble, load_parts
from podctl.pods.removal import discard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from podctl.model.confinement import Confinement
    from podctl.model.plan import FlavorDescription, LaunchPlan, PreparedPod, RootFilesystem
    from podctl.model.podmanifest import PodManifest
    from podctl.plugins import FlavorHandle
    from podctl.pods.directories import LockedPod, Pod, PodDirectories
    from podctl.pods.kept import Keeping
    from podctl.pods.prepared import RunSettings
    from podctl.store import Store

    Say = Callable[[str], None]
    #: finds the images and decides what the pod is; called with the store's prepare lock held
    Decide = Callable[[], Contents]

#: stands for the UUID of a pod that is only imagined
_NO_UUID = "00000000-0000-4000-8000-000000000000"


class Starter:
    """Starts and prepares pods of one data directory with one flavor.

    Args:
        pods, store: of the data directory.
        flavor: loaded.
        say: prints one line of what is going on (standard error).
        name: of the pod; None for none.
    """

    def __init__(
        self,
        pods: PodDirectories,
        store: Store,
        flavor: FlavorHandle,
        say: Say,
        *,
        name: str | None = None,
    ) -> None:
        self._pods = pods
        self._store = store
        self._flavor = flavor
        self._description: FlavorDescription = flavor.describe()
        self._say = say
        self._name = name

    def prepare(self, decide: Decide, announce: Callable[[str], None]) -> str:
        """Prepare a pod to be run later; returns its UUID.

        Args:
            announce: called with the UUID as soon as the pod exists.
        """
        pod, _ = self._build(decide, announce)
        with pod:
            try:
                _sync(pod)
                self._pods.move(pod, PREPARED, durable=True)
            except BaseException:
                discard(pod, self._pods)
                raise
        return pod.uuid

    def run(
        self, decide: Decide, announce: Callable[[str], None], keeping: Keeping | None = None
    ) -> str:
        """Prepare a pod and become it, or (`keeping`) start it; returns its UUID when it was
        detached."""
        pod, (contents, roots) = self._build(decide, announce, check=check_sources)
        try:
            self._pods.move(pod, RUN, durable=False)
            prepared = assemble(
                pod.uuid,
                pod.directory,
                contents.manifest,
                contents.settings,
                roots,
                contents.confinement,
            )
            self._become(prepared, pod, keeping)
        except BaseException as error:
            # Nothing of the app has run: leave no pod that looks as if it had.
            if not getattr(error, "has_ended", False):
                discard(pod, self._pods)
            raise
        return pod.uuid

    def plan_run(self, decide: Decide) -> LaunchPlan:
        """The plan `run` would carry out. Nothing is written."""
        contents = decide()
        contents = self._confined(contents)
        check_sources(contents.manifest)
        directory = self._pods.path(RUN, _NO_UUID)
        prepared = imagine(_NO_UUID, directory, contents, self._store)
        self._flavor.prepare(prepared)
        return self._flavor.plan(_imagine_users(prepared, self._description, self._say))

    def _build(
        self,
        decide: Decide,
        announce: Callable[[str], None],
        check: Callable[[PodManifest], None] = lambda _manifest: None,
    ) -> tuple[LockedPod, tuple[Contents, Mapping[str, RootFilesystem]]]:
        with self._store.preparing():
            self._check_name()
            contents = decide()
            contents = self._confined(contents)
            check(contents.manifest)
            contents = self._with_overlay(contents)
            pod = self._pods.create()
            try:
                self._reserve_name(pod)
                announce(pod.uuid)
                roots = populate(pod, contents, self._store)
                self._flavor.prepare(
                    assemble(
                        pod.uuid,
                        pod.directory,
                        contents.manifest,
                        contents.settings,
                        roots,
                        contents.confinement,
                    )
                )
            except BaseException:
                discard(pod, self._pods)
                raise
        return pod, (contents, roots)

    def _confined(self, contents: Contents) -> Contents:
        """The contents with what each app is held to; refuses what cannot be enforced."""
        manifest, insecure = contents.manifest, contents.settings.insecure
        refuse_manifest(self._description, manifest, insecure)
        records = _confine(self._description, manifest, insecure, self._say)
        return contents._replace(confinement=records)

    def _check_name(self) -> None:
        """Before anything is fetched for nothing; what counts is the reservation."""
        if self._name is not None:
            from podctl.pods.podnames import refuse_taken

            refuse_taken(self._pods, self._name)

    def _reserve_name(self, pod: LockedPod) -> None:
        if self._name is not None:
            from podctl.pods.podnames import reserve

            reserve(self._pods, pod, self._name)

    def _with_overlay(self, contents: Contents) -> Contents:
        if not contents.overlay:
            return contents
        problem = overlay_problem(self._pods.data_dir)
        if problem is None:
            return contents
        self._say(f'disabling overlay support: "{problem}"')
        return contents._replace(overlay=False)

    def _become(self, prepared: PreparedPod, pod: LockedPod, keeping: Keeping | None) -> None:
        from podctl.plugins import events
        from podctl.pods.userns import users_of

        prepared = prepared._replace(users=users_of(prepared, self._description, self._say))
        plan = self._flavor.plan(prepared)
        events(self._say).pod_starting(prepared, plan)
        _launch(plan, prepared, pod, keeping, self._flavor)


class PreparedStarter:
    """Runs pods that were prepared before.

    Args:
        pods: of the data directory.
        say: prints one line (standard error).
    """

    def __init__(self, pods: PodDirectories, say: Say) -> None:
        self._pods = pods
        self._say = say

    def plan(self, pod: Pod, flavor: FlavorHandle, settings: RunSettings) -> LaunchPlan:
        """The plan `run` would carry out. Nothing is written."""
        if pod.place != PREPARED:
            raise PodStateError(f'pod "{pod.uuid}" is not prepared')
        prepared, _ = self._as_it_would_run(pod, flavor, settings)
        return flavor.plan(_imagine_users(prepared, flavor.describe(), self._say))

    def run(
        self,
        pod: Pod,
        flavor: FlavorHandle,
        settings: RunSettings,
        keeping: Keeping | None = None,
    ) -> None:
        """Become a prepared pod, or (`keeping`) start it. A pod runs once.

        Raises:
            PodStateError: it is not prepared, or another process is about to run or remove it.
        """
        from podctl.plugins import events
        from podctl.pods.userns import users_of
        from podctl.sys.files import write_atomic

        locked = self._pods.take(pod) if pod.place == PREPARED else None
        if locked is None:
            raise PodStateError(f'pod "{pod.uuid}" is not prepared')
        prepared, records = self._as_it_would_run(pod, flavor, settings)
        # What can be refused is refused while the pod can still be run another time.
        here = prepared._replace(directory=locked.directory)
        prepared = prepared._replace(users=users_of(here, flavor.describe(), self._say))
        plan = flavor.plan(prepared)
        events(self._say).pod_starting(prepared, plan)
        kept = settings._replace(options=prepared.options).to_bytes()
        write_atomic(locked.path(SETTINGS), kept, mode=0o640, durable=False)
        if records or os.path.exists(locked.path(CONFINEMENT)):
            from podctl.pods.confining import records_to_bytes

            held = records_to_bytes(records)
            write_atomic(locked.path(CONFINEMENT), held, mode=0o640, durable=False)
        self._pods.move(locked, RUN, durable=True)
        _launch(plan, prepared, locked, keeping, flavor)

    def _as_it_would_run(
        self, pod: Pod, flavor: FlavorHandle, settings: RunSettings
    ) -> tuple[PreparedPod, Mapping[str, Confinement]]:
        """What its apps are held to is decided anew: the host may be another one by now."""
        manifest, before, roots, _ = load_parts(pod.directory)
        check_sources(manifest)
        settings = settings._replace(options={**before.options, **settings.options})
        directory = self._pods.path(RUN, pod.uuid)
        records = _confine(flavor.describe(), manifest, settings.insecure, self._say)
        return assemble(pod.uuid, directory, manifest, settings, roots, records), records


def _imagine_users(pod: PreparedPod, description: FlavorDescription, say: Say) -> PreparedPod:
    from podctl.pods.userns import users_of

    return pod._replace(users=users_of(pod, description, say, imagined=True))


def _confine(
    description: FlavorDescription, manifest: PodManifest, insecure: frozenset[str], say: Say
) -> Mapping[str, Confinement]:
    if not description.defaults and not any(one.app and one.app.isolators for one in manifest.apps):
        return {}
    from podctl.pods.confining import confine

    return confine(description, manifest, insecure, say)


def _launch(
    plan: LaunchPlan,
    prepared: PreparedPod,
    pod: LockedPod,
    keeping: Keeping | None,
    flavor: FlavorHandle,
) -> None:
    if keeping is None:
        from podctl.pods.launch import launch

        launch(plan, prepared, pod.lock_fd)
    from podctl.pods.kept import await_apps, launch_kept

    launch_kept(plan, prepared, pod.lock_fd, keeping)
    if plan.apps:
        await_apps(flavor, prepared)


def _sync(pod: LockedPod) -> None:
    """Everything of the pod is on the disk before its name says that it is complete."""
    from podctl.sys.files import syncfs

    fd = os.open(pod.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syncfs(fd)
    finally:
        os.close(fd)
