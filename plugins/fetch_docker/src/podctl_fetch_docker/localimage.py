"""A directory or an archive of whichever kind that holds an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.errors import ManifestInvalid
from podctl_fetch_docker.dockerarchive import is_docker_archive, read_docker_archive
from podctl_fetch_docker.ocilayout import is_layout, read_layout

if TYPE_CHECKING:
    from podctl.model.layoutfiles import LayoutFiles
    from podctl_fetch_docker.archivefiles import Found
    from podctl_fetch_docker.platforms import Platform


def read_local(
    files: LayoutFiles,
    selector: str | None,
    wanted: Platform,
    repository: str,
    *,
    signatures: bool = True,
) -> Found:
    """Find an image; what is a layout and an archive of `docker save` is read as a layout.

    Docker writes both since version 25, and only the layout has the image's own manifest.

    Args:
        selector, wanted, repository, signatures: see podctl_fetch_docker.ocilayout.read_layout.

    Raises:
        ManifestInvalid: it is neither; or see read_layout, read_docker_archive.
    """
    if is_layout(files):
        return read_layout(files, selector, wanted, repository, signatures=signatures)
    if is_docker_archive(files):
        return read_docker_archive(files, selector, repository)
    raise ManifestInvalid(
        "neither an OCI layout (oci-layout, index.json) nor an archive of docker save "
        "(manifest.json)"
    )
