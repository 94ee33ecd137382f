"""Isolators of appc: known ones are validated, unknown ones kept and marked for a flavor to refuse.

Names and values: appc 0.8.11, ace.md; `os/linux/cpu-shares` and `os/linux/oom-score-adj` from its
schema package; `os/linux/apparmor-profile` from its later draft.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from podctl.errors import InvalidInput, ManifestInvalid
from podctl.model.fields import Fields
from podctl.model.names import check_identifier
from podctl.model.quantity import Quantity, parse_quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CPU = "resource/cpu"
MEMORY = "resource/memory"
BLOCK_BANDWIDTH = "resource/block-bandwidth"
BLOCK_IOPS = "resource/block-iops"
NETWORK_BANDWIDTH = "resource/network-bandwidth"
CAPABILITIES_RETAIN = "os/linux/capabilities-retain-set"
CAPABILITIES_REMOVE = "os/linux/capabilities-remove-set"
SECCOMP_RETAIN = "os/linux/seccomp-retain-set"
SECCOMP_REMOVE = "os/linux/seccomp-remove-set"
NO_NEW_PRIVILEGES = "os/linux/no-new-privileges"
OOM_SCORE_ADJ = "os/linux/oom-score-adj"
CPU_SHARES = "os/linux/cpu-shares"
SELINUX_CONTEXT = "os/linux/selinux-context"
APPARMOR_PROFILE = "os/linux/apparmor-profile"
SYSCTL = "os/unix/sysctl"

#: capabilities(7) in the kernel's numbering: the index of a name is its number.
CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
    "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip

#: what an app without capability isolators may have (ace.md).
DEFAULT_CAPABILITIES = frozenset({
    "CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_KILL",
    "CAP_MKNOD", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP",
    "CAP_SETFCAP", "CAP_SYS_CHROOT",
})  # fmt: skip


class Isolator(NamedTuple):
    """One isolator: its name, its JSON value as it was written, whether podctl knows it, and
    whether an image asks for it (which may hold an app to more, never to less)."""

    name: str
    value: Any
    known: bool = True
    of_image: bool = False


class Seccomp(NamedTuple):
    """A seccomp isolator: `retain` or `remove`, its entries, and an errno name (empty: SIGSYS)."""

    mode: str
    entries: tuple[str, ...]
    errno: str = ""


class Resource(NamedTuple):
    """A resource isolator; a request that is not given equals the limit and the reverse."""

    request: Quantity
    limit: Quantity


def make_isolator(name: str, value: object, where: str = "isolator") -> Isolator:
    """Build an isolator, checking the value of a known name.

    Raises:
        ManifestInvalid: the value breaks the rules of its name.
    """
    check = _CHECKS.get(name)
    try:
        check_identifier(name, "isolator name")
        if check is not None:
            check(value, f"{where} {name}")
    except ManifestInvalid:
        raise
    except InvalidInput as error:
        raise ManifestInvalid(f"{where} {name}: {error.message}", hint=error.hint) from None
    return Isolator(name, value, check is not None)


def parse_isolators(parent: Fields, key: str = "isolators") -> tuple[Isolator, ...]:
    """Read an optional array of isolators.

    Raises:
        ManifestInvalid: one of them is malformed, or two contradict each other.
    """
    result: list[Isolator] = []
    for index, value in enumerate(parent.get(key, list) or ()):
        where = f"{parent.where}.{key}[{index}]"
        item = Fields(value, where, "name value", closed=parent.closed)
        if not item.has("value"):
            raise item.error("value is required")
        result.append(make_isolator(item.need("name", str), value["value"], where))
    check_together(result, parent.where)
    return tuple(result)


def check_together(isolators: Iterable[Isolator], where: str) -> None:
    """Check the rules that span several isolators of one app or pod.

    Raises:
        ManifestInvalid: retain and remove sets together, or a second one where one may be.
    """
    names = [isolator.name for isolator in isolators]
    if CAPABILITIES_RETAIN in names and CAPABILITIES_REMOVE in names:
        raise ManifestInvalid(f"{where}: capabilities retain-set and remove-set exclude each other")
    if names.count(SECCOMP_RETAIN) + names.count(SECCOMP_REMOVE) > 1:
        raise ManifestInvalid(f"{where}: too many seccomp isolators specified")
    for name in (SELINUX_CONTEXT, APPARMOR_PROFILE, SYSCTL):
        if names.count(name) > 1:
            raise ManifestInvalid(f"{where}: only one isolator {name} is allowed")


def isolators_value(isolators: Iterable[Isolator]) -> list[dict[str, Any]]:
    """The JSON form of isolators."""
    return [{"name": isolator.name, "value": isolator.value} for isolator in isolators]


def replace_isolators(
    isolators: Iterable[Isolator], new: Iterable[Isolator], *, instead_of: Iterable[str] = ()
) -> tuple[Isolator, ...]:
    """`isolators` with those of a name in `new` (or in `instead_of`) taken out, then `new`."""
    added = tuple(new)
    gone = {isolator.name for isolator in added}.union(instead_of)
    return (*(isolator for isolator in isolators if isolator.name not in gone), *added)


def find(isolators: Iterable[Isolator], name: str) -> Any:
    """The value of the last isolator of that name, None without one."""
    value = None
    for isolator in isolators:
        if isolator.name == name:
            value = isolator.value
    return value


def unknown_names(isolators: Iterable[Isolator]) -> list[str]:
    """Names podctl has no rules for."""
    return [isolator.name for isolator in isolators if not isolator.known]


def effective_capabilities(isolators: Iterable[Isolator]) -> frozenset[str]:
    """The capabilities an app with these isolators may have."""
    isolators = tuple(isolators)
    retain = find(isolators, CAPABILITIES_RETAIN)
    if retain is not None:
        return frozenset(retain.get("set") or ())
    remove = find(isolators, CAPABILITIES_REMOVE)
    return DEFAULT_CAPABILITIES.difference((remove or {}).get("set") or ())


def no_new_privileges(isolators: Iterable[Isolator]) -> bool:
    """Whether any isolator asks for it."""
    return any(
        isolator.value is True for isolator in isolators if isolator.name == NO_NEW_PRIVILEGES
    )


def seccomp(isolators: Iterable[Isolator]) -> Seccomp | None:
    """The seccomp filter that is asked for, None when nothing is."""
    for isolator in isolators:
        if isolator.name in (SECCOMP_RETAIN, SECCOMP_REMOVE):
            mode = "retain" if isolator.name == SECCOMP_RETAIN else "remove"
            value = isolator.value
            return Seccomp(mode, tuple(value["set"]), value.get("errno") or "")
    return None


def resource(isolators: Iterable[Isolator], name: str) -> Resource | None:
    """Request and limit of the last resource isolator of that name."""
    value = find(isolators, name)
    return None if value is None else _resource(value, name)


def _resource(value: object, where: str) -> Resource:
    fields = Fields(value, where, "default request limit")
    amounts = [_amount(value, key, where) for key in ("request", "limit") if fields.has(key)]
    given = [amount for amount in amounts if amount is not None]
    if not given:
        raise ManifestInvalid(f"{where}: neither request nor limit is given")
    return Resource(given[0], given[-1])


def _amount(value: Any, key: str, where: str) -> Quantity | None:
    amount = value[key]
    if amount is None or amount == "":
        return None
    if isinstance(amount, int) and not isinstance(amount, bool):
        amount = str(amount)
    if not isinstance(amount, str):
        raise ManifestInvalid(f"{where}.{key} must be a quantity in a string")
    return parse_quantity(amount, key)


def _check_resource(value: object, where: str) -> None:
    if Fields(value, where, "default request limit").get("default", bool):
        raise ManifestInvalid(f"{where}: default must be false")
    _resource(value, where)


def _check_device_resource(value: object, where: str) -> None:
    fields = Fields(value, where, "default request limit")
    if not fields.get("default", bool):
        raise ManifestInvalid(f"{where}: default must be true")
    _resource(value, where)
    if fields.has("request") and _amount(value, "request", where) is not None:
        raise ManifestInvalid(f"{where}: request is not supported, only limit")


def _check_capabilities(value: object, where: str) -> None:
    # An empty set is allowed, unlike in appc, which cannot say "no capability at all" without it.
    fields = Fields(value, where, "set")
    if fields.get("set", list) is None:
        raise ManifestInvalid(f"{where}: set is required")
    for name in fields.strings("set"):
        check_capability(name)


def check_capability(name: str) -> str:
    """Return a capability's name if it is one of capabilities(7).

    Raises:
        InvalidInput: it is not; a misspelt name in a remove set would remove nothing.
    """
    if name not in CAPABILITIES:
        raise InvalidInput(f"{name!r} is no capability", hint="names are like CAP_NET_ADMIN")
    return name


def _check_seccomp(value: object, where: str) -> None:
    fields = Fields(value, where, "set errno")
    entries = fields.strings("set")
    if not entries:
        raise ManifestInvalid(f"{where}: set must be non-empty")
    for entry in entries:
        check_syscall(entry)
    errno = fields.get("errno", str)
    if errno:
        check_errno(errno)


def check_syscall(entry: str) -> str:
    """Return a seccomp entry: a system call's name or a `@scope/name` group.

    Raises:
        InvalidInput: it is neither.
    """
    body = entry.removeprefix("@")
    scope, slash, name = body.partition("/")
    words = (scope, name) if entry.startswith("@") and slash else (body,)
    plain = [word.replace("_", "a").replace("-", "a").replace(".", "a") for word in words]
    if (entry.startswith("@") and not slash) or not all(
        word.isascii() and word.isalnum() and word == word.lower() for word in plain
    ):
        raise InvalidInput(f"seccomp entry {entry!r} is neither a system call nor a @scope/name")
    return entry


def check_errno(name: str) -> str:
    """Return an errno name if this host's errno(3) has it.

    Raises:
        InvalidInput: it does not.
    """
    import errno

    if not (name.isascii() and name.isalnum() and name[:1] == "E" and hasattr(errno, name)):
        raise InvalidInput(f"errno {name!r} is no name of errno(3) like EPERM")
    return name


def _check_bool(value: object, where: str) -> None:
    if not isinstance(value, bool):
        raise ManifestInvalid(f"{where} must be true or false")


def _in_range(low: int, high: int) -> Callable[[object, str], None]:
    def check(value: object, where: str) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ManifestInvalid(f"{where} must be an integer in {low}..{high}")

    return check


def _check_selinux(value: object, where: str) -> None:
    parts = ("user", "role", "type", "level")
    fields = Fields(value, where, " ".join(parts))
    for part in parts:
        text = fields.need(part, str)
        # The parts are joined with colons; only the level may have some of its own.
        if not text.isprintable() or " " in text or (":" in text and part != "level"):
            raise ManifestInvalid(f"{where}.{part} {text!r} cannot be part of a context")


def _check_apparmor(value: object, where: str) -> None:
    profile = Fields(value, where, "profile").need("profile", str)
    if not profile or not profile.isprintable():
        raise ManifestInvalid(f"{where}: profile {profile!r} is no profile name")


def _check_sysctl(value: object, where: str) -> None:
    for key, setting in Fields({"value": value}, where, "value").string_map("value").items():
        words = key.replace("/", ".").split(".")
        plain = [word.replace("_", "a").replace("-", "a") for word in words]
        if not all(word.isascii() and word.isalnum() for word in plain):
            raise ManifestInvalid(f"{where}: {key!r} is no sysctl name")
        if "\0" in setting or "\n" in setting:
            raise ManifestInvalid(f"{where}: the value of {key} holds a line break or NUL")


_CHECKS: dict[str, Callable[[Any, str], None]] = {
    CPU: _check_resource,
    MEMORY: _check_resource,
    BLOCK_BANDWIDTH: _check_device_resource,
    BLOCK_IOPS: _check_device_resource,
    NETWORK_BANDWIDTH: _check_device_resource,
    CAPABILITIES_RETAIN: _check_capabilities,
    CAPABILITIES_REMOVE: _check_capabilities,
    SECCOMP_RETAIN: _check_seccomp,
    SECCOMP_REMOVE: _check_seccomp,
    NO_NEW_PRIVILEGES: _check_bool,
    OOM_SCORE_ADJ: _in_range(-1000, 1000),
    CPU_SHARES: _in_range(2, 262144),
    SELINUX_CONTEXT: _check_selinux,
    APPARMOR_PROFILE: _check_apparmor,
    SYSCTL: _check_sysctl,
}

#: every isolator name podctl has rules for.
KNOWN_ISOLATORS = frozenset(_CHECKS)
