"""What images say beside their app section of how they run: annotations.

Most are of images converted from Docker's and OCI's formats: docker2aci wrote
`appc.io/docker/repository` into the ACIs it made, and rkt went by it; so they and the images podctl
converts itself are treated alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podctl.model.streams import Streams

ANNOTATION = "appc.io/docker/"
REPOSITORY = f"{ANNOTATION}repository"
STOP_SIGNAL = f"{ANNOTATION}stopsignal"
STOP_TIMEOUT = f"{ANNOTATION}stoptimeout"
#: the app says by itself when it is ready (sd_notify(3)); rkt's name
NOTIFIES = "appc.io/executor/supports-systemd-notify"
#: an app's standard streams; rkt's name, that of a stream follows. No image decides on them.
STREAMS = "coreos.com/rkt/stage2/"
#: what a pod keeps of its images, since it outlives them
KEPT = (REPOSITORY, STOP_SIGNAL, STOP_TIMEOUT, NOTIFIES)
_SIGTERM = 15


def kept_annotations(image: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """The annotations of an app: its own, and before them what decides how its image runs.

    Raises:
        InvalidInput: a signal, a time or a stream's mode is none.
    """
    annotations = {name: image[name] for name in KEPT if name in image} | dict(own)
    stop_signal(annotations)
    stop_timeout(annotations)
    notifies(annotations)
    streams(annotations)
    return annotations


def is_converted(annotations: Mapping[str, str]) -> bool:
    """Whether Docker's rules hold where they differ from appc's."""
    return REPOSITORY in annotations


def streams(annotations: Mapping[str, str]) -> Streams | None:
    """What the app's standard streams are; None for the pod's.

    Raises:
        InvalidInput: one is of no known mode, or they exclude each other.
    """
    given = {name: mode for name, mode in annotations.items() if name.startswith(STREAMS)}
    if not given:
        return None
    from podctl.model.streams import DEFAULT, streams_of

    found = streams_of(given)
    return None if found == DEFAULT else found


def notifies(annotations: Mapping[str, str]) -> bool:
    """Whether the app says by itself when it is ready.

    Raises:
        InvalidInput: it is neither `true` nor `false`.
    """
    text = annotations.get(NOTIFIES, "false")
    if text not in ("true", "false"):
        raise InvalidInput(f"annotation {NOTIFIES}: {text[:40]!r} must be true or false")
    return text == "true"


def stop_signal(annotations: Mapping[str, str]) -> int:
    """The signal that asks the app to end; SIGTERM where nothing is said.

    Raises:
        InvalidInput: there is no such signal.
    """
    text = annotations.get(STOP_SIGNAL)
    if text is None:
        return _SIGTERM
    from podctl.model.signals import signal_number

    try:
        return signal_number(text)
    except InvalidInput as error:
        raise InvalidInput(f"annotation {STOP_SIGNAL}: {error.message}") from None


def stop_timeout(annotations: Mapping[str, str]) -> int | None:
    """Seconds an app has to end; None where nothing is said.

    Raises:
        InvalidInput: it is no number.
    """
    text = annotations.get(STOP_TIMEOUT)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 19:
        raise InvalidInput(f"annotation {STOP_TIMEOUT}: {text[:40]!r} is no number of seconds")
    return int(text)
