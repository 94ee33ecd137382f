"""Compiling a policy to a seccomp filter: classic BPF over struct seccomp_data (seccomp(2)).

The calls of an ABI with equal answers lie in runs; a balanced tree of comparisons finds the run of
a number in about eight steps, where a list of 400 comparisons costs every call of the app.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from podctl_isolators_linux.syscalls import X32_BIT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from podctl_isolators_linux.syscalls import Abi

    #: code, jump if true, jump if false, operand
    Instruction = tuple[int, int, int, int]

ALLOW, KILL = 0x7FFF0000, 0x80000000
_ERRNO = 0x00050000
#: linux/bpf_common.h: load a word; jump; jump if equal, not below, any bit; and; return
_LOAD, _JUMP, _EQUAL, _NOT_BELOW, _BITS, _AND, _RETURN = 0x20, 0x05, 0x15, 0x35, 0x45, 0x54, 0x06
# struct seccomp_data
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
#: BPF_MAXINSNS
_MOST = 4096
#: farthest conditional jump
_FAR = 255


class Mask(NamedTuple):
    """Allowed where argument `argument` has none of `bits`."""

    argument: int
    bits: int


class OneOf(NamedTuple):
    """Allowed where argument `argument` is one of `values`."""

    argument: int
    values: tuple[int, ...]


class NoneOf(NamedTuple):
    """Allowed where argument `argument` is none of `values`."""

    argument: int
    values: tuple[int, ...]


Rule = Mask | OneOf | NoneOf


class Guard(NamedTuple):
    """The answer to a call that depends on an argument: allowed, or else `otherwise`.

    The lower half of the argument is what is compared: the kernel takes an int of each of them,
    and what stands above must not hide a value (CVE-2019-10063).
    """

    rule: Rule
    otherwise: int


Answer = int | Guard


def errno_answer(number: int) -> int:
    """The answer by which a call fails with an errno."""
    return _ERRNO | number


def compile_filter(abis: Sequence[Abi], answer: Callable[[str], Answer], absent: int) -> bytes:
    """The program, an array of struct sock_filter.

    Args:
        abis: of the machine. A call by another one ends the process.
        answer: the answer to a call, by its name.
        absent: the answer to a number that no call has.

    Raises:
        ValueError: the program gets longer than the kernel takes.
    """
    code: list[Instruction] = [(_LOAD, 0, 0, _ARCH)]
    for arch in dict.fromkeys(abi.arch for abi in abis):
        body: list[Instruction] = [(_LOAD, 0, 0, _NUMBER)]
        for abi in sorted((one for one in abis if one.arch == arch), key=lambda one: not one.x32):
            part = _tree(_runs(abi.calls, answer, absent))
            if abi.x32:
                part = [(_AND, 0, 0, X32_BIT - 1), *part]
                body += [(_NOT_BELOW, 0, 1, X32_BIT), (_JUMP, 0, 0, 1), (_JUMP, 0, 0, len(part))]
            body += part
        code += [(_EQUAL, 1, 0, arch), (_JUMP, 0, 0, len(body)), *body]
    code.append((_RETURN, 0, 0, KILL))
    if len(code) > _MOST:
        raise ValueError(f"a filter of {len(code)} instructions")
    return struct.pack("=" + "HBBI" * len(code), *(field for step in code for field in step))


def _runs(
    calls: Sequence[str], answer: Callable[[str], Answer], absent: int
) -> list[tuple[int, Answer]]:
    """(first number, answer) of each run of equal answers."""
    known: dict[str, Answer] = {"": absent}
    runs: list[tuple[int, Answer]] = []
    for number, name in enumerate(calls):
        found = known.get(name)
        if found is None:
            found = known[name] = answer(name)
        if not runs or runs[-1][1] != found:
            runs.append((number, found))
    if not runs or runs[-1][1] != absent:
        runs.append((len(calls), absent))
    return runs


def _tree(runs: Sequence[tuple[int, Answer]]) -> list[Instruction]:
    if len(runs) == 1:
        return _leaf(runs[0][1])
    middle = len(runs) // 2
    below, above = _tree(runs[:middle]), _tree(runs[middle:])
    if len(below) <= _FAR:
        return [(_NOT_BELOW, len(below), 0, runs[middle][0]), *below, *above]
    return [(_NOT_BELOW, 0, 1, runs[middle][0]), (_JUMP, 0, 0, len(below)), *below, *above]


def _leaf(answer: Answer) -> list[Instruction]:
    if isinstance(answer, int):
        return [(_RETURN, 0, 0, answer)]
    rule, otherwise = answer
    load = (_LOAD, 0, 0, _ARGUMENTS + 8 * rule.argument)
    if isinstance(rule, Mask):
        return [load, (_BITS, 0, 1, rule.bits), (_RETURN, 0, 0, otherwise), (_RETURN, 0, 0, ALLOW)]
    count = len(rule.values)
    tests = [(_EQUAL, count - at, 0, value) for at, value in enumerate(rule.values)]
    met, unmet = (ALLOW, otherwise) if isinstance(rule, OneOf) else (otherwise, ALLOW)
    return [load, *tests, (_RETURN, 0, 0, unmet), (_RETURN, 0, 0, met)]


def run(program: bytes, arch: int, number: int, arguments: Mapping[int, int] | None = None) -> int:
    """The answer of a program to a call, as the kernel would compute it; for tests and reports."""
    data = {_NUMBER: number & 0xFFFFFFFF, _ARCH: arch}
    for index, value in (arguments or {}).items():
        data[_ARGUMENTS + 8 * index] = value & 0xFFFFFFFF
    steps = list(struct.iter_unpack("=HBBI", program))
    at = accumulator = 0
    while True:
        code, true, false, operand = steps[at]
        at += 1
        if code == _RETURN:
            return int(operand)
        if code == _LOAD:
            accumulator = data.get(operand, 0)
        elif code == _AND:
            accumulator &= operand
        elif code == _JUMP:
            at += operand
        else:
            met = {
                _EQUAL: accumulator == operand,
                _NOT_BELOW: accumulator >= operand,
                _BITS: bool(accumulator & operand),
            }[code]
            at += true if met else false
