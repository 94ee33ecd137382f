"""What a configuration becomes: the app section and the annotations."""

from __future__ import annotations

import json
from typing import Any

import pytest

from podctl.errors import InvalidInput, ManifestInvalid, Refused
from podctl.model.manifest import App, MountPoint, Port
from podctl_fetch_docker.config import ImageConfig, Settings
from podctl_fetch_docker.convert import (
    command,
    environment,
    mount_points,
    ports,
    to_annotations,
    to_app,
    user_and_group,
    user_labels,
)
from podctl_fetch_docker.platforms import Platform


def test_everything_together() -> None:
    settings = Settings(
        user="app:staff",
        exposed_ports=("80/tcp",),
        env=("A=b",),
        entrypoint=("/hello",),
        cmd=("--loud",),
        volumes=("/data",),
        working_dir="/srv",
        labels={"a": "b"},
    )
    assert to_app(settings) == App(
        exec=("/hello", "--loud"),
        user="app",
        group="staff",
        working_directory="/srv",
        environment={"A": "b"},
        mount_points=(MountPoint("volume-data", "/data"),),
        ports=(Port("80-tcp", "tcp", 80),),
        user_labels={"a": "b"},
    )


def test_nothing_said_is_root_in_the_root_with_nothing_to_execute() -> None:
    assert to_app(Settings()) == App(user="0", group="", working_directory="/", environment={})


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "argv"),
    [
        ((), (), ()),
        (("/a",), (), ("/a",)),
        ((), ("sh", "-c", "x"), ("sh", "-c", "x")),
        (("/a", "-b"), ("c", ""), ("/a", "-b", "c", "")),
        # Docker's way to take an entrypoint away.
        (("",), ("sh",), ("sh",)),
        (("",), (), ()),
        # There is no program of no name; the user may name one with --exec.
        ((), ("",), ()),
        (("", "x"), ("sh",), ()),
    ],
)
def test_entrypoint_and_cmd_are_one_command(
    entrypoint: tuple[str, ...], cmd: tuple[str, ...], argv: tuple[str, ...]
) -> None:
    assert command(entrypoint, cmd) == argv


@pytest.mark.parametrize(
    ("text", "account"),
    [
        ("", ("0", "")),
        ("root", ("root", "")),
        ("app", ("app", "")),
        ("1000", ("1000", "")),
        ("app:staff", ("app", "staff")),
        ("1000:50", ("1000", "50")),
        ("1000:staff", ("1000", "staff")),
        ("app:50", ("app", "50")),
        (":50", ("0", "50")),
        ("app:", ("app", "")),
        ("0", ("0", "")),
        ("www-data", ("www-data", "")),
        ("_apt", ("_apt", "")),
        ("first.last@example.com", ("first.last@example.com", "")),
        ("4294967294:4294967294", ("4294967294", "4294967294")),
    ],
)
def test_users_in_every_form(text: str, account: tuple[str, str]) -> None:
    assert user_and_group(text) == account


@pytest.mark.parametrize(
    "text",
    [
        "4294967295",
        "4294967296",
        "18446744073709551616",
        "-1",
        "+0",
        "0:-1",
        "0:4294967295",
        "9" * 1000,
        "a:b:c",
        "a b",
        "a\nb",
        "a:\x1b[31m",
        "/etc/passwd",
        "0:/etc/group",
        "x" * 300,
    ],
)
def test_m10_users_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        user_and_group(text)
    with pytest.raises(ManifestInvalid, match=r"configuration\.config\.User: "):
        to_app(Settings(user=text))


def test_of_two_variables_with_one_name_the_last_counts() -> None:
    found = environment(["A=1", "B=", "A=x=y", "c.d-e=\n"])
    assert found == {"A": "x=y", "B": "", "c.d-e": "\n"}


@pytest.mark.parametrize("entry", ["A", "", "=x", "A B=x", "1A=x", "A\0=x", "A=\0", "ä=x"])
def test_m12_variables_no_app_may_have_are_refused(entry: str) -> None:
    with pytest.raises(ManifestInvalid, match=r"config\.Env"):
        to_app(Settings(env=("OK=1", entry)))


def test_volumes_become_mount_points_by_path() -> None:
    found = mount_points(["/var/lib/app", "/data", "/Data_Base", "/data/", "//data/./", "rel/x"])
    assert found == (
        MountPoint("volume-data-base", "/Data_Base"),
        MountPoint("volume-data", "/data"),
        MountPoint("volume-rel-x", "/rel/x"),
        MountPoint("volume-var-lib-app", "/var/lib/app"),
    )


def test_mount_points_that_would_share_a_name_are_numbered() -> None:
    found = mount_points(["/a/b", "/a-b", "/a_b", "/a/b-1", "/___", "/é"])
    assert {point.path: point.name for point in found} == {
        "/___": "volume",
        "/a-b": "volume-a-b",
        "/a/b": "volume-a-b-1",
        "/a/b-1": "volume-a-b-1-1",
        "/a_b": "volume-a-b-2",
        "/é": "volume-1",
    }
    long = ["/" + "x" * 200 + str(number) for number in range(3)]
    names = [point.name for point in mount_points(long)]
    assert len(set(names)) == 3
    assert max(map(len, names)) < 125


@pytest.mark.parametrize(
    "path",
    ["/", ".", "//", "/./", "/proc", "/proc/self/fd", "proc", "/dev", "/dev/shm", "/sys/fs/cgroup",
     "//proc", "/./sys"],
)  # fmt: skip
def test_m15_no_volume_takes_the_place_of_the_kernel_s_directories(path: str) -> None:
    with pytest.raises(Refused, match=r"config\.Volumes: a volume at .* is not allowed"):
        to_app(Settings(volumes=("/ok", path)))


@pytest.mark.parametrize(
    "path", ["", "..", "/a/../b", "/..", "../proc", "/" + "x" * 256, "/x" * 2100]
)
def test_m15_volumes_without_a_clear_place_are_refused(path: str) -> None:
    with pytest.raises(ManifestInvalid, match=r"config\.Volumes"):
        to_app(Settings(volumes=("/ok", path)))


def test_m15_control_names_that_only_begin_like_it_are_free() -> None:
    paths = ["/proc2", "/devel", "/system", "/var/proc", "/..data", "/a/...", "/processes/dev"]
    assert {point.path for point in mount_points(paths)} == set(paths)


def test_there_are_not_endlessly_many_volumes() -> None:
    assert len(mount_points(f"/v{n}" for n in range(256))) == 256
    with pytest.raises(Refused, match="more than 256 volumes"):
        mount_points(f"/v{n}" for n in range(257))


@pytest.mark.parametrize(
    ("key", "port"),
    [
        ("80", Port("80-tcp", "tcp", 80)),
        ("80/tcp", Port("80-tcp", "tcp", 80)),
        ("80/TCP", Port("80-tcp", "tcp", 80)),
        ("53/udp", Port("53-udp", "udp", 53)),
        ("36412/sctp", Port("36412-sctp", "sctp", 36412)),
        ("080", Port("80-tcp", "tcp", 80)),
        ("8000-8010/tcp", Port("8000-8010-tcp", "tcp", 8000, 11)),
        ("9000-9002", Port("9000-9002-tcp", "tcp", 9000, 3)),
        ("80-80/tcp", Port("80-tcp", "tcp", 80)),
        ("1-65535/udp", Port("1-65535-udp", "udp", 1, 65535)),
    ],
)
def test_ports_in_every_form(key: str, port: Port) -> None:
    assert ports([key]) == (port,)


@pytest.mark.parametrize(
    "key",
    ["", "/tcp", "0", "65536", "80/", "80/icmp", "80/tcp/udp", "http", "$PORT/tcp", "80-", "-80",
     "90-80", "80-90-100", "1-65536", "8080:80", "127.0.0.1:80:80/tcp", "+80", "８０", "1" * 99],
)  # fmt: skip
def test_ports_that_are_none_are_refused(key: str) -> None:
    with pytest.raises(ManifestInvalid, match=r"config\.ExposedPorts"):
        to_app(Settings(exposed_ports=("80/tcp", key)))


def test_ports_are_ordered_and_stand_there_once() -> None:
    found = ports(["443/tcp", "80/udp", "80/tcp", "80", "8080"])
    assert [port.name for port in found] == ["80-tcp", "80-udp", "443-tcp", "8080-tcp"]


@pytest.mark.parametrize(
    ("directory", "becomes"),
    [("", "/"), ("/srv", "/srv"), ("/a/../b", "/a/../b"), ("/proc/self/fd/3", "/proc/self/fd/3")],
)
def test_m14_a_working_directory_is_absolute_and_resolved_later(
    directory: str, becomes: str
) -> None:
    assert to_app(Settings(working_dir=directory)).working_directory == becomes


@pytest.mark.parametrize("directory", ["srv", "../..", "(unreachable)/x", ".", "/x" * 2048, "/\0"])
def test_m14_other_working_directories_are_refused(directory: str) -> None:
    with pytest.raises(ManifestInvalid, match=r"config\.WorkingDir"):
        to_app(Settings(working_dir=directory))


@pytest.mark.parametrize(
    "name",
    ["io.podctl.stage1", "io.podctl/x", "IO.Podctl.X", "podctl.io/flavor",
     "coreos.com/rkt/stage1/run", "appc.io/executor/supports-systemd-notify"],
)  # fmt: skip
def test_m13_labels_in_reserved_namespaces_are_dropped(name: str) -> None:
    kept = {"org.opencontainers.image.title": "x", "io.podctlx": "y", "": "z", "A b": "\n"}
    assert user_labels({**kept, name: "fly"}) == kept
    assert to_app(Settings(labels={name: "fly"})).user_labels == {}


def annotated(config: dict[str, Any] | None = None, **fields: Any) -> dict[str, str]:
    found = ImageConfig(Platform("linux", "amd64"), (), Settings(**config or {}), **fields)
    return to_annotations(found, {"originalname": "r.example/a:1"})


def test_annotations_keep_what_has_no_place_in_an_app_section() -> None:
    check = {"Test": ["CMD-SHELL", 'echo "ü"'], "Interval": 5}
    found = annotated(
        {
            "entrypoint": ("/a",),
            "cmd": ("b", ""),
            "stop_signal": "INT",
            "stop_timeout": 0,
            "healthcheck": check,
            "shell": ("/bin/bash", "-c"),
        },
        author="A. Uthor <a@example.com>",
        created="2023-11-14T22:13:20.123456789Z",
        comment="said",
    )
    assert json.loads(found.pop("appc.io/docker/healthcheck")) == check
    assert found == {
        "author": "A. Uthor <a@example.com>",
        "created": "2023-11-14T22:13:20.123456789Z",
        "docker-comment": "said",
        "appc.io/docker/originalname": "r.example/a:1",
        "appc.io/docker/entrypoint": '["/a"]',
        "appc.io/docker/cmd": '["b",""]',
        "appc.io/docker/shell": '["/bin/bash","-c"]',
        "appc.io/docker/stopsignal": "SIGINT",
        "appc.io/docker/stoptimeout": "0",
    }


def test_what_was_not_said_is_not_annotated() -> None:
    assert annotated() == {"appc.io/docker/originalname": "r.example/a:1"}


@pytest.mark.parametrize("created", ["yesterday", "2023-11-14", "2023-02-30T00:00:00Z"])
def test_dates_that_are_none_are_refused(created: str) -> None:
    with pytest.raises(ManifestInvalid, match="created"):
        annotated(created=created)


@pytest.mark.parametrize("text", ["SIGNONE", "0", "RTMIN+31", "TERM "])
def test_signals_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ManifestInvalid, match=r"config\.StopSignal"):
        annotated({"stop_signal": text})
