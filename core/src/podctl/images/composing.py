"""An image's whole root filesystem as one archive: to make an image of another format of it."""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from podctl.errors import HostLacks, InvalidInput, NotFound, Refused
from podctl.images import tarwrite
from podctl.images.extracting import copied_sources
from podctl.model import jsontext
from podctl.model.image import appc_value
from podctl.model.plan import Account
from podctl.sys.child import Privileges, spawn
from podctl.sys.files import write_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podctl.images.tarwrite import Output
    from podctl.model.image import Image
    from podctl.model.plan import Identity
    from podctl.store import ImageRecord, Store

    #: Resolves a user inside an open root filesystem.
    Identify = Callable[[int, Account], Identity]


class Written(NamedTuple):
    """An archive that was written.

    Args:
        digest: `sha256:` and 64 digits.
        size: in bytes.
    """

    digest: str
    size: int


@contextmanager
def root_filesystem(store: Store, record: ImageRecord, say: Callable[[str], None]) -> Iterator[str]:
    """Path of a directory with the files of an image and all it depends on, to be read only.

    Raises:
        Refused: the caller is not root.
        NotFound, StoreCorrupt: a dependency is missing, or bytes are damaged.
    """
    if not store.privileged:
        raise Refused(
            f'image "{record.name}" must be unpacked to be written in another format',
            hint="run it as root",
        )
    with store.preparing(), store.staging() as staging:
        sources = copied_sources(store, record, say)
        if len(sources) == 1 and sources[0][1] is None:
            yield sources[0][0]
            return
        from podctl.images.render import copy_layers

        directory = staging.piece().directory
        assert directory is not None
        copy_layers(sources, directory, say)
        yield directory


def write_aci(
    root: str, fd: int, image: Image, identify: Identify, say: Callable[[str], None]
) -> None:
    """Write an App Container Image of a root filesystem, with a manifest made of `image`.

    Args:
        root: see root_filesystem.
        identify: finds an app's own groups, which appc wants as numbers.
    """

    def write(output: Output, root_fd: int) -> tuple[str, ...]:
        manifest = jsontext.dumps(appc_value(_with_groups(image, root_fd, identify)))
        return tarwrite.write_aci(output, manifest, root_fd)

    _write(root, fd, write, say)


def write_layer(root: str, fd: int, say: Callable[[str], None]) -> Written:
    """Write a root filesystem as one layer.

    Raises:
        Refused: it has names that a layer cannot hold.
    """
    return _write(root, fd, tarwrite.write_layer, say)


class _Counted:
    """What is written, hashed on the way."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes, /) -> None:
        self._digest.update(data)
        self._size += len(data)
        try:
            write_all(self._fd, data)
        except OSError as error:
            raise HostLacks(f"cannot write the image: {error.strerror}") from None

    def result(self) -> list[Any]:
        return [f"sha256:{self._digest.hexdigest()}", self._size]


def _write(
    root: str,
    fd: int,
    write: Callable[[Output, int], tuple[str, ...]],
    say: Callable[[str], None],
) -> Written:
    """Write in a child that sees the root filesystem alone, and keeps what reading it takes."""

    def work() -> Any:
        output = _Counted(fd)
        root_fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        left_out = write(output, root_fd)
        return [*output.result(), list(left_out)]

    child = spawn(work, privileges=Privileges.EXTRACT, keep=(fd,), name="export", chroot_to=root)
    with child:
        answer: Any = child.wait()
    for line in answer[2]:
        say(str(line))
    return Written(str(answer[0]), int(answer[1]))


def _with_groups(image: Image, root_fd: int, identify: Identify) -> Image:
    """Put numbers where an app has its user's own groups."""
    app = image.app
    if app is None or app.group:
        return image
    try:
        found = identify(root_fd, Account(app.user, "", app.supplementary_gids))
    except (NotFound, InvalidInput):
        # A user that is nowhere has no groups.
        return image._replace(app=app._replace(group="0"))
    changed = app._replace(group=str(found.gid), supplementary_gids=found.groups)
    return image._replace(app=changed)
