"""Flags of one app as values."""

from __future__ import annotations

import pytest

from podctl.errors import UsageError
from podctl.model import isolators as iso
from podctl.model.isolators import make_isolator
from podctl.model.settings import APP_FLAGS, AppSettings, parse_settings
from podctl.model.streams import Streams
from podctl.model.volumes import Mount


def of(*words: str) -> AppSettings:
    """Parse words like `--user=1`."""
    flags = [word.partition("=") for word in words]
    return parse_settings([(name, value) for name, _, value in flags])


def test_nothing_said_changes_nothing() -> None:
    settings = of()
    assert settings == AppSettings()
    image = (make_isolator(iso.CPU_SHARES, 2), make_isolator("x", 1))
    assert settings.apply_isolators(image) == _of_image(image)


def _of_image(isolators: tuple[iso.Isolator, ...]) -> tuple[iso.Isolator, ...]:
    return tuple(one._replace(of_image=True) for one in isolators)


def test_every_flag() -> None:
    settings = of(
        "--exec=/bin/sh",
        "--working-dir=/srv",
        "--user=www-data",
        "--group=33",
        "--supplementary-gids=1, 2,4294967294",
        "--readonly-rootfs=true",
        "--mount=volume=a,target=/a",
        "--mount=volume=b,target=/b",
        "--name=web",
        "--annotation=a.b/c=d=e",
        "--user-annotation=Any Key=1",
        "--user-label=l=",
        "--environment=A=b",
        "--signature=/x.asc",
        "--stdin=stream",
        "--stdout=stream",
        "--stderr=null",
    )
    assert settings == AppSettings(
        exec="/bin/sh",
        working_directory="/srv",
        user="www-data",
        group="33",
        supplementary_gids=(1, 2, 4294967294),
        read_only_root_fs=True,
        mounts=(Mount("a", "/a"), Mount("b", "/b")),
        name="web",
        annotations={"a.b/c": "d=e"},
        user_annotations={"Any Key": "1"},
        user_labels={"l": ""},
        environment={"A": "b"},
        signature="/x.asc",
        streams=Streams("stream", "stream", "null"),
    )


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ("--memory=42Mi", iso.MEMORY, {"limit": "42Mi"}),
        ("--memory=4096", iso.MEMORY, {"limit": "4096"}),
        ("--cpu=900m", iso.CPU, {"limit": "900m"}),
        ("--cpu-shares=12345", iso.CPU_SHARES, 12345),
        ("--oom-score-adj=-50", iso.OOM_SCORE_ADJ, -50),
        ("--oom-score-adjust=42", iso.OOM_SCORE_ADJ, 42),
        ("--caps-retain=CAP_KILL,bpf", iso.CAPABILITIES_RETAIN, {"set": ["CAP_KILL", "CAP_BPF"]}),
        ("--cap-retain=net_admin", iso.CAPABILITIES_RETAIN, {"set": ["CAP_NET_ADMIN"]}),
        ("--caps-retain=", iso.CAPABILITIES_RETAIN, {"set": []}),
        ("--cap-remove=CAP_MKNOD", iso.CAPABILITIES_REMOVE, {"set": ["CAP_MKNOD"]}),
        ("--seccomp=mode=retain,read,@a/b", iso.SECCOMP_RETAIN, {"set": ["read", "@a/b"]}),
        (
            "--seccomp=mode=remove,errno=EXFULL,stat",
            iso.SECCOMP_REMOVE,
            {"set": ["stat"], "errno": "EXFULL"},
        ),
    ],
)  # fmt: skip
def test_isolator_flags(word: str, name: str, value: object) -> None:
    assert of(word).isolators == (make_isolator(name, value),)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--exec=a", "--exec=b"], "--exec may be given only once"),
        (["--signature=a", "--signature=a"], "--signature may be given only once"),
        (["--exec="], "--exec must not be empty"),
        (["--working-dir=srv"], "--working-dir 'srv' must be an absolute path"),
        (["--user=-1"], "--user '-1' is not in"),
        (["--user=4294967296"], "--user 4294967296 is not in"),
        (["--user="], "--user is required"),
        (["--group=a:b"], "--group 'a:b'"),
        (["--supplementary-gids="], "must be a number"),
        (["--supplementary-gids=1,,2"], "must be a number"),
        (["--supplementary-gids=1,-2"], "must be a number"),
        (["--supplementary-gids=4294967295"], "not in 0"),
        (["--readonly-rootfs=maybe"], "--readonly-rootfs 'maybe' must be true or false"),
        (["--name=My_App"], "--name 'My_App'"),
        (["--name=../x"], "--name '../x'"),
        (["--annotation=A=b"], "--annotation: annotation name"),
        (["--annotation=a"], "write KEY=VALUE"),
        (["--annotation=a=1", "--annotation=a=1"], "--annotation: a is given twice"),
        (["--annotation=created=now"], "RFC 3339"),
        (["--user-annotation=a=1", "--user-annotation=a=2"], "--user-annotation: a is given twice"),
        (["--user-label==x"], "write KEY=VALUE"),
        (["--environment=A=1", "--environment=A=2"], "A appears twice"),
        (["--environment=A"], "write NAME=VALUE"),
        (["--memory=16m"], "less than 4096 bytes"),
        (["--memory=4095"], "less than 4096 bytes"),
        (["--memory=-1"], "no quantity"),
        (["--memory=1e999"], "no quantity"),
        (["--memory="], "no quantity"),
        (["--cpu=0"], "must be more than 0"),
        (["--cpu=fast"], "no quantity"),
        (["--cpu-shares=1"], "2..262144"),
        (["--cpu-shares=1k"], "must be a number"),
        (["--oom-score-adj=1001"], "-1000..1000"),
        (["--oom-score-adj=--5"], "must be a number"),
        (["--caps-retain=CAP_PONIES"], "no capability"),
        (["--caps-retain=CAP_KILL", "--caps-remove=CAP_KILL"], "exclude each other"),
        (["--caps-retain=CAP_KILL", "--cap-remove=CAP_KILL"], "exclude each other"),
        (["--seccomp=read"], "write mode=retain or mode=remove"),
        (["--seccomp=mode=allow,read"], "'mode=allow' is not understood"),
        (["--seccomp=mode=retain"], "set must be non-empty"),
        (["--seccomp=mode=retain,mode=remove,read"], "not understood"),
        (["--seccomp=mode=retain,errno=NOPE,read"], "errno"),
        (["--seccomp=mode=retain,READ"], "seccomp entry"),
        (["--stdin=tty", "--stdout=stream"], "either a tty or streams to attach to, not both"),
        (["--stdin=log"], "--stdin 'log' must be one of: null, tty, stream"),
        (["--stdout=file"], "--stdout 'file' must be one of"),
        (["--mount=volume=a"], "target is required"),
    ],
)
def test_refused_flags(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        of(*words)


def test_last_of_a_flag_that_holds_one_value_wins() -> None:
    settings = of("--user=1", "--user=2", "--memory=1Mi", "--memory=2Mi")
    assert settings.user == "2"
    assert settings.isolators == (make_isolator(iso.MEMORY, {"limit": "2Mi"}),)


def test_given_isolators_replace_the_images() -> None:
    image = (
        make_isolator(iso.MEMORY, {"request": "1G", "limit": "1G"}),
        make_isolator(iso.CAPABILITIES_REMOVE, {"set": ["CAP_KILL"]}),
        make_isolator(iso.SECCOMP_RETAIN, {"set": ["read"]}),
        make_isolator(iso.NO_NEW_PRIVILEGES, True),
    )
    flags = ["--memory=42Mi", "--caps-retain=CAP_BPF", "--seccomp=mode=remove,stat"]
    applied = of(*flags).apply_isolators(image)
    assert [isolator.name for isolator in applied] == [
        iso.NO_NEW_PRIVILEGES,
        iso.MEMORY,
        iso.CAPABILITIES_RETAIN,
        iso.SECCOMP_REMOVE,
    ]
    assert iso.find(applied, iso.MEMORY) == {"limit": "42Mi"}
    assert of("--cpu=1").apply_isolators(image)[:4] == _of_image(image)
    assert not any(one.of_image for one in applied[1:])


def test_every_flag_of_the_table_is_understood() -> None:
    good = {
        "--mount": "volume=a,target=/a",
        "--seccomp": "mode=retain,read",
        "--readonly-rootfs": "true",
        "--working-dir": "/",
        "--caps-retain": "CAP_KILL",
        "--caps-remove": "CAP_KILL",
        "--stdin": "null",
        "--stdout": "null",
        "--stderr": "null",
        "--oom-score-adj": "5",
        "--no-new-privileges": "false",
    }
    pairs = ("--annotation", "--user-annotation", "--user-label", "--environment")
    for flag in APP_FLAGS:
        value = "k=v" if flag in pairs else good.get(flag, "5000")
        changed = parse_settings([(flag, value)])
        assert changed != AppSettings() or flag.startswith("--std"), flag
