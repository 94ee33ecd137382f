"""Hook `format_unfold`: an image without a registry, as core wants it."""

from __future__ import annotations

from podctl.model.imagedocument import dump_signatures
from podctl.model.layoutfiles import LayoutFiles, LayoutRequest, Unfolded
from podctl_fetch_docker.archivefiles import local_repository
from podctl_fetch_docker.localimage import read_local
from podctl_fetch_docker.ocilayout import read_layout
from podctl_fetch_docker.platforms import wanted_platform


def unfold(files: LayoutFiles, request: LayoutRequest) -> Unfolded:
    """See podctl.api.hookspecs.FormatSpec.format_unfold."""
    find = read_layout if request.kind.startswith("oci") else read_local
    found = find(
        files,
        request.selector,
        wanted_platform(request.labels),
        local_repository(request.place),
        signatures=request.want_signature,
    )
    return Unfolded(
        document=found.document.dump(),
        blobs=dict(found.blobs),
        signature=dump_signatures(found.signatures) if found.signatures else None,
    )
