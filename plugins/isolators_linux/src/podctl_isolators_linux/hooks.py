"""The providers of the isolators of Linux, and of `default`: one object behind all names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.api import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podctl.model.confinement import Confinement, IsolatorContext


class Linux:
    """See podctl.api.hookspecs.IsolatorSpec."""

    @hookimpl
    def isolator_contribute(
        self, name: str, value: object, record: Confinement, context: IsolatorContext
    ) -> Confinement:
        from podctl_isolators_linux.contributing import CONTRIBUTIONS

        return CONTRIBUTIONS[name](value, record, context)

    @hookimpl
    def isolator_lacks(self, name: str) -> Sequence[str]:
        if name != "os/linux/selinux-context":
            return ()
        from podctl_isolators_linux.host import selinux_lacks

        return selinux_lacks()


linux = Linux()
