"""A launch plan as text and as JSON, for --dry-run: nothing of it is carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.model.plan import (
    LOGIN_VARIABLES,
    Account,
    Bind,
    Filesystem,
    Overlay,
    Symlink,
    WriteFile,
)

if TYPE_CHECKING:
    from podctl.model.plan import AppLaunch, Identity, LaunchPlan, Step


def describe(plan: LaunchPlan) -> list[str]:
    """The plan as lines, in the order in which it is carried out."""
    namespaces = ", ".join(dict.fromkeys(("NS", *plan.namespaces)))
    lines = [f"flavor: {plan.flavor}", f"new namespaces: {namespaces}"]
    lines += [f"private-users={plan.users}"] if plan.users is not None else []
    lines += [_describe_step(step) for step in plan.steps]
    lines.append(f"root: {plan.root or 'the host'}{', read-only' if plan.read_only_root else ''}")
    lines.append(f"working directory: {plan.working_directory}")
    lines += [f"record: {name}" for name in (*plan.records, "instance")]
    lines += [f"descriptor {fd}: {what}" for fd, what in plan.inherited.items()]
    lines += _describe_process(plan)
    for app in plan.apps:
        lines += [f"app {app.name}: {line}" for line in _describe_app(app)]
    return lines


def _describe_process(plan: LaunchPlan | AppLaunch) -> list[str]:
    lines = [_describe_identity(plan.identity)]
    if getattr(plan, "no_new_privileges", False) and not plan.confinement.no_new_privileges:
        lines.append("no new privileges")
    lines += plan.confinement.describe()
    lines += [f"environment: {key}={value}" for key, value in plan.environment.items()]
    if isinstance(plan.identity, Account):
        missing = [name for name in LOGIN_VARIABLES if name not in plan.environment]
        lines += [f"environment: {name} of that user" for name in missing]
    lines.append("execute: " + " ".join(_quote(word) for word in plan.argv))
    return lines


def _describe_app(app: AppLaunch) -> list[str]:
    lines = [f"root: {app.source}"] if app.source is not None else []
    lines += [_describe_step(step) for step in app.steps]
    lines += [f"the pod's {tree}" for tree in app.trees]
    lines.append(f"root: {app.root}{', read-only' if app.read_only_root else ''}")
    lines.append(f"working directory: {app.working_directory}")
    if app.connections is not None:
        lines += [f"{name}: {mode}" for name, mode in app.connections.streams._asdict().items()]
    for name, argv in app.handlers.items():
        lines.append(f"{name}: " + " ".join(_quote(word) for word in argv))
    return lines + _describe_process(app)


def plan_to_json(plan: LaunchPlan) -> dict[str, object]:
    """The plan as JSON values; each step carries its kind in `step`."""
    return {
        "flavor": plan.flavor,
        "namespaces": list(dict.fromkeys(("NS", *plan.namespaces))),
        "privateUsers": None if plan.users is None else str(plan.users),
        "root": plan.root,
        "steps": _steps_to_json(plan.steps),
        "readOnlyRoot": plan.read_only_root,
        "identity": _fields(plan.identity),
        "noNewPrivileges": plan.no_new_privileges,
        "confinement": plan.confinement.to_value(),
        "workingDirectory": plan.working_directory,
        "environment": dict(plan.environment),
        "argv": list(plan.argv),
        "inherited": dict(plan.inherited),
        "records": dict(plan.records),
        "covered": list(plan.covered),
        "apps": [_app_to_json(app) for app in plan.apps],
    }


def _app_to_json(app: AppLaunch) -> dict[str, object]:
    return {
        "name": app.name,
        "root": app.root,
        "source": app.source,
        "steps": _steps_to_json(app.steps),
        "trees": list(app.trees),
        "readOnlyRoot": app.read_only_root,
        "identity": _fields(app.identity),
        "confinement": app.confinement.to_value(),
        "workingDirectory": app.working_directory,
        "environment": dict(app.environment),
        "argv": list(app.argv),
        "handlers": {name: list(argv) for name, argv in app.handlers.items()},
        "streams": None if app.connections is None else app.connections.streams._asdict(),
    }


def _steps_to_json(steps: tuple[Step, ...]) -> list[dict[str, object]]:
    return [{"step": type(step).__name__, **_fields(step)} for step in steps]


def _fields(value: Step | Identity | Account) -> dict[str, object]:
    """Fields of a plan's value, tuples as lists."""
    found = {name: getattr(value, name) for name in type(value)._fields}
    return {key: list(item) if isinstance(item, tuple) else item for key, item in found.items()}


def _describe_identity(identity: Identity | Account) -> str:
    groups = f", groups {','.join(map(str, identity.groups))}" if identity.groups else ""
    if isinstance(identity, Account):
        return f"user: {identity.user}, group: {identity.group or 'of that user'}{groups}"
    return f"user: {identity.uid}, group: {identity.gid}{groups}"


def _describe_step(step: Step) -> str:
    if isinstance(step, Overlay):
        layers = ":".join(step.lowers)
        flags = f" ({','.join(step.flags)})" if step.flags else ""
        return f"overlay: {layers} below {step.upper} (work {step.work}) on {step.target}{flags}"
    if isinstance(step, Bind):
        words = ["read-only" if step.read_only else "read-write", step.propagation]
        words += ["recursive"] if step.recursive else []
        words += ["no devices"] if step.no_devices else []
        words += ["the host's users"] if step.owners == "host" else []
        words += ["an empty tmpfs"] if step.scratch is not None else []
        return f"bind: {step.source} on {step.target} ({', '.join(words)})"
    if isinstance(step, Filesystem):
        words = [*step.flags, *([step.options] if step.options else [])]
        return f"mount: {step.fstype} on {step.target} ({','.join(words)})"
    if isinstance(step, WriteFile):
        condition = " if missing" if step.missing_only else ""
        size = len(step.content.encode(errors="surrogateescape"))
        return f"file: {step.target} ({size} bytes, mode {step.mode:04o}){condition}"
    if isinstance(step, Symlink):
        return f"link: {step.target} -> {step.to} if missing"
    return f"directory: {step.target} (mode {step.mode:04o}) if missing"


def _quote(word: str) -> str:
    """Shell quoting, without importing a shell module."""
    plain = word and all(letter.isalnum() or letter in "@%+=:,./_-" for letter in word)
    return word if plain else "'" + word.replace("'", "'\\''") + "'"
