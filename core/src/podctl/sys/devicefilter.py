"""The devices controller of cgroup v2: a program that the kernel asks for each open and mknod.

Rules are those of version 1's devices.allow (Documentation/admin-guide/cgroup-v1/devices.rst); what
none of them allows is denied.
"""

from __future__ import annotations

import ctypes
import os
import struct

from podctl.sys.calls import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_BPF = {"x86_64": 321, "aarch64": 280}
# linux/bpf.h
_PROG_LOAD, _PROG_ATTACH = 5, 8
_PROG_TYPE_CGROUP_DEVICE, _CGROUP_DEVICE = 15, 6
#: struct bpf_cgroup_dev_ctx: access in the upper half and type in the lower, major, minor
_ACCESS_TYPE, _MAJOR, _MINOR = 0, 4, 8
_TYPES = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
# Instructions: load a word, move, and, right shift, jump if not equal, exit
_LOAD, _MOVE, _MOVE_REGISTER, _AND, _SHIFT = 0x61, 0xB7, 0xBF, 0x57, 0x77
_UNEQUAL, _EXIT = 0x55, 0x95
_RESULT, _CONTEXT = 0, 1
_TYPE, _WANTED, _MAJOR_REGISTER, _MINOR_REGISTER, _SCRATCH = 2, 3, 4, 5, 6


def attach(group: str, rules: Iterable[str]) -> None:
    """Let processes of a group and those below use the devices of the rules alone.

    Args:
        rules: e.g. `c 1:3 rwm`, `b *:* m`.

    Raises:
        OSError: the kernel has no such programs, or refuses this one.
        ValueError: a rule is malformed.
    """
    program = _load(assemble(rules))
    directory = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _bpf(_PROG_ATTACH, struct.pack("=IIII", directory, program, _CGROUP_DEVICE, 0))
    finally:
        os.close(directory)
        os.close(program)


def assemble(rules: Iterable[str]) -> bytes:
    """The program. Raises ValueError."""
    code = [
        _step(_LOAD, _TYPE, _CONTEXT, _ACCESS_TYPE),
        _step(_MOVE_REGISTER, _WANTED, _TYPE),
        _step(_AND, _TYPE, value=0xFFFF),
        _step(_SHIFT, _WANTED, value=16),
        _step(_LOAD, _MAJOR_REGISTER, _CONTEXT, _MAJOR),
        _step(_LOAD, _MINOR_REGISTER, _CONTEXT, _MINOR),
    ]
    for rule in rules:
        code += _rule(rule)
    code += [_step(_MOVE, _RESULT, value=0), _step(_EXIT)]
    return b"".join(code)


def _rule(rule: str) -> list[bytes]:
    kind, numbers, access = rule.split(" ")
    major, minor = numbers.split(":")
    allowed = sum({_ACCESS[letter] for letter in access})
    compared = [(_SCRATCH, 0)]
    if kind != "a":
        compared.append((_TYPE, _TYPES[kind]))
    for register, text in ((_MAJOR_REGISTER, major), (_MINOR_REGISTER, minor)):
        if text != "*":
            compared.append((register, int(text)))
    body = [_step(_MOVE, _RESULT, value=1), _step(_EXIT)]
    # From the last test to the first: each jumps behind what follows it.
    for register, value in reversed(compared):
        body.insert(0, _step(_UNEQUAL, register, offset=len(body), value=value))
    refused = ~allowed & sum(_ACCESS.values())
    return [
        _step(_MOVE_REGISTER, _SCRATCH, _WANTED),
        _step(_AND, _SCRATCH, value=refused),
        *body,
    ]


def _step(code: int, target: int = 0, source: int = 0, offset: int = 0, *, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, source << 4 | target, offset, value)


def _load(program: bytes) -> int:
    code = ctypes.create_string_buffer(program, len(program))
    license_text = ctypes.create_string_buffer(b"Apache-2.0")
    attributes = struct.pack(
        "=IIQQIIQII",
        _PROG_TYPE_CGROUP_DEVICE,
        len(program) // 8,
        ctypes.addressof(code),
        ctypes.addressof(license_text),
        0,
        0,
        0,
        0,
        0,
    )
    return _bpf(_PROG_LOAD, attributes)


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    number = _BPF.get(os.uname().machine)
    if number is None:
        raise OSError(f"podctl does not know bpf(2) of {os.uname().machine}")
    return syscall("bpf", number, command, ctypes.byref(buffer), len(attributes))
