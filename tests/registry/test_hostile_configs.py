"""References and configurations of images as an attacker writes them (rows M9-M18)."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from refusals import assert_refused
from small import runnable

from podctl.testing.ocilayers import Entry, directory, fifo, file, symlink

if TYPE_CHECKING:
    from pathlib import Path

    from clean_home import Clean
    from home import Done

    from podctl.testing.registry import Registry

pytestmark = pytest.mark.root

FLY = "--stage1=fly"
NAME = "docker://registry.example/app:1"


def run(registry: Registry, home: Clean, *entries: Entry, **config: Any) -> Done:
    """Publish an image and run it."""
    registry.put("app", runnable(*entries, **config), "1")
    done = home.podctl("run", FLY, NAME)
    assert "Traceback" not in done.stderr
    return done


def refused(done: Done) -> str:
    """The line a run that never began says."""
    assert done.returncode == 254, done
    assert done.stdout == ""
    return done.stderr.splitlines()[-1]


# -- M9: references ----------------------------------------------------------------------------

REFERENCES = {
    "empty_component": "docker://registry.example/a//b",
    "dots": "docker://registry.example/../etc",
    "dot": "docker://registry.example/a/./b",
    "upper_case": "docker://registry.example/App",
    "too_long": "docker://registry.example/" + "a" * 300,
    "long_tag": "docker://registry.example/app:" + "a" * 129,
    "bad_tag": "docker://registry.example/app:-x",
    "short_digest": "docker://registry.example/app@sha256:abc",
    "digest_traversal": "docker://registry.example/app@sha256:../../../etc/passwd",
    "unknown_algorithm": "docker://registry.example/app@md5:" + "a" * 32,
    "homoglyph": "docker://registry.ex\u0430mple/app",
    "unicode_name": "docker://registry.example/\u00e4pp",
    "port_out_of_range": "docker://registry.example:99999/app",
    "port_no_number": "docker://registry.example:https/app",
    "leading_dash": "docker://-registry.example/app",
    "option": "docker://--help/app",
    "userinfo": "docker://user:secret@registry.example/app",
    "query": "docker://registry.example/app?tag=1",
    "fragment": "docker://registry.example/app#1",
    "newline": "docker://registry.example/app\n:1",
    "space": "docker://registry.example/a b",
    "nothing": "docker://",
    "only_a_tag": "docker://:1",
    "scheme_in_the_name": "docker://https://registry.example/app",
}


@pytest.mark.parametrize("reference", REFERENCES.values(), ids=REFERENCES)
@pytest.mark.parametrize("command", ["fetch", "run"])
def test_m9_a_reference_is_judged_before_anybody_is_asked(
    reference: str, command: str, registry: Registry, home: Clean
) -> None:
    registry.put("app", runnable(), "1")
    assert_refused(home, f"^{command}: ", command, *([FLY] if command == "run" else []), reference)
    assert registry.log == []


# -- M10, M11: users ---------------------------------------------------------------------------

USERS = {
    "1000": "1000 1001",  # a user of this name has uid 0 (CVE-2016-3697)
    "0": "0 0",
    "app": "1000 1001",
    "root": "0 0",
    "app:extra": "1000 77",
    "1000:77": "1000 77",
    "12345:54321": "12345 54321",
}


@pytest.mark.parametrize("user", USERS)
def test_m10_numeric_means_numeric(user: str, registry: Registry, home: Clean) -> None:
    done = run(registry, home, User=user, shell="echo $(id -u) $(id -g)")
    assert done.stdout.strip() == USERS[user], done


BAD_USERS = {
    "one_beyond_32_bit": "4294967296",
    "no_change": "4294967295",
    "negative": "-1",
    "overflow": "18446744073709551616",
    "hexadecimal": "0x0",
    "group_beyond": "1000:4294967296",
    "unknown": "nobody-here",
    "unknown_group": "app:nobody-here",
    "two_colons": "app:app:app",
    "path": "/etc/passwd",
    "newline": "root\nx",
}


@pytest.mark.parametrize("user", BAD_USERS.values(), ids=BAD_USERS)
def test_m10_a_user_that_cannot_be_is_refused(user: str, registry: Registry, home: Clean) -> None:
    """CVE-2024-40635: never another user than the one that is named."""
    refused(run(registry, home, User=user, shell="id -u"))


PASSWD: dict[str, Entry] = {
    "link_out": symlink("etc/passwd", "../../../../../../../../etc/passwd-of-the-host"),
    "absolute_link_out": symlink("etc/passwd", "/etc/passwd-of-the-host"),
    "fifo": fifo("etc/passwd"),
    "directory": directory("etc/passwd"),
    "too_large": file("etc/passwd", "#" * (2 << 20) + "\nvictim:x:0:0::/:/bin/sh\n"),
    "link_to_itself": symlink("etc/passwd", "passwd"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("entry", PASSWD.values(), ids=PASSWD)
def test_m11_users_are_looked_up_in_the_image_alone(
    entry: Entry, registry: Registry, home: Clean, tmp_path: Path
) -> None:
    """CVE-2024-9676: what pretends to be the list of users is neither followed nor waited for."""
    line = refused(run(registry, home, entry, User="victim", shell="id -u"))
    assert "victim" in line or "passwd" in line


# -- M12: environment --------------------------------------------------------------------------

VARIABLES = {
    "LD_PRELOAD": "/nonexistent/evil.so",
    "LD_LIBRARY_PATH": "/evil",
    "PYTHONPATH": "/evil",
    "PYTHONSTARTUP": "/evil.py",
    "PODCTL_DIR": "/evil",
    "SYSTEMD_LOG_LEVEL": "debug",
    "NOTIFY_SOCKET": "/evil",
    "LISTEN_FDS": "3",
    "PATH": "/evil:/bin",
    "EMPTY": "",
    "ODD": "a=b c\td",
    "LINES": "one\ntwo",
}


def test_m12_variables_reach_the_app_and_nobody_else(registry: Registry, home: Clean) -> None:
    """A dynamic loader that is given LD_PRELOAD says so: only busybox, which has none, is."""
    pairs = [f"{name}={value}" for name, value in VARIABLES.items()]
    # What it runs in, podctl says itself.
    given = [*pairs, "container=docker"]
    script = "/bin/busybox tr '\\0' '\\n' </proc/self/environ; exit 7"
    done = run(registry, home, Env=given, shell=script)
    assert done.returncode == 7, done
    for pair in [*pairs, "container=podctl"]:
        assert pair in done.stdout
    assert "ld.so" not in done.stderr
    assert "preload" not in done.stderr


@pytest.mark.parametrize(
    "pair", ["NUL=a\0b", "=value", "\0", "N\0=x"], ids=["NUL", "nameless", "only NUL", "NUL name"]
)
def test_m12_a_variable_that_cannot_be_is_refused(
    pair: str, registry: Registry, home: Clean
) -> None:
    refused(run(registry, home, Env=[pair], shell="env"))


def test_m12_an_environment_no_program_can_have_is_refused(registry: Registry, home: Clean) -> None:
    huge = [f"V{number}={'x' * 1000}" for number in range(3500)]
    done = run(registry, home, Env=huge, shell="env")
    # Which size is too large, the kernel says.
    assert done.returncode in (126, 254)
    assert len(done.stderr.splitlines()[-1]) < 500


# -- M13: reserved names -----------------------------------------------------------------------

RESERVED = {
    "io.podctl.stage1": "/bin/evil",
    "io.podctl/insecure-options": "all",
    "coreos.com/rkt/stage1/run": "/bin/evil",
    "coreos.com/rkt/stage2/mount": "/",
    "appc.io/executor/supports-systemd-notify": "true",
    "os/linux/capabilities-retain-set": "all",
}


def test_m13_reserved_labels_and_annotations_are_dropped(registry: Registry, home: Clean) -> None:
    plain = runnable(shell="grep CapEff /proc/self/status; grep NoNewPrivs /proc/self/status")
    registry.put("plain", plain, "1")
    labels = {**RESERVED, "org.example.kept": "yes"}
    config = {**plain.config.value["config"], "Labels": labels}
    odd = plain.reconfigured(config=config).amended(annotations=RESERVED)
    registry.put("app", odd, "1")
    before = home.must("run", FLY, "docker://registry.example/plain:1")
    assert home.must("run", FLY, NAME) == before
    plan = home.must("run", FLY, "--dry-run", "registry.example/app:1")
    pods = home.pods()
    manifests = [home.must("cat-manifest", uuid) for uuid in pods]
    for text in (plan, *manifests):
        assert "/bin/evil" not in text
        assert "io.podctl" not in text
        assert "executor" not in text


# -- M14: working directory --------------------------------------------------------------------


@pytest.mark.parametrize("number", range(3, 17))
def test_m14_no_descriptor_is_a_way_out(number: int, registry: Registry, home: Clean) -> None:
    """CVE-2024-21626."""
    done = run(
        registry, home, WorkingDir=f"/proc/self/fd/{number}",
        shell="pwd; ls -a . ../../../../.. 2>/dev/null; cat ../../../../etc/hostname",
    )  # fmt: skip
    hostname = os.uname().nodename
    assert hostname not in done.stdout
    assert "boot" not in done.stdout.split()


WORKING = {
    "dots": ("/../../../..", "/"),
    "link_up": ("/up", "/"),
    "link_to_a_host_directory": ("/host", None),
    "not_there_yet": ("/made/for/it", "/made/for/it"),
    "trailing_slash": ("/etc/", "/etc"),
}


@pytest.mark.parametrize("name", WORKING)
def test_m14_a_working_directory_is_in_the_image(
    name: str, registry: Registry, home: Clean
) -> None:
    entries = [symlink("up", "../../../.."), symlink("host", str(home.user_home))]
    (home.user_home / "secret").touch()
    given, expected = WORKING[name]
    done = run(registry, home, *entries, WorkingDir=given, shell="pwd; ls")
    (home.user_home / "secret").unlink()
    assert "secret" not in done.stdout
    if expected is None:
        assert done.returncode != 0 or str(home.user_home) in done.stdout
    else:
        assert done.stdout.splitlines()[0] == expected, done


@pytest.mark.parametrize("given", ["nul\0", "/" + "a/" * 3000], ids=["NUL", "too long"])
def test_m14_a_working_directory_that_cannot_be_is_refused(
    given: str, registry: Registry, home: Clean
) -> None:
    refused(run(registry, home, WorkingDir=given, shell="pwd"))


# -- M15: volumes ------------------------------------------------------------------------------

VOLUMES = [
    "/", "/proc", "/proc/self", "/proc/1/root", "/dev", "/dev/shm", "/sys", "/sys/fs/cgroup", "/..",
    "/a/../../proc", "//proc", "/proc/", "", "nul\0",
]  # fmt: skip


@pytest.mark.parametrize("volume", VOLUMES)
def test_m15_a_volume_over_what_must_not_be_covered_is_refused(
    volume: str, registry: Registry, home: Clean
) -> None:
    line = refused(run(registry, home, Volumes={volume: {}}, shell="true"))
    assert "olume" in line or "mount" in line or "NUL" in line, line


@pytest.mark.parametrize("target", ["/proc", "../../../../proc", "/proc/self", "/dev/../proc"])
def test_m15_a_link_leads_no_volume_over_proc(target: str, registry: Registry, home: Clean) -> None:
    done = run(
        registry, home, directory("srv"), symlink("srv/volume", target),
        Volumes={"/srv/volume": {}}, shell="cat /proc/self/comm",
    )  # fmt: skip
    assert "/proc" in refused(done)


@pytest.mark.parametrize("target", ["/host", "../../../../../../../host"])
def test_m15_a_link_leads_a_volume_to_a_place_in_the_image(
    target: str, registry: Registry, home: Clean
) -> None:
    target = target.replace("/host", str(home.user_home))
    done = run(
        registry, home, directory("srv"), symlink("srv/volume", target),
        Volumes={"/srv/volume": {}}, shell="touch /srv/volume/made && ls /srv/volume/",
    )  # fmt: skip
    assert done.returncode == 254 or done.stdout == "made\n", done
    assert list(home.user_home.iterdir()) == []


def test_m15_control_a_volume_is_there(registry: Registry, home: Clean) -> None:
    done = run(
        registry, home, directory("data"), file("data/seed", "grown"),
        Volumes={"/data": {}}, shell="cat /data/seed; echo x >/data/y && ls /data",
    )  # fmt: skip
    assert done.stdout == "grownseed\ny\n", done


# -- M16: the program --------------------------------------------------------------------------

ARM = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00" + bytes(44)
PROGRAMS: dict[str, tuple[list[str], int, str]] = {
    "missing": (["/bin/absent"], 127, "/bin/absent"),
    "missing_in_path": (["absent"], 127, "absent"),
    "directory": (["/bin"], 126, "/bin"),
    "not_executable": (["/etc/passwd"], 126, "/etc/passwd"),
    "missing_interpreter": (["/script"], 127, "/no/such/interpreter"),
    "another_machine": (["/arm"], 126, "/arm"),
    "link_out": (["/link"], 127, "/link"),
    "link_to_itself": (["/loop"], 127, "/loop"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_m16_what_cannot_be_run_is_named(name: str, registry: Registry, home: Clean) -> None:
    command, code, word = PROGRAMS[name]
    entries = [
        file("script", "#!/no/such/interpreter\n", mode=0o755), file("arm", ARM, mode=0o755),
        symlink("link", "../../../usr/bin/env"), symlink("loop", "loop"),
    ]  # fmt: skip
    done = run(registry, home, *entries, Entrypoint=command, Cmd=None)
    assert done.returncode in ({code, 126} if name == "link_to_itself" else {code}), done
    assert word in done.stderr.splitlines()[-1], done


@pytest.mark.parametrize("config", [{"Cmd": None}, {"Cmd": []}, {"Cmd": [], "Entrypoint": []}])
def test_m16_an_image_without_a_program_says_so(
    config: dict[str, Any], registry: Registry, home: Clean
) -> None:
    line = refused(run(registry, home, **config))
    assert "--exec" in line, line
    ran = home.must("run", FLY, NAME, "--exec=/bin/busybox", "--", "echo", "hello")
    assert ran == "hello\n"


@pytest.mark.parametrize("word", ["", "a\0b"], ids=["empty", "NUL"])
def test_m16_a_program_that_cannot_be_is_refused(
    word: str, registry: Registry, home: Clean
) -> None:
    refused(run(registry, home, Entrypoint=[word], Cmd=None))


# -- M17, M18: files that somebody might believe ------------------------------------------------


def test_m17_configuration_an_image_ships_has_no_effect(registry: Registry, home: Clean) -> None:
    evil = "[Exec]\nPrivateUsers=no\nCapability=all\n[Files]\nBind=/\n"
    unit = "[Service]\nExecStart=/bin/sh -c 'echo evil >/evil'\n"
    done = run(
        registry, home, file(".nspawn", evil), file("etc/systemd/nspawn/app.nspawn", evil),
        file("usr/lib/systemd/system/default.target", unit), file("etc/ld.so.preload", "/evil.so"),
        file("config.json", json.dumps({"hooks": {"prestart": [{"path": "/bin/evil"}]}})),
        file("usr/lib/python3/dist-packages/sitecustomize.py", "raise SystemExit(9)"),
        shell="ls /evil 2>/dev/null; echo only this",
    )  # fmt: skip
    assert done.stdout == "only this\n"
    assert done.returncode == 0


M18 = ("etc/resolv.conf", "etc/hosts", "etc/hostname", "etc/mtab", "etc/localtime")


@pytest.mark.parametrize("kind", ["link_out", "dotted_link", "fifo", "directory"])
def test_m18_what_podctl_writes_stays_in_the_image(
    kind: str, registry: Registry, home: Clean
) -> None:
    canary = home.top / "canary"
    canary.write_text("sings\n")
    makers = {
        "link_out": lambda path: symlink(path, str(canary)),
        "dotted_link": lambda path: symlink(path, "../../../../../../../.." + str(canary)),
        "fifo": fifo,
        "directory": directory,
    }
    registry.put("app", runnable(*map(makers[kind], M18), shell="cat /etc/resolv.conf"), "1")
    before = canary.stat()
    done = home.podctl("run", FLY, "--dns=192.0.2.99", "--hosts-entry=192.0.2.98=other", NAME)
    assert canary.read_text() == "sings\n"
    assert canary.stat().st_mtime_ns == before.st_mtime_ns
    assert "192.0.2.99" in done.stdout or done.returncode == 254, done
