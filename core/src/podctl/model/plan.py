"""The launch plan: what a flavor wants done to start a pod, as a value.

A plan can be printed (`podctl run --dry-run`), compared and tested without root; core carries it
out in its own process, in the order of the fields, and ends with `execve`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from podctl.model.confinement import UNCONFINED, Confinement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podctl.model.streams import Streams


class UserRange(NamedTuple):
    """The host's ids that those of a pod are, in a user namespace: 0 is `base`."""

    base: int
    size: int = 65536

    def __str__(self) -> str:
        return f"{self.base}:{self.size}"


class Overlay(NamedTuple):
    """An overlay filesystem at `target`: `lowers` from highest to lowest priority; `flags` as of a
    Filesystem."""

    target: str
    lowers: tuple[str, ...]
    upper: str
    work: str
    flags: tuple[str, ...] = ()


class Scratch(NamedTuple):
    """An empty tmpfs: permission bits, owner and group as the pod sees them, and how many bytes it
    may hold (None for the kernel's default)."""

    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    size: int | None = None


class Bind(NamedTuple):
    """A bind mount of a host path onto a path inside the root filesystem.

    `source` is a host path; `target` is resolved inside the app's root and never leaves it,
    whatever symbolic links the image holds; missing targets are created (a directory, or an empty
    file when the source is not a directory). With `no_devices` no device file in it can be opened.

    Where the pod has users of its own, `owners` says whose its files are inside: `kept`, those
    of the same number (refused where the filesystem cannot do that); `host`, nobody of the pod;
    `either`, kept where that can be. What lies in the host's /dev, /proc or /sys is always the
    host's.

    With `scratch`, a tmpfs is mounted on the source first, seen by this pod alone, and the same one
    for all its apps.
    """

    source: str
    target: str
    recursive: bool = True
    read_only: bool = False
    propagation: str = "slave"
    no_devices: bool = False
    owners: str = "kept"
    scratch: Scratch | None = None


class Filesystem(NamedTuple):
    """A new filesystem (proc, tmpfs, devpts...) inside the root; `options` as for mount(8)."""

    fstype: str
    target: str
    options: str = ""
    flags: tuple[str, ...] = ("nosuid", "nodev", "noexec")


class WriteFile(NamedTuple):
    """A file core writes inside the root: `target` is resolved in-root like a bind's.

    `missing_only`: leave an existing file of the image alone.
    """

    target: str
    content: str
    mode: int = 0o644
    missing_only: bool = False


class Symlink(NamedTuple):
    """A symbolic link inside the root, made only where nothing stands."""

    target: str
    to: str


class Directory(NamedTuple):
    """A directory inside the root with this mode, made (with its parents, 0755) where missing;
    one that exists is left alone."""

    target: str
    mode: int = 0o755


Step = Overlay | Bind | Filesystem | WriteFile | Symlink | Directory


#: what login(1) tells a program of its user
LOGIN_VARIABLES = ("HOME", "LOGNAME", "USER")


class Identity(NamedTuple):
    """Numeric ids of the process; `groups` are the supplementary ones."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


class Account(NamedTuple):
    """User and group as an app section gives them; core resolves them inside the root.

    A number means that number, a name is looked up in the root's /etc/passwd or /etc/group, an
    absolute path stands for the owner of that file in the root. `groups` are the supplementary
    ones. An empty group is the user's own of /etc/passwd (0 where there is none), and adds those of
    /etc/group that list the user.

    Of LOGIN_VARIABLES, those that the environment lacks are added from the user's entry in
    /etc/passwd.
    """

    user: str
    group: str
    groups: tuple[int, ...] = ()


class Connections(NamedTuple):
    """Where an app's streams lead, if not all of them where the pod's do.

    Args:
        streams: what each of them is.
        outside: host directory of the socket at which the launcher hands over our ends of the app's
            terminal or pipes.
        inside: the same directory as the launcher sees it.
    """

    streams: Streams
    outside: str
    inside: str


class AppLaunch(NamedTuple):
    """One app of a pod whose first process is not the app itself.

    Core builds its root, resolves account, working directory and program inside it, and leaves
    what it found to the pod's own launcher (podctl.sys.applauncher), which starts the app.

    Args:
        name: the app's name.
        root: host path its root is mounted on, below the plan's root.
        source: host directory that is its root; None where the first step makes it (an overlay).
        steps: mounts and files, in order.
        identity, working_directory, environment, argv: as of a LaunchPlan.
        handlers: `pre-start` and `post-stop` -> argv, run as root in the app's root.
        read_only_root: as of a LaunchPlan.
        trees: system directories of the pod (`/dev`, `/proc`, `/sys`) that are mounted in its root.
        confinement: what the launcher holds the app to.
        takes_sockets: whether it gets the sockets that were passed to the pod (sd_listen_fds(3)).
        streams: host directory where the pod's first process looks for FIFOs named `stdout` and
            `stderr` before it starts the app, to connect it to them; None where it does not.
        connections: None where the app has the pod's streams.
    """

    name: str
    root: str
    source: str | None
    steps: tuple[Step, ...]
    identity: Identity | Account
    working_directory: str
    environment: Mapping[str, str]
    argv: tuple[str, ...]
    handlers: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    read_only_root: bool = False
    trees: tuple[str, ...] = ()
    confinement: Confinement = UNCONFINED
    takes_sockets: bool = False
    streams: str | None = None
    connections: Connections | None = None


class LaunchPlan(NamedTuple):
    """Everything between a prepared pod and its first process.

    Args:
        flavor: the flavor that made it.
        namespaces: kernel names without CLONE_NEW: NS (always there), UTS, IPC, NET, CGROUP.
        root: host path that becomes `/` of the process; None keeps the host's.
        steps: mounts and files, in order.
        read_only_root: remount `/` read-only after the steps.
        identity: ids to take on, last before exec.
        no_new_privileges: set PR_SET_NO_NEW_PRIVS.
        working_directory: resolved inside the root.
        environment: environment of the process, complete but for what an Account adds.
        argv: program and arguments; `argv[0]` without a slash is searched in the app's PATH,
            inside the root.
        inherited: what each descriptor beyond 0, 1, 2 that survives exec is (number -> meaning).
        records: files to write in the pod's directory just before exec (name -> text); the text
            `{pid}` stands for the process id. Core adds `instance` (podctl.sys.procs).
        apps: those the first process starts, their roots built after the steps; empty where it
            is the app itself.
        covered: host directories that get an empty tmpfs, seen by this pod alone.
        confinement: what the process is held to.
        enters_root: whether the process enters `root`; if not, it is a program of the host that
            finds the root built (and is named by its absolute path).
        null_input: standard input becomes /dev/null, and a terminal can only be written to.
        passes_lock: the program is told of the lock's descriptor as of a socket it is to pass on
            (sd_listen_fds(3)), for it closes all others.
        users: the ids of its user namespace, which what is executed makes: core makes everything
            in its roots belong to them. None keeps the host's users.
    """

    flavor: str
    namespaces: tuple[str, ...]
    root: str | None
    steps: tuple[Step, ...]
    identity: Identity | Account
    working_directory: str
    environment: Mapping[str, str]
    argv: tuple[str, ...]
    read_only_root: bool = False
    no_new_privileges: bool = False
    inherited: Mapping[str, str] = MappingProxyType({})
    records: Mapping[str, str] = MappingProxyType({})
    apps: tuple[AppLaunch, ...] = ()
    covered: tuple[str, ...] = ()
    confinement: Confinement = UNCONFINED
    enters_root: bool = True
    null_input: bool = False
    passes_lock: bool = False
    users: UserRange | None = None


class Through(NamedTuple):
    """The pod's own launcher (podctl.sys.applauncher), which the entering process becomes first.

    Args:
        pid, start_time: the pod's first process, whose namespaces and root hold the launcher.
        argv: the launcher's; core adds where it finds what it needs.
    """

    pid: int
    start_time: int
    argv: tuple[str, ...]


class EnterPlan(NamedTuple):
    """A process inside a running pod: join `namespaces` of `pid`, take its root, then exec.

    Core moves it into the control groups of `pid` and gives it no capability in its bounding set
    that `pid` lacks; `no_new_privileges` can only add to what `pid` already has.

    Args:
        pid: a process of the pod; of the app, if there are several.
        start_time: its start in clock ticks after boot (podctl.sys.procs): a process that got the
            same number later is refused.
        confinement: what it is held to, if it goes through the pod's launcher.
        through: that launcher; None where core itself goes inside, which takes a pod in the
            host's process and user namespaces.
        users: the pod's ids, if it has a user namespace.
        terminal: whether standard input is a terminal made for it alone, to be its session's.
    """

    pid: int
    start_time: int
    namespaces: tuple[str, ...]
    identity: Identity | Account
    no_new_privileges: bool
    working_directory: str
    environment: Mapping[str, str]
    argv: tuple[str, ...]
    confinement: Confinement = UNCONFINED
    through: Through | None = None
    users: UserRange | None = None
    terminal: bool = False


class PodRoot(NamedTuple):
    """Where the apps' roots of a running pod lie, and whose mount namespace shows them.

    Args:
        directory: host path of the pod's root (`root` of its LaunchPlan).
        pid, start_time: the pod's first process (podctl.sys.procs).
    """

    directory: str
    pid: int
    start_time: int


class FlavorDescription(NamedTuple):
    """What a flavor does with what a pod may ask.

    Args:
        name: the flavor's name.
        max_apps: how many apps a pod may have; None for any number.
        networks: network names it accepts, e.g. `("host",)`; `("*",)` for any.
        options: pod and app options it carries out (`hostname`, `private-users`, `ipc`, ...).
        isolators: appc isolator names it enforces.
        confines: fields of a record (podctl.model.confinement) it carries out; an isolator whose
            provider changes another one is refused.
        defaults: whether every app begins with what the isolator `default` contributes.
        mutable: whether apps can come to a running pod, and leave it.
    """

    name: str
    max_apps: int | None
    networks: tuple[str, ...]
    options: frozenset[str]
    isolators: frozenset[str]
    confines: frozenset[str] = frozenset()
    defaults: bool = False
    mutable: bool = False


class RootFilesystem(NamedTuple):
    """Where an app's root comes from: overlay layers (highest first), or a ready directory."""

    lowers: tuple[str, ...]
    directory: str | None = None


class PreparedApp(NamedTuple):
    """One app of a prepared pod, everything resolved except what lies inside its root.

    Args:
        name: pod-unique AC name.
        image_id: `sha512-` and 64 hexadecimal digits.
        app: the effective app section (podctl.model.manifest.App).
        rootfs: where its root comes from.
        upper: host path of the overlay's upper directory (empty without overlay).
        work: host path of the overlay's work directory.
        root: host path where its root is mounted or lies.
        mounts: (host source, in-root target, read_only, recursive), parents before children.
        read_only_rootfs: appc readOnlyRootFS.
        environment: environment in force; without LOGIN_VARIABLES where they are to be the user's.
        make_working_directory: a working directory that is missing in the root is to be made, once
            the volumes are mounted.
        stop_signal: number of the signal that asks the app to end.
        stop_timeout: seconds that its image gives the app to end; None if it says nothing.
        notifies: whether the app tells its supervisor when it is ready (sd_notify(3)).
        confinement: what its isolators and podctl's defaults hold it to.
        streams: what its standard streams are; None for the pod's.
    """

    name: str
    image_id: str
    app: object
    rootfs: RootFilesystem
    upper: str
    work: str
    root: str
    mounts: tuple[Bind, ...]
    read_only_rootfs: bool
    environment: Mapping[str, str]
    make_working_directory: bool = False
    stop_signal: int = 15
    stop_timeout: int | None = None
    notifies: bool = False
    confinement: Confinement = UNCONFINED
    streams: Streams | None = None


class PreparedPod(NamedTuple):
    """A pod as a flavor sees it.

    Args:
        uuid: lower-case UUIDv4.
        directory: host path of the pod's directory.
        apps: its apps, in manifest order.
        networks: names asked for by --net, `("default",)` when nothing was said.
        options: name -> value of pod options that were given (`hostname`, `private-users`,
            `ipc`, `dns`, ...); a flavor refuses what it does not list in its description.
        resolv_conf: text for /etc/resolv.conf; None leaves the image's.
        hosts: text for /etc/hosts; None leaves the image's.
        insecure: values of --insecure-options.
        interactive: whether a terminal was asked for.
        users: ids its apps are to have in a user namespace; None for the host's.
        mutable: whether it lives until it is stopped, while apps come and go.
    """

    uuid: str
    directory: str
    apps: tuple[PreparedApp, ...]
    networks: tuple[str, ...] = ("default",)
    options: Mapping[str, str] = MappingProxyType({})
    resolv_conf: str | None = None
    hosts: str | None = None
    insecure: frozenset[str] = frozenset()
    interactive: bool = False
    users: UserRange | None = None
    mutable: bool = False
