"""What a child without privileges says to its parent: JSON with bytes, decoded with suspicion."""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from typing import NamedTuple

from podctl import errors

#: bytes a child may answer
LIMIT = 16 << 20
#: key of the one-entry object that stands for bytes
_BYTES = "$bytes"
_MAX_TEXT = 8192


class Failure(NamedTuple):
    """An exception as it travels: class name, message, hint, traceback."""

    kind: str
    message: str
    hint: str | None
    debug: str | None


def encode(value: object) -> bytes:
    """Serialise a result. Raises TypeError for what JSON and bytes cannot express."""
    return json.dumps({"result": _plain(value)}, separators=(",", ":")).encode()


def describe_error(error: BaseException) -> bytes:
    """Serialise an exception; only a PodctlError keeps its class."""
    debug = _trace(error)
    if isinstance(error, errors.PodctlError):
        fields = [type(error).__name__, error.message, error.hint, debug]
    else:
        fields = ["", f"{type(error).__name__}: {error}"[:_MAX_TEXT], None, debug]
    return json.dumps({"error": fields}, separators=(",", ":")).encode()


def _trace(error: BaseException) -> str:
    """Where it happened. Without source lines: in a changed root their paths lead elsewhere."""
    lines: list[str] = []
    frame = error.__traceback__
    while frame is not None:
        code = frame.tb_frame.f_code
        lines.append(f"{code.co_filename}:{frame.tb_lineno} in {code.co_name}\n")
        frame = frame.tb_next
    return "".join(lines)[-_MAX_TEXT * 2 :] + f"{type(error).__name__}: {error}"[:_MAX_TEXT]


def decode(data: bytes) -> object:
    """Return the child's result, or a Failure. Raises ValueError for anything else."""
    if not data:
        raise ValueError("it ended without one")
    try:
        frame = json.loads(data, object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if isinstance(frame, dict) and frame.keys() == {"result"}:
        return frame["result"]
    if isinstance(frame, dict) and frame.keys() == {"error"}:
        return _failure(frame["error"])
    raise ValueError("neither a result nor an error")


def rebuild_error(failure: Failure, name: str) -> errors.PodctlError:
    """The exception to raise in the parent: of podctl.errors if it was one, else a PodctlError."""
    kind = getattr(errors, failure.kind, None) if failure.kind else None
    if isinstance(kind, type) and issubclass(kind, errors.PodctlError):
        error = kind(failure.message, hint=failure.hint)
    else:
        error = errors.PodctlError(f"{name} failed: {failure.message}", hint=failure.hint)
    error.debug = failure.debug
    return error


def read_error(fd: int, name: str) -> errors.PodctlError | None:
    """The exception a child has described on a pipe, once it has closed that; None for none.

    Args:
        name: as of rebuild_error.
    """
    data = b""
    while len(data) <= LIMIT and (part := os.read(fd, 1 << 16)):
        data += part
    if not data:
        return None
    found = decode(data)
    if not isinstance(found, Failure):
        raise ValueError("no error but a result")
    return rebuild_error(found, name)


def _plain(value: object) -> object:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {_BYTES: b64encode(value).decode()}
    if isinstance(value, dict):
        if _BYTES in value or not all(isinstance(key, str) for key in value):
            raise TypeError("a result's dict has string keys, none of them $bytes")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _object(pairs: list[tuple[str, object]]) -> object:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key twice")
    if _BYTES not in value:
        return value
    encoded = value[_BYTES]
    if len(value) != 1 or not isinstance(encoded, str):
        raise ValueError("malformed bytes")
    return b64decode(encoded, validate=True)


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is no JSON number")


def _failure(value: object) -> Failure:
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError("malformed error")
    kind, message, hint, debug = (
        item[: _MAX_TEXT * 4] if isinstance(item, str) else None for item in value
    )
    if kind is None or message is None:
        raise ValueError("malformed error")
    return Failure(kind, message, hint, debug)
