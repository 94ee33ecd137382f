"""A hook that keeps a diary of what starts, and lets no image called forbidden in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.api import hookimpl
from podctl.errors import Refused

if TYPE_CHECKING:
    from podctl.model.image import Image
    from podctl.model.plan import LaunchPlan, PreparedPod

DIARY = "/var/tmp/acme-shelf/diary"


class Diary:
    """See podctl.api.hookspecs.EventSpec."""

    @hookimpl
    def image_verified(self, image: Image) -> None:
        if image.name.endswith("/forbidden"):
            raise Refused(f'image "{image.name}" is not for this site')

    @hookimpl
    def pod_starting(self, pod: PreparedPod, plan: LaunchPlan) -> None:
        with open(DIARY, "a") as file:
            file.write(f"{plan.flavor} {pod.apps[0].name}\n")


diary = Diary()
