"""What the command line says about one app: the flags that follow its image."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import InvalidInput, UsageError
from podctl.model import isolators as names
from podctl.model.isolators import Isolator, check_together, make_isolator
from podctl.model.manifest import NOTHING, annotations_from_pairs
from podctl.model.names import check_absolute, check_id, check_name, parse_principal
from podctl.model.quantity import parse_quantity
from podctl.model.volumes import mount_from_text
from podctl.model.words import environment_from_texts, optional_integer, parse_boolean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from podctl.model.streams import Streams
    from podctl.model.volumes import Mount

#: flag -> whether it takes a value as the next word; else `--flag` or `--flag=BOOLEAN`.
APP_FLAGS: dict[str, bool] = {
    "--exec": True,
    "--working-dir": True,
    "--user": True,
    "--group": True,
    "--supplementary-gids": True,
    "--readonly-rootfs": False,
    "--mount": True,
    "--name": True,
    "--annotation": True,
    "--user-annotation": True,
    "--user-label": True,
    "--environment": True,
    "--memory": True,
    "--cpu": True,
    "--cpu-shares": True,
    "--oom-score-adj": True,
    "--caps-retain": True,
    "--no-new-privileges": False,
    "--caps-remove": True,
    "--seccomp": True,
    "--signature": True,
    "--stdin": True,
    "--stdout": True,
    "--stderr": True,
}

#: other spellings: rkt's older ones, and the one only its documentation has.
ALIASES = {
    "--cap-retain": "--caps-retain",
    "--cap-remove": "--caps-remove",
    "--oom-score-adjust": "--oom-score-adj",
}

#: bytes; less is a slip like `16m`, which reads as 16 thousandths of a byte.
_MIN_MEMORY = 4096


class AppSettings(NamedTuple):
    """The flags of one app as values; None or empty where nothing was said.

    `isolators` replace those of the same name in the image: see apply_isolators.
    """

    exec: str | None = None
    working_directory: str | None = None
    user: str | None = None
    group: str | None = None
    supplementary_gids: tuple[int, ...] | None = None
    read_only_root_fs: bool = False
    mounts: tuple[Mount, ...] = ()
    name: str | None = None
    annotations: Mapping[str, str] = NOTHING
    user_annotations: Mapping[str, str] = NOTHING
    user_labels: Mapping[str, str] = NOTHING
    environment: Mapping[str, str] = NOTHING
    isolators: tuple[Isolator, ...] = ()
    signature: str | None = None
    streams: Streams | None = None

    def apply_isolators(self, image: Sequence[Isolator]) -> tuple[Isolator, ...]:
        """The isolators in force: the image's, replaced where the user gave some of that name.

        A retain set replaces a remove set too, and the reverse.
        """
        given = {isolator.name for isolator in self.isolators}
        for pair in (
            {names.CAPABILITIES_RETAIN, names.CAPABILITIES_REMOVE},
            {names.SECCOMP_RETAIN, names.SECCOMP_REMOVE},
        ):
            if given & pair:
                given |= pair
        kept = (one._replace(of_image=True) for one in image if one.name not in given)
        return (*kept, *self.isolators)


def parse_settings(flags: Sequence[tuple[str, str]]) -> AppSettings:
    """Turn flags (name with dashes, value) of one app into values, in the order they were given.

    A flag that holds one value keeps the last one; --exec and --signature may be given once.

    Raises:
        UsageError: a value is malformed, two contradict each other, or a key is given twice.
    """
    values: dict[str, list[str]] = {}
    for flag, value in flags:
        values.setdefault(ALIASES.get(flag, flag), []).append(value)
    for flag in ("--exec", "--signature"):
        if len(values.get(flag, ())) > 1:
            raise UsageError(f"{flag} may be given only once per image")
    last = {flag: given[-1] for flag, given in values.items()}
    gids = last.get("--supplementary-gids")
    return AppSettings(
        exec=_last(last, "--exec", _not_empty),
        working_directory=_last(last, "--working-dir", check_absolute),
        user=_last(last, "--user", _principal),
        group=_last(last, "--group", _principal),
        supplementary_gids=None if gids is None else parse_gids(gids),
        read_only_root_fs=parse_boolean(
            last.get("--readonly-rootfs", "false"), "--readonly-rootfs"
        ),
        mounts=tuple(mount_from_text(text) for text in values.get("--mount", ())),
        name=_last(last, "--name", check_name),
        annotations=parse_annotations(values.get("--annotation", ())),
        user_annotations=parse_pairs("--user-annotation", values.get("--user-annotation", ())),
        user_labels=parse_pairs("--user-label", values.get("--user-label", ())),
        environment=environment_from_texts(values.get("--environment", ()), "--environment"),
        isolators=_isolators(last),
        signature=_last(last, "--signature", _not_empty),
        streams=_streams(last),
    )


def _last(values: Mapping[str, str], flag: str, check: Callable[[str, str], str]) -> str | None:
    text = values.get(flag)
    if text is None:
        return None
    try:
        return check(text, flag)
    except InvalidInput as error:
        raise UsageError(error.message, hint=error.hint) from None


def _not_empty(text: str, flag: str) -> str:
    if not text or "\0" in text:
        raise InvalidInput(f"{flag} must not be empty")
    return text


def _principal(text: str, flag: str) -> str:
    parse_principal(text, flag)
    return text


def _streams(values: Mapping[str, str]) -> Streams | None:
    if not any(f"--{name}" in values for name in ("stdin", "stdout", "stderr")):
        return None
    from podctl.model.streams import MODES, Streams

    given = {name: values[f"--{name}"] for name in MODES if f"--{name}" in values}
    for name, mode in given.items():
        if mode not in MODES[name]:
            raise UsageError(f"--{name} {mode!r} must be one of: {', '.join(MODES[name])}")
    try:
        return Streams(**given).check()
    except InvalidInput as error:
        raise UsageError(error.message) from None


def parse_gids(text: str) -> tuple[int, ...]:
    """Read the comma list of --supplementary-gids.

    Raises:
        UsageError: an entry is no number in 0..MAX_ID.
    """
    try:
        return tuple(
            check_id(optional_integer(word.strip(), "group id") or 0, "group id")
            for word in text.split(",")
        )
    except InvalidInput as error:
        raise UsageError(f"--supplementary-gids {text!r}: {error.message}") from None


def parse_pairs(flag: str, texts: Sequence[str]) -> dict[str, str]:
    """Read `KEY=VALUE` words whose keys are free text.

    Raises:
        UsageError: one has no `=`, or a key appears twice.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"{flag} {text!r}: write KEY=VALUE")
        if key in pairs:
            raise UsageError(f"{flag}: {key} is given twice")
        pairs[key] = value
    return pairs


def parse_annotations(texts: Sequence[str]) -> dict[str, str]:
    """Read `NAME=VALUE` words of --annotation.

    Raises:
        UsageError: one is malformed, or a name appears twice.
    """
    try:
        return annotations_from_pairs(parse_pairs("--annotation", texts).items())
    except InvalidInput as error:
        raise UsageError(f"--annotation: {error.message}") from None


def _isolators(values: Mapping[str, str]) -> tuple[Isolator, ...]:
    result = [
        make(values[flag])
        for flag, make in (
            ("--memory", memory_isolator),
            ("--cpu", cpu_isolator),
            ("--cpu-shares", cpu_shares_isolator),
            ("--oom-score-adj", oom_score_adj_isolator),
            ("--caps-retain", caps_retain_isolator),
            ("--caps-remove", caps_remove_isolator),
            ("--seccomp", seccomp_isolator),
            ("--no-new-privileges", no_new_privileges_isolator),
        )
        if flag in values
    ]
    if "--caps-retain" in values and "--caps-remove" in values:
        raise UsageError("--caps-retain and --caps-remove exclude each other")
    check_together(result, "command line")
    return tuple(result)


def no_new_privileges_isolator(text: str) -> Isolator:
    """Read --no-new-privileges: a boolean. Raises UsageError."""
    value = parse_boolean(text, "--no-new-privileges")
    return _make(names.NO_NEW_PRIVILEGES, value, "--no-new-privileges")


def memory_isolator(text: str) -> Isolator:
    """Read --memory: bytes, with a suffix.

    Raises:
        UsageError: malformed, or less than a page, which is a slip like `16m`.
    """
    try:
        units = parse_quantity(text, "--memory").units
    except InvalidInput as error:
        raise UsageError(error.message, hint=error.hint) from None
    if units < _MIN_MEMORY:
        raise UsageError(
            f"--memory {text!r} is less than {_MIN_MEMORY} bytes", hint="m means thousandths"
        )
    return _make(names.MEMORY, {"limit": text}, "--memory")


def cpu_isolator(text: str) -> Isolator:
    """Read --cpu: cores, e.g. `500m`.

    Raises:
        UsageError: malformed or zero.
    """
    try:
        quantity = parse_quantity(text, "--cpu")
    except InvalidInput as error:
        raise UsageError(error.message, hint=error.hint) from None
    if quantity.milli < 1:
        raise UsageError(f"--cpu {text!r} must be more than 0")
    return _make(names.CPU, {"limit": text}, "--cpu")


def cpu_shares_isolator(text: str) -> Isolator:
    """Read --cpu-shares: 2 to 262144. Raises UsageError."""
    return _make(names.CPU_SHARES, _signed(text, "--cpu-shares"), "--cpu-shares")


def oom_score_adj_isolator(text: str) -> Isolator:
    """Read --oom-score-adj: -1000 to 1000. Raises UsageError."""
    return _make(names.OOM_SCORE_ADJ, _signed(text, "--oom-score-adj"), "--oom-score-adj")


def caps_retain_isolator(text: str) -> Isolator:
    """Read --caps-retain: a comma list; empty for no capability at all. Raises UsageError."""
    return _make(names.CAPABILITIES_RETAIN, {"set": _capabilities(text)}, "--caps-retain")


def caps_remove_isolator(text: str) -> Isolator:
    """Read --caps-remove: a comma list. Raises UsageError."""
    return _make(names.CAPABILITIES_REMOVE, {"set": _capabilities(text)}, "--caps-remove")


def _capabilities(text: str) -> list[str]:
    words = [word.strip().upper() for word in text.split(",") if word.strip()]
    return [word if word.startswith("CAP_") else f"CAP_{word}" for word in words]


def seccomp_isolator(text: str) -> Isolator:
    """Read --seccomp: `mode=retain|remove[,errno=NAME],CALL,...`. Raises UsageError."""
    mode, errno = "", ""
    entries: list[str] = []
    for word in text.split(","):
        key, equals, value = word.partition("=")
        if not equals:
            entries.append(word)
        elif key == "mode" and not mode and value in ("retain", "remove"):
            mode = value
        elif key == "errno" and not errno and value:
            errno = value
        else:
            raise UsageError(f"--seccomp {text!r}: {word!r} is not understood")
    if not mode:
        raise UsageError(f"--seccomp {text!r}: write mode=retain or mode=remove")
    name = names.SECCOMP_RETAIN if mode == "retain" else names.SECCOMP_REMOVE
    filtered = {"set": entries, "errno": errno} if errno else {"set": entries}
    return _make(name, filtered, "--seccomp")


def _signed(text: str, flag: str) -> int:
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
        raise UsageError(f"{flag} {text!r} must be a number")
    return int(text)


def _make(name: str, value: object, flag: str) -> Isolator:
    try:
        return make_isolator(name, value, flag)
    except InvalidInput as error:
        raise UsageError(error.message, hint=error.hint) from None
