"""What `list` and `status` say of a pod, read from its directory alone.

Nothing here parses with the strict model: a thousand pods are summarised in the time one command
may take, and a pod whose files are damaged is still named, with what can be read.
"""

from __future__ import annotations

import os
from json import JSONDecoder
from typing import TYPE_CHECKING, Any

from podctl.errors import PodStateError, StoreCorrupt
from podctl.pods.directories import AFTER_RUN, MANIFEST, USERS

if TYPE_CHECKING:
    from podctl.pods.directories import Pod

_MAX_MANIFEST = 4 << 20
_CHUNK = 16384
_DECODER = JSONDecoder()
#: of apps of mutable pods (podctl.pods.appstate)
_MARKS = ("-created", "-started")
#: states in which the manifest is not there yet, or not any more
_WITHOUT_MANIFEST = frozenset(
    {"embryo", "preparing", "aborted prepare", "deleting", "exited deleting"}
)


def brief(pod: Pod) -> list[tuple[str, str, str]]:
    """Name, image (`name:version`) and image id of each app; empty where there is no manifest.

    Raises:
        StoreCorrupt: the manifest is damaged.
    """
    manifest = None if pod.state in _WITHOUT_MANIFEST else _read_manifest(pod)
    return [] if manifest is None else [_brief(entry) for entry in _objects(manifest, "apps")]


def summarise(pod: Pod) -> dict[str, Any]:
    """The JSON object of one pod, as `list` and `status` print it; what is not known is absent.

    Raises:
        StoreCorrupt: the manifest is damaged; `bare` still gives UUID and state.
    """
    summary = bare(pod)
    if pod.state in _WITHOUT_MANIFEST:
        return summary
    manifest = _read_manifest(pod)
    if manifest is None:
        return summary
    summary.update(_name(pod))
    summary.update(_times(pod))
    users = private_users(pod)
    if users is not None:
        summary["private_users"] = users
    apps = [_app(pod, entry, manifest, summary) for entry in _objects(manifest, "apps")]
    summary["app_names"] = [app["name"] for app in apps]
    summary["apps"] = apps
    _copy_annotations(manifest, summary)
    return summary


def bare(pod: Pod) -> dict[str, Any]:
    """What is known of a pod without opening a file of it."""
    return {"name": pod.uuid, "state": pod.state}


def manifest_of(pod: Pod) -> dict[str, Any]:
    """The pod manifest, as it is on disk.

    Raises:
        PodStateError: the pod has none in its state.
        StoreCorrupt: it is damaged.
    """
    manifest = None if pod.state in _WITHOUT_MANIFEST else _read_manifest(pod)
    if manifest is None:
        raise PodStateError(f'pod "{pod.uuid}" has no manifest while it is {pod.state}')
    return manifest


def running_pid(pod: Pod) -> int | None:
    """Number of the pod's first process as seen here; None while it is not known to run."""
    from podctl.sys.procs import is_running, read_instance

    try:
        instance = read_instance(pod.directory)
    except ValueError:
        return None
    return instance.pid if instance is not None and is_running(instance) else None


def private_users(pod: Pod) -> str | None:
    """BASE:SIZE of the users a pod has for itself, as recorded; None when it has the host's."""
    try:
        with open(pod.path(USERS), encoding="ascii", errors="replace") as file:
            return file.read(64).strip()
    except OSError:
        return None


def exit_codes(pod: Pod) -> dict[str, int]:
    """App name -> exit code, of the apps whose code was recorded.

    A flavor whose app is the pod's own process (fly) has nobody to record it.
    """
    directory = pod.path("status")
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, PermissionError):
        # The codes of some flavors are root's to see.
        return {}
    codes = {}
    for name in names:
        if name.endswith(_MARKS) and not os.path.getsize(f"{directory}/{name}"):
            continue
        code = _read_code(f"{directory}/{name}")
        if code is not None:
            codes[name] = code
    return codes


def _read_manifest(pod: Pod) -> dict[str, Any] | None:
    """The manifest's object; None when the pod is gone, or never got one."""
    try:
        fd = os.open(pod.path(MANIFEST), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreCorrupt(f'pod "{pod.uuid}": manifest: {error.strerror}') from None
    try:
        value = _DECODER.raw_decode(_read_all(fd).decode())[0]
    except (OSError, ValueError, RecursionError):
        raise StoreCorrupt(f'pod "{pod.uuid}": manifest is damaged') from None
    finally:
        os.close(fd)
    if not isinstance(value, dict):
        raise StoreCorrupt(f'pod "{pod.uuid}": manifest is damaged')
    return value


def _read_all(fd: int) -> bytes:
    """Most manifests are short: one read, instead of the several a file object makes."""
    data = os.read(fd, _CHUNK)
    if len(data) < _CHUNK:
        return data
    with open(fd, "rb", closefd=False) as file:
        return data + file.read(_MAX_MANIFEST)


def _name(pod: Pod) -> dict[str, str]:
    from podctl.pods.podnames import name_of

    name = name_of(pod.directory)
    return {} if name is None else {"pod_name": name}


def _times(pod: Pod) -> dict[str, int]:
    """Creation and start, in seconds since the epoch."""
    found = {}
    if pod.created is not None:
        found["created_at"] = int(pod.created)
    started = pod.started()
    if started is not None:
        found["started_at"] = int(started)
    return found


def _modified(path: str) -> float | None:
    """mtime of a file in seconds since the epoch, None when it is missing."""
    try:
        return os.stat(path, follow_symlinks=False).st_mtime
    except OSError:
        return None


def _brief(entry: dict[str, Any]) -> tuple[str, str, str]:
    image = entry.get("image")
    if not isinstance(image, dict):
        return _text(entry, "name"), "", ""
    return _text(entry, "name"), _image_name(image), _text(image, "id")


def _app(
    pod: Pod, entry: dict[str, Any], manifest: dict[str, Any], summary: dict[str, Any]
) -> dict[str, Any]:
    name, image_name, image_id = _brief(entry)
    app: dict[str, Any] = {
        "name": name,
        "state": _app_state(pod),
        "image_name": image_name,
        "image_id": image_id,
    }
    if is_mutable(manifest):
        _add_state(pod, app)
    else:
        _add_pod_state(pod, app, summary)
    mounts = _mounts(pod, entry, manifest)
    if mounts:
        app["mounts"] = mounts
    section = entry.get("app")
    if isinstance(section, dict):
        _copy_annotations(section, app)
    return app


def is_mutable(manifest: dict[str, Any]) -> bool:
    """Whether a manifest is one of a pod whose apps come and go."""
    found = _objects(manifest, "annotations")
    return any(
        one.get("name") == "coreos.com/rkt/stage1/mutable" and one.get("value") == "true"
        for one in found
    )


def _add_state(pod: Pod, app: dict[str, Any]) -> None:
    """In a mutable pod each app has a state and times of its own."""
    from podctl.pods.appstate import app_state

    found = app_state(pod, app["name"])
    app["state"] = found.state
    times = {
        "created_at": found.created,
        "started_at": found.started,
        "finished_at": found.finished,
        "exit_code": found.code,
    }
    app.update((key, value) for key, value in times.items() if value is not None)


def _add_pod_state(pod: Pod, app: dict[str, Any], summary: dict[str, Any]) -> None:
    for key in ("created_at", "started_at"):
        if key in summary:
            app[key] = summary[key] * 1_000_000_000
    status = pod.path(f"status/{app['name']}")
    code, ended = _read_code(status), _modified(status)
    if pod.state in AFTER_RUN and code is not None and ended is not None:
        app["exit_code"] = code
        app["finished_at"] = int(ended * 1_000_000_000)


def _app_state(pod: Pod) -> str:
    if pod.state == "running":
        return "running"
    if pod.state in AFTER_RUN:
        return "exited"
    return "created" if pod.state == "prepared" else "unknown"


def _read_code(path: str) -> int | None:
    """An exit status as recorded; 1 when the record cannot be read as one (rkt's rule)."""
    try:
        with open(path, "rb") as file:
            text = file.read(16)
    except OSError:
        return None
    try:
        return int(text)
    except ValueError:
        return 1


def _mounts(pod: Pod, entry: dict[str, Any], manifest: dict[str, Any]) -> list[dict[str, Any]]:
    volumes = {_text(volume, "name"): volume for volume in _objects(manifest, "volumes")}
    section = entry.get("app")
    points = _objects(section, "mountPoints") if isinstance(section, dict) else []
    read_only_points = {_text(point, "path") for point in points if point.get("readOnly") is True}
    found = []
    for mount in _objects(entry, "mounts"):
        name, path = _text(mount, "volume"), _text(mount, "path")
        own = mount.get("appVolume")
        volume = own if isinstance(own, dict) else volumes.get(name, {})
        read_only = volume.get("readOnly")
        if not isinstance(read_only, bool):
            read_only = path in read_only_points
        source = _text(volume, "source") or pod.path(f"sharedVolumes/{name}")
        found.append(
            {"name": name, "container_path": path, "host_path": source, "read_only": read_only}
        )
    return found


def _image_name(image: dict[str, Any]) -> str:
    name = _text(image, "name")
    for label in _objects(image, "labels"):
        if label.get("name") == "version":
            return f"{name}:{_text(label, 'value')}"
    return name


def _copy_annotations(source: dict[str, Any], target: dict[str, Any]) -> None:
    for key, name in (("userAnnotations", "user_annotations"), ("userLabels", "user_labels")):
        value = source.get(key)
        if isinstance(value, dict) and value:
            target[name] = value


def _objects(parent: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = parent.get(key)
    return [item for item in value if type(item) is dict] if type(value) is list else []


def _text(parent: dict[str, Any], key: str) -> str:
    value = parent.get(key)
    return value if isinstance(value, str) else ""
