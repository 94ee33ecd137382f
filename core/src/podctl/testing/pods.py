"""Real pods for tests: a busybox image, a prepared pod of it, and a process that becomes it.

Needs root, an overlay filesystem and a static busybox (Debian: busybox-static).
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import time
import uuid
from typing import TYPE_CHECKING, NamedTuple, cast

from podctl.errors import PodctlError
from podctl.model.manifest import App
from podctl.model.plan import PreparedApp, PreparedPod, RootFilesystem
from podctl.sys.locks import held, lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from podctl.model.isolators import Isolator
    from podctl.model.plan import Bind, FlavorDescription, LaunchPlan

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: the number under which a pod's first process finds the lock
LOCK_FD = 5
#: seconds after which a test is lost, far beyond what anything here takes
PATIENCE = 60
_APPLETS = (
    "sh cat chown echo env false grep head id kill ls mkdir mknod mount mv pwd readlink rm setsid "
    "sleep stat tail test touch true umount wc"
)


def busybox() -> str | None:
    """Path of a static busybox on this host."""
    for path in ("/bin/busybox", "/usr/bin/busybox"):
        if os.access(path, os.X_OK):
            return path
    return None


def make_image(directory: str) -> str:
    """Fill `directory` with a small root filesystem: /bin, /etc/passwd, /etc/group."""
    source = busybox()
    if source is None:
        raise FileNotFoundError("no static busybox; Debian: apt-get install busybox-static")
    for name in ("bin", "etc"):
        os.makedirs(f"{directory}/{name}")
    shutil.copy2(source, f"{directory}/bin/busybox")
    for applet in _APPLETS.split():
        os.symlink("busybox", f"{directory}/bin/{applet}")
    with open(f"{directory}/etc/passwd", "w") as file:
        file.write("root:x:0:0:root:/root:/bin/sh\nweb:x:1001:1002::/:/bin/sh\n")
    with open(f"{directory}/etc/group", "w") as file:
        file.write("root:x:0:\nweb:x:1002:\nadm:x:4:\n")
    return directory


class PodFactory:
    """Makes pods below one directory; all share one image unless told otherwise."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.image = make_image(f"{directory}/image")

    def pod(
        self,
        *argv: str,
        user: str = "0",
        group: str = "0",
        groups: tuple[int, ...] = (),
        working_directory: str = "/",
        environment: Mapping[str, str] | None = None,
        isolators: Iterable[Isolator] = (),
        event_handlers: Mapping[str, tuple[str, ...]] | None = None,
        mounts: tuple[Bind, ...] = (),
        read_only_rootfs: bool = False,
        apps: int = 1,
        layers: tuple[str, ...] | None = None,
        rootfs: str | None = None,
        make_working_directory: bool = False,
        stop_signal: int = signal.SIGTERM,
        **options: object,
    ) -> PreparedPod:
        """A pod, its directory made, not yet running.

        Args:
            apps: how many equal apps it has (`app`, `app2`, ...).
            layers: layer directories, the highest first; the busybox image by default.
            rootfs: a ready directory to use instead of layers.
            options: further fields of PreparedPod.
        """
        name = str(uuid.uuid4())
        directory = f"{self.directory}/pods/{name}"
        app = App(
            exec=argv,
            user=user,
            group=group,
            supplementary_gids=groups,
            working_directory=working_directory,
            isolators=tuple(isolators),
            event_handlers=event_handlers or {},
        )
        prepared = []
        for number in range(1, apps + 1):
            app_name = "app" if number == 1 else f"app{number}"
            for part in ("upper", "work", "rootfs"):
                os.makedirs(f"{directory}/{app_name}/{part}")
            prepared.append(
                PreparedApp(
                    name=app_name,
                    image_id="sha512-" + "0" * 64,
                    app=app,
                    rootfs=RootFilesystem(layers or (self.image,), rootfs),
                    upper=f"{directory}/{app_name}/upper",
                    work=f"{directory}/{app_name}/work",
                    root=rootfs or f"{directory}/{app_name}/rootfs",
                    mounts=mounts,
                    read_only_rootfs=read_only_rootfs,
                    environment={"PATH": PATH, "AC_APP_NAME": app_name, **(environment or {})},
                    make_working_directory=make_working_directory,
                    stop_signal=stop_signal,
                )
            )
        return PreparedPod(name, directory, tuple(prepared), **options)  # type: ignore[arg-type]


class Result(NamedTuple):
    """How a process ended: exit code (128 + signal when killed by one) and its output."""

    code: int
    out: str
    err: str


class Process:
    """A forked process with piped output; killed and reaped when the context ends.

    Args:
        function: what the process does.
        pod_directory: of the pod it becomes, whose control groups go with it.
    """

    def __init__(self, function: Callable[[], object], pod_directory: str | None = None) -> None:
        self._pod_directory = pod_directory
        self._out, out = os.pipe2(os.O_CLOEXEC)
        self._err, err = os.pipe2(os.O_CLOEXEC)
        self._seen = {self._out: b"", self._err: b""}
        self._open = {self._out, self._err}
        self._pipes: tuple[int, ...] = (self._out, self._err)
        self.code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _become(function, out, err)
        os.close(out)
        os.close(err)

    def read_line(self) -> str:
        """The next line of standard output, waiting for it; empty at the end."""
        while b"\n" not in self._seen[self._out] and self._out in self._open:
            self._pump()
        line, newline, rest = self._seen[self._out].partition(b"\n")
        self._seen[self._out] = rest
        return (line + newline).decode()

    def wait(self) -> Result:
        """Everything it writes until it ends, and how it ends."""
        while self._open:
            self._pump()
        self.reap()
        return self.result()

    def reap(self) -> int:
        """Wait for the process alone, not for whoever else holds its output."""
        if self.code is None:
            pidfd = os.pidfd_open(self.pid)
            try:
                if not select.select([pidfd], [], [], PATIENCE)[0]:
                    raise TimeoutError(f"process {self.pid} does not end")
            finally:
                os.close(pidfd)
            status = os.waitpid(self.pid, 0)[1]
            code = os.waitstatus_to_exitcode(status)
            self.code = code if code >= 0 else 128 - code
        return self.code

    def result(self) -> Result:
        """What is known so far."""
        out, err = (self._seen[fd].decode(errors="replace") for fd in (self._out, self._err))
        return Result(-1 if self.code is None else self.code, out, err)

    def close(self) -> None:
        """Kill it if it still runs, reap it, close the pipes."""
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.reap()
        for fd in self._pipes:
            os.close(fd)
        self._pipes = ()
        self._open.clear()
        if self._pod_directory is not None:
            from podctl.pods.grouping import remove_groups

            remove_groups(self._pod_directory)

    def _pump(self) -> None:
        ready = select.select(list(self._open), [], [], PATIENCE)[0]
        if not ready:
            raise TimeoutError(f"no output from process {self.pid}: {self.result()}")
        for fd in ready:
            data = os.read(fd, 1 << 16)
            self._seen[fd] += data
            if not data:
                self._open.discard(fd)

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _become(function: Callable[[], object], out: int, err: int) -> None:
    """Run in the child; an expected failure is one line and its exit code, as in the CLI."""
    code = 1
    try:
        null = os.open("/dev/null", os.O_RDONLY)
        for fd, number in ((null, 0), (out, 1), (err, 2)):
            os.dup2(fd, number)
        function()
        code = 0
    except PodctlError as error:
        os.write(2, f"{error}\n".encode())
        code = error.exit_code
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def lock_path(pod: PreparedPod) -> str:
    """The pod's lock file."""
    return f"{pod.directory}/lock"


def start(plan: LaunchPlan, pod: PreparedPod) -> Process:
    """Fork a process that locks the pod and becomes it."""

    def become_pod() -> None:
        from podctl.pods.launch import launch

        fd = os.open(lock_path(pod), os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.dup2(fd, LOCK_FD, inheritable=False)
        lock(LOCK_FD, exclusive=True)
        launch(plan, pod, LOCK_FD)

    return Process(become_pod, pod.directory)


def confined(description: FlavorDescription, pod: PreparedPod) -> PreparedPod:
    """The pod with what its apps are held to, as `podctl run` decides it.

    Raises:
        Refused, HostLacks: an isolator cannot be enforced.
    """
    from podctl.pods.confining import allow_volumes, confine_app

    apps = []
    for prepared in pod.apps:
        isolators = cast("App", prepared.app).isolators
        record = confine_app(description, prepared.name, isolators, pod.insecure)
        apps.append(prepared._replace(confinement=allow_volumes(record, prepared.mounts)))
    return pod._replace(apps=tuple(apps))


def is_locked(pod: PreparedPod) -> bool:
    """Whether a process of the pod holds its lock."""
    return held(lock_path(pod))


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Poll for something no descriptor tells of."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.002)


def host_mounts() -> list[str]:
    """mountinfo of this process, without the mount numbers."""
    with open("/proc/self/mountinfo") as file:
        return sorted(line.split(" ", 2)[2] for line in file)
