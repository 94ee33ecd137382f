"""The group `podctl.hooks`: site policy, which may refuse, and observers, which may not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.errors import PodctlError
from podctl.plugins.families import HOOKS
from podctl.plugins.handles import Handle
from podctl.plugins.loading import load

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.model.image import Image
    from podctl.model.plan import AppLaunch, LaunchPlan, PreparedPod
    from podctl.model.trusting import Verdict
    from podctl.plugins.discovery import Installed
    from podctl.plugins.provider import Provider


class _Listener(Handle):
    __slots__ = ()

    def tell(self, hook: str, **arguments: object) -> None:
        self._tell(hook, **arguments)


class Events:
    """Calls every installed hook, in the order of their names.

    Args:
        snapshot: the installed providers.
        warn: called with one line when an observer fails.
    """

    def __init__(self, snapshot: Installed, warn: Callable[[str], None]) -> None:
        self._snapshot = snapshot
        self._warn = warn
        self._loaded: dict[Provider, _Listener] = {}

    def image_verified(self, image: Image, verdict: Verdict | None) -> None:
        """Before an image is committed. Raises what a hook raises; a broken hook refuses too."""
        self._decide("image_verified", image=image, verdict=verdict)

    def pod_starting(self, pod: PreparedPod, plan: LaunchPlan) -> None:
        """Before a plan is carried out. Raises what a hook raises; a broken hook refuses too."""
        self._decide("pod_starting", pod=pod, plan=plan)

    def app_adding(self, pod: PreparedPod, app: AppLaunch) -> None:
        """Before an app is added to a running pod. Raises as pod_starting."""
        self._decide("app_adding", pod=pod, app=app)

    def pod_removed(self, uuid: str) -> None:
        """After a pod's directory is gone. Nothing a hook does changes anything."""
        try:
            members = self._snapshot.family(HOOKS)
        except PodctlError as error:
            self._warn(str(error))
            return
        for provider in members:
            try:
                self._listener(provider).tell("pod_removed", uuid=uuid)
            except PodctlError as error:
                self._warn(str(error))

    def _decide(self, hook: str, **arguments: object) -> None:
        for provider in self._snapshot.family(HOOKS):
            self._listener(provider).tell(hook, **arguments)

    def _listener(self, provider: Provider) -> _Listener:
        if provider not in self._loaded:
            manager = load(provider, indexed=self._snapshot.indexed)
            self._loaded[provider] = _Listener(provider, manager)
        return self._loaded[provider]
