"""Which file is executed, and what is said when it cannot be."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest

from podctl.model.plan import Identity
from podctl.testing.pods import Process, start

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from podctl.model.plan import LaunchPlan
    from podctl.testing.pods import PodFactory, Result


@pytest.fixture
def run(factory: PodFactory, make_plan: Callable[..., LaunchPlan]) -> Callable[..., Result]:
    def run(*argv: str, **fields: object) -> Result:
        pod = factory.pod(*argv)
        with start(make_plan(pod, **fields), pod) as process:
            return process.wait()

    return run


def put(factory: PodFactory, path: str, content: bytes = b"", mode: int = 0o755) -> None:
    full = f"{factory.image}/{path}"
    os.makedirs(os.path.dirname(full), exist_ok=True)
    with open(full, "wb") as file:
        file.write(content)
    os.chmod(full, mode)


SCRIPT = b"#!/bin/sh\necho $0\n"


def test_bare_name_is_searched_in_the_app_s_path(
    factory: PodFactory, run: Callable[..., Result]
) -> None:
    put(factory, "second/tool", SCRIPT)
    put(factory, "third/tool", b"wrong one")
    os.makedirs(f"{factory.image}/first/tool")
    environment = {"PATH": "/missing:/first:/second:/third"}
    assert run("tool", environment=environment) == (0, "/second/tool\n", "")


def test_relative_name_starts_at_the_working_directory(
    factory: PodFactory, run: Callable[..., Result]
) -> None:
    put(factory, "opt/app/bin/tool", SCRIPT)
    assert run("bin/tool", working_directory="/opt/app").out == "/opt/app/bin/tool\n"
    assert run("./tool", working_directory="/opt/app/bin").code == 0
    put(factory, "opt/app/here", SCRIPT)
    assert run("here", working_directory="/opt/app", environment={}).code == 0
    assert run("here", working_directory="/opt/app").code == 127


def test_links_lead_inside_the_image(
    factory: PodFactory, run: Callable[..., Result], tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(SCRIPT)
    outside.chmod(0o755)
    os.symlink(outside, f"{factory.image}/bin/stray")
    os.symlink("../../../bin/busybox", f"{factory.image}/bin/cat2")
    assert run("/bin/stray").code == 127
    os.mkdir(f"{factory.image}/opt")
    os.symlink("/bin/echo", f"{factory.image}/opt/echo")
    assert run("/opt/echo", "hello").out == "hello\n"


ELF = b"\x7fELF\x02\x01\x01" + b"\0" * 9


def elf(machine: int, loader: bytes = b"") -> bytes:
    """A 64-bit little-endian ELF file of nothing but a header and, if asked, PT_INTERP."""
    header = struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    offset = 64 + 56
    entry = struct.pack("<IIQQQQQQ", 3, 4, offset, 0, 0, len(loader) + 1, len(loader) + 1, 1)
    return ELF + header + entry + loader + b"\0"


OWN = {"x86_64": 62, "aarch64": 183}.get(os.uname().machine, 62)
FOREIGN, NAME = (183, "aarch64") if OWN == 62 else (62, "x86_64")

CASES = {
    "missing": (None, 0, 127, "/x: no such program in the image"),
    "not executable": (SCRIPT, 0o644, 126, "/x has no execute permission"),
    "empty": (b"", 0o755, 126, "/x is empty"),
    "text": (b"echo hi\n", 0o755, 126, "/x is neither an ELF program nor a #! script"),
    "no interpreter": (b"#!/no/sh -e\n", 0o755, 127, "its #! interpreter /no/sh is not in the"),
    "dos script": (b"#!/bin/sh\r\n", 0o755, 127, "the line ends with a carriage return"),
    "empty #!": (b"#!\n", 0o755, 126, "empty #! line"),
    "foreign": (elf(FOREIGN), 0o755, 126, f"/x is built for {NAME}, this host is "),
    "no loader": (elf(OWN, b"/lib/ld.so"), 0o755, 127, "its loader /lib/ld.so is not in the image"),
    "damaged": (b"\x7fELF\x02\x01", 0o755, 126, "/x is a damaged ELF file"),
}


@pytest.mark.parametrize("case", CASES)
def test_diagnosis_is_one_clear_line(
    factory: PodFactory, run: Callable[..., Result], case: str
) -> None:
    content, mode, code, text = CASES[case]
    if content is not None:
        put(factory, "x", content, mode)
    result = run("/x")
    assert result.code == code
    assert text in result.err
    assert result.err.count("\n") == 1
    assert result.out == ""


@pytest.mark.parametrize("program", ["/bin", "/dev/null", "/proc/self/exe", "/loop", "..", "."])
def test_what_is_no_program_of_the_image(
    factory: PodFactory, run: Callable[..., Result], program: str
) -> None:
    from podctl.model.plan import Bind

    os.symlink("loop", f"{factory.image}/loop")
    pod = factory.pod(program)
    with start(_plan_with_host_trees(pod, Bind), pod) as process:
        result = process.wait()
    assert result.code in (126, 127)
    assert result.err.count("\n") == 1


def _plan_with_host_trees(pod: object, bind: type) -> LaunchPlan:
    from podctl.model.plan import LaunchPlan, Overlay

    app = pod.apps[0]  # type: ignore[attr-defined]
    return LaunchPlan(
        flavor="test",
        namespaces=("NS",),
        root=app.root,
        steps=(
            Overlay(app.root, app.rootfs.lowers, app.upper, app.work),
            bind("/dev", "/dev"),
            bind("/proc", "/proc"),
        ),
        identity=Identity(0, 0),
        working_directory="/",
        environment={"PATH": "/bin"},
        argv=app.app.exec,
    )


def test_user_without_permission_is_told_so(
    factory: PodFactory, run: Callable[..., Result]
) -> None:
    put(factory, "x", SCRIPT, 0o700)
    result = run("/x", identity=Identity(1001, 1001))
    assert result.code == 126
    assert "Permission denied" in result.err
    put(factory, "y", b"#!/no/sh\n", 0o711)
    assert "/no/sh is not in the image" in run("/y", identity=Identity(1001, 1001)).err


def test_names_are_shown_escaped(factory: PodFactory) -> None:
    """What is written after the change of root passes no other hand, and needs no codec that a
    fresh interpreter has yet to load."""
    import subprocess
    import sys

    put(factory, "x", b"#!/\x1b[31mred\n")
    os.makedirs(f"{factory.directory}/pod")
    script = f"""
import sys
from podctl.model.plan import Identity, LaunchPlan, PreparedPod
from podctl.pods.launch import launch
assert not any(name.startswith("encodings.unicode_escape") for name in sys.modules)
plan = LaunchPlan("test", ("NS",), {factory.image!r}, (), Identity(0, 0), "/", {{}}, ("/x",))
launch(plan, PreparedPod("test", {factory.directory + "/pod"!r}, ()), None)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 127
    assert result.stderr == ("podctl: /x: its #! interpreter /\\x1b[31mred is not in the image\n")


def test_argument_list_too_long_is_an_error_of_the_app(run: Callable[..., Result]) -> None:
    result = run("/bin/true", "x" * 200_000)
    assert result.code == 126
    assert "too long" in result.err


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"argv": ("/bin/true", "a\0b")}, "NUL"),
        ({"argv": ()}, "nothing to execute"),
        ({"environment": {"A=B": "c"}}, "A=B"),
        ({"environment": {"": "c"}}, "cannot be passed"),
        ({"environment": {"A": "b\0c"}}, "cannot be passed"),
    ],
)
def test_what_execve_cannot_carry_is_refused(
    run: Callable[..., Result], fields: dict[str, object], text: str
) -> None:
    result = run("/bin/true", **fields)
    assert result.code == 254
    assert text in result.err


def test_every_byte_but_nul_travels(run: Callable[..., Result]) -> None:
    word = os.fsdecode(bytes(range(1, 256)))
    result = run(
        "/bin/sh",
        "-c",
        'echo "$1" | wc -c; echo "$X" | wc -c',
        "sh",
        word,
        environment={"PATH": "/bin", "X": word},
    )
    assert result.out.split() == ["256", "256"]


def test_control_an_unguarded_process_would_load_from_the_image(
    factory: PodFactory,
) -> None:
    """Importing after a change of root runs the image's code; launch has it switched off."""
    import sys

    library = next(path for path in sys.path if path.endswith(f"python3.{sys.version_info[1]}"))
    put(
        factory, f"{library.lstrip('/')}/planted_module.py", b"import os\nos.write(1, b'planted')\n"
    )

    def naive() -> None:
        os.chroot(factory.image)
        sys.path_importer_cache.clear()
        __import__("planted_module")

    def guarded() -> None:
        from podctl.sys.imports import forbid_imports

        forbid_imports()
        naive()

    with Process(naive) as process:
        assert process.wait().out == "planted"
    with Process(guarded) as process:
        result = process.wait()
    assert result.out == ""
    assert "ModuleNotFoundError" in result.err
