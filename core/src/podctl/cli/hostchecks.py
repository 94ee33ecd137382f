"""What `doctor` looks at on the host: each check looks, says what it saw, and what its absence
disables."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OK, DEGRADED, MISSING = "ok", "degraded", "missing"

#: Where the CNI specification's plugins are installed (Debian, upstream, Fedora).
_CNI_DIRECTORIES = ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Check(NamedTuple):
    """One line of the report.

    Args:
        name: what was looked at.
        state: `ok`, `degraded` or `missing`.
        detail: what was seen.
        disables: what does not work because of it; empty when nothing is lost.
    """

    name: str
    state: str
    detail: str
    disables: str = ""


def host_checks(data_dir: str) -> Iterator[Check]:
    """Look at the kernel, the tools and the installation. Changes nothing that outlives it."""
    yield _root()
    yield _kernel()
    yield _overlay()
    yield _user_namespaces(data_dir)
    for check in (_openat2, _cgroups, _seccomp, _systemd, _machined):
        yield check()
    yield _nspawn()
    yield _hypervisor()
    yield _kvm()
    yield _cni()
    yield _selinux()
    yield _group()
    yield _data_dir(data_dir)


def _root() -> Check:
    user = os.geteuid()
    if user == 0:
        return Check("root", OK, "effective user is root")
    lost = "run, prepare, run-prepared, enter, gc, rm and trust work as root only"
    return Check("root", DEGRADED, f"effective user is {user}", lost)


def _kernel() -> Check:
    release = os.uname().release
    try:
        version = tuple(int(part) for part in release.split("-")[0].split(".")[:2])
    except ValueError:
        version = (0, 0)
    if version >= (5, 6):
        return Check("kernel", OK, release)
    return Check("kernel", DEGRADED, release, "slower path resolution inside images")


def _overlay() -> Check:
    lost = "images are copied for each pod (--no-overlay)"
    if os.geteuid() != 0:
        with open("/proc/filesystems") as file:
            known = any(line.split()[-1] == "overlay" for line in file)
        if known:
            return Check("overlay", OK, "the kernel knows it; only root can try it")
        return Check("overlay", DEGRADED, "not loaded; only root can try it", lost)
    problem = _try(_mount_overlay, "overlay")
    if problem is None:
        return Check("overlay", OK, "a test mount works")
    return Check("overlay", MISSING, problem, lost)


def _mount_overlay() -> None:
    """In a child: mount an overlay in a mount namespace that nobody else sees."""
    from podctl.sys import constants
    from podctl.sys.mounts import make_tree_slave, mount
    from podctl.sys.namespaces import unshare

    unshare(constants.CLONE_NEWNS)
    make_tree_slave()
    mount("podctl-doctor", "/tmp", "tmpfs")
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(f"/tmp/{name}")
    options = "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work"
    mount("podctl-doctor", "/tmp/merged", "overlay", data=options)


def _user_namespaces(data_dir: str) -> Check:
    """Whether pods of the data directory get users of their own."""
    from podctl.pods.userns import kernel_problem, mapping_problem

    name = "private users"
    lost = "root in a pod is root on the host (as with --private-users=no)"
    problem = kernel_problem()
    if problem is not None:
        return Check(name, MISSING, problem, lost)
    if os.geteuid() != 0:
        return Check(name, OK, "the kernel has user namespaces; only root can try them")
    problem = mapping_problem(data_dir, trust=False)
    if problem is not None:
        return Check(name, MISSING, problem, lost)
    return Check(name, OK, "a pod's root is nobody on the host")


def _openat2() -> Check:
    from podctl.sys.calls import openat2

    try:
        os.close(openat2(-100, "/", os.O_PATH | os.O_CLOEXEC))
    except OSError as error:
        slower = "paths inside images are walked component by component, slower and as safe"
        return Check("openat2", DEGRADED, os.strerror(error.errno or 0), slower)
    return Check("openat2", OK, "available")


def _cgroups() -> Check:
    with open("/proc/self/mountinfo") as file:
        kinds = [line.partition(" - ")[2].split()[0] for line in file]
    unified, legacy = "cgroup2" in kinds, "cgroup" in kinds
    if unified and legacy:
        return Check("cgroups", OK, "v1 with v2 beside it (hybrid)")
    if unified or legacy:
        return Check("cgroups", OK, "v2" if unified else "v1")
    return Check("cgroups", MISSING, "not mounted", "memory and CPU limits")


def _seccomp() -> Check:
    if os.path.exists("/proc/sys/kernel/seccomp/actions_avail"):
        return Check("seccomp", OK, "available")
    return Check("seccomp", MISSING, "not in the kernel", "system call filters")


def _systemd() -> Check:
    if os.path.isdir("/run/systemd/system"):
        return Check("systemd", OK, "is process 1")
    lost = "units for pods, logs in the journal"
    return Check("systemd", DEGRADED, "is not process 1", lost)


def _machined() -> Check:
    lost = "pods in machinectl"
    if not os.path.exists("/usr/lib/systemd/systemd-machined"):
        return Check("systemd-machined", DEGRADED, "not installed", lost)
    if not os.path.exists("/run/dbus/system_bus_socket"):
        return Check("systemd-machined", DEGRADED, "there is no system bus to reach it", lost)
    return Check("systemd-machined", OK, "available")


def _nspawn() -> Check:
    return _program("systemd-nspawn", "the nspawn flavor", "systemd-container")


def _hypervisor() -> Check:
    machine = os.uname().machine
    suffix = {"i686": "i386"}.get(machine, machine)
    package = "qemu-system-x86" if machine in ("x86_64", "i686") else "qemu-system"
    return _program(f"qemu-system-{suffix}", "the kvm flavor", package)


def _program(name: str, flavor: str, package: str) -> Check:
    path = shutil.which(name, path=_PATH)
    if path is None:
        return Check(name, MISSING, "not installed", f"{flavor} (install {package})")
    return Check(name, OK, _version_of(path))


def _version_of(path: str) -> str:
    import subprocess

    try:
        done = subprocess.run(
            [path, "--version"],
            env={"PATH": _PATH, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{path}, which does not tell its version ({type(error).__name__})"
    first = done.stdout.partition("\n")[0].strip()
    return f"{path}: {first}" if first else path


def _kvm() -> Check:
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        return Check("/dev/kvm", OK, "usable")
    reason = "not accessible" if os.path.exists("/dev/kvm") else "not there"
    return Check("/dev/kvm", DEGRADED, reason, "the kvm flavor emulates, many times slower")


def _cni() -> Check:
    chosen = os.environ.get("CNI_PATH", "").split(":")
    found = [path for path in (*chosen, *_CNI_DIRECTORIES) if path and os.path.isdir(path)]
    if found:
        return Check("CNI plugins", OK, ", ".join(dict.fromkeys(found)))
    lost = "networks other than host and none (install containernetworking-plugins)"
    return Check("CNI plugins", MISSING, "not installed", lost)


def _selinux() -> Check:
    try:
        with open("/sys/fs/selinux/enforce") as file:
            enforcing = file.read().strip() == "1"
    except OSError:
        return Check("SELinux", OK, "not active")
    return Check("SELinux", OK, "enforcing" if enforcing else "permissive")


def _group() -> Check:
    import grp

    from podctl.config.installation import GROUP

    try:
        members = grp.getgrnam(GROUP).gr_mem
    except KeyError:
        lost = "fetching without root (podctl setup-data-dir)"
        return Check(f"group {GROUP}", MISSING, "does not exist", lost)
    return Check(f"group {GROUP}", OK, f"members: {', '.join(members) or 'none'}")


def _data_dir(path: str) -> Check:
    name = "data directory"
    try:
        state = os.stat(path)
    except FileNotFoundError:
        return Check(name, OK, f"{path} is made when it is needed")
    except OSError as error:
        return Check(name, MISSING, f"{path}: {error.strerror}", "everything")
    if state.st_uid != 0 and state.st_uid != os.geteuid():
        return Check(name, MISSING, f"{path} belongs to user {state.st_uid}", "everything as root")
    if state.st_mode & 0o022:
        lost = "whoever can write it can replace pods (podctl setup-data-dir)"
        return Check(name, DEGRADED, f"{path} has mode {state.st_mode & 0o7777:04o}", lost)
    return Check(name, OK, path)


def _try(action: Callable[[], None], name: str) -> str | None:
    """Do something in a child; the reason when it fails."""
    from podctl.errors import PodctlError
    from podctl.sys.child import Privileges, spawn

    try:
        with spawn(action, privileges=Privileges.SAME, name=name) as child:
            child.wait()
    except PodctlError as error:
        return error.message
    return None
