"""Volumes, mounts, ports and environments as the command line spells them."""

from __future__ import annotations

import json
import re

import pytest

from podctl.errors import UsageError
from podctl.model.manifest import App, Port
from podctl.model.podmanifest import parse_pod_manifest
from podctl.model.ports import ExposedPort, ForwardedPort, forward_ports, port_from_text
from podctl.model.volumes import (
    Mount,
    Volume,
    check_mounts,
    clean_path,
    merge_mounts,
    mount_from_text,
    volume_from_text,
    volume_value,
)
from podctl.model.words import environment_from_file, environment_from_texts, parse_boolean


@pytest.mark.parametrize(
    ("text", "volume"),
    [
        ("v,kind=host,source=/tmp", Volume("v", "host", "/tmp")),
        ("v,kind=host,source=/tmp,readOnly=false", Volume("v", "host", "/tmp", read_only=False)),
        ("v,kind=host,source=/tmp,readOnly=true", Volume("v", "host", "/tmp", read_only=True)),
        ("v,source=/tmp,recursive=0,kind=host", Volume("v", "host", "/tmp", recursive=False)),
        ("v,kind=host,source=/a=b", Volume("v", "host", "/a=b")),
        ("v,kind=host,source=/a\\,b", Volume("v", "host", "/a,b")),
        ("v,kind=host,source=/a:b c", Volume("v", "host", "/a:b c")),
        ("v,kind=empty", Volume("v", "empty", mode=0o755, uid=0, gid=0)),
        ("v,kind=empty,readOnly=T", Volume("v", "empty", read_only=True)),
        ("v,kind=empty,mode=0777", Volume("v", "empty", mode=0o777)),
        ("v,kind=empty,mode=1777,uid=1000", Volume("v", "empty", mode=0o1777, uid=1000)),
        ("v,kind=empty,uid=4294967294,gid=7", Volume("v", "empty", uid=4294967294, gid=7)),
        ("v,kind=tmpfs", Volume("v", "tmpfs", mode=0o755, uid=0, gid=0)),
        (
            "v,kind=tmpfs,size=64Mi,mode=1777,uid=3,gid=4,readOnly=true",
            Volume("v", "tmpfs", None, True, None, 0o1777, 3, 4, 64 << 20),
        ),
    ],
)
def test_volume_flag(text: str, volume: Volume) -> None:
    assert volume_from_text(text) == volume


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "volume name is empty"),
        ("v", "unrecognized volume kind"),
        ("#v,kind=host,source=/tmp", "volume name"),
        ("V,kind=empty", "volume name"),
        ("../v,kind=empty", "volume name"),
        (",kind=empty", "volume name is empty"),
        ("kind=empty", "volume name"),
        ("v,kind=memory", "unrecognized volume kind"),
        ("v,kind=tmpfs,source=/tmp", "source for tmpfs volume cannot be set"),
        ("v,kind=tmpfs,recursive=true", "recursive for tmpfs volume cannot be set"),
        ("v,kind=tmpfs,size=much", "is no quantity"),
        ("v,kind=tmpfs,size=-1", "is no quantity"),
        ("v,kind=tmpfs,size=0", "less than 4096 bytes"),
        ("v,kind=tmpfs,size=64m", "less than 4096 bytes"),
        ("v,kind=tmpfs,size=1\\,mode=7", "is no quantity"),
        ("v,kind=empty,size=1M", "size for empty volume cannot be set"),
        ("v,kind=host,source=/tmp,size=1M", "size for host volume cannot be set"),
        ("v,kind=host", "source for host volume cannot be empty"),
        ("v,kind=host,source=", "source for host volume cannot be empty"),
        ("v,kind=host,source=tmp", "absolute path"),
        ("v,kind=host,source=/tmp/../etc", r"must not hold \.\."),
        ("v,kind=host,source=/tmp,mode=0755", "mode for host volume cannot be set"),
        ("v,kind=host,source=/tmp,uid=0", "uid for host volume cannot be set"),
        ("v,kind=host,source=/a,b", "unknown parameter 'b'"),
        ("v,kind=host,source=/tmp,asdf=asdf", "unknown parameter 'asdf'"),
        ("v,kind=host,source=/tmp,name=w", "unknown parameter 'name'"),
        ("v,kind=host,source=/tmp,readonly=true", "unknown parameter 'readonly'"),
        ("v,kind=host,source=/tmp,source=/etc", "source given twice"),
        ("v,kind=host,source=/tmp,readOnly=yes", "must be true or false"),
        ("v,kind=host,source=/tmp,readOnly=", "must be true or false"),
        ("v,kind=empty,source=/tmp", "source for empty volume cannot be set"),
        ("v,kind=empty,recursive=true", "recursive for empty volume cannot be set"),
        ("v,kind=empty,mode=999", "octal"),
        ("v,kind=empty,mode=-1", "octal"),
        ("v,kind=empty,uid=root", "must be a number"),
        ("v,kind=empty,uid=-1", "must be a number"),
        ("v,kind=empty,gid=4294967295", "not in 0"),
        ("v,,kind=empty", "unknown parameter ''"),
    ],
)
def test_refused_volume_flags(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^--volume.*{message}"):
        volume_from_text(text)


def test_mount_flag() -> None:
    assert mount_from_text("volume=v,target=/mnt") == Mount("v", "/mnt")
    assert mount_from_text("target=/a/../b c,volume=v") == Mount("v", "/a/../b c")
    assert mount_from_text("volume=v,target=../mnt") == Mount("v", "/../mnt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown parameter ''"),
        ("volume=v", "target is required"),
        ("target=/mnt", "volume is required"),
        ("volume=v,target=", "absolute"),
        ("volume=V,target=/mnt", "volume name"),
        ("volume=v,target=/mnt,readOnly=true", "unknown parameter 'readOnly'"),
        ("volume=v,volume=w,target=/mnt", "volume given twice"),
        ("v:/mnt", "unknown parameter"),
    ],
)
def test_refused_mount_flags(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^--mount.*{message}"):
        mount_from_text(text)


def test_every_mount_needs_its_volume() -> None:
    volume = Volume("v", "empty")
    check_mounts([Mount("v", "/a"), Mount("own", "/b", Volume("own", "empty"))], [volume])
    message = re.escape('dangling mount point "/a": volume "w" not found')
    with pytest.raises(UsageError, match=message):
        check_mounts([Mount("w", "/a")], [volume])


def test_later_mounts_replace_earlier_ones_at_the_same_place() -> None:
    pod = [Mount("a", "/x"), Mount("b", "/y")]
    app = [Mount("c", "//x/./"), Mount("d", "/z"), Mount("e", "/z/")]
    assert merge_mounts(pod, app) == (Mount("b", "/y"), Mount("c", "//x/./"), Mount("e", "/z/"))


def test_clean_paths_keep_parent_components() -> None:
    # What `..` leads to depends on symbolic links of the image.
    assert clean_path("/a//b/./../c/") == "/a/b/../c"
    assert clean_path("/") == clean_path("//.") == "/"


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("http:8080", ExposedPort("http", 8080)),
        ("http:127.0.0.1:8080", ExposedPort("http", 8080, "127.0.0.1")),
        ("http:[::1]:65535", ExposedPort("http", 65535, "::1")),
        ("http:[2001:DB8::0]:1", ExposedPort("http", 1, "2001:db8::")),
        # A name may be all digits, so other tools' order is legal and means this.
        ("8080:80", ExposedPort("8080", 80)),
    ],
)
def test_port_flag(text: str, port: ExposedPort) -> None:
    assert port_from_text(text) == port


@pytest.mark.parametrize(
    "text",
    [
        "", "http", "http:", "http:0", "http:65536", "http:-1", "http:+1", "http:x", ":80",
        "HTTP:80", "http:80:90", "http:host:80", "http:::1:80", "http:[::1]", "http:[x]:80",
        "http:1.2.3:80", "http:[fe80::1%eth0]:80", "http:80 ", "http:\u0668\u0660",
    ],
)  # fmt: skip
def test_refused_port_flags(text: str) -> None:
    with pytest.raises(UsageError, match="^--port"):
        port_from_text(text)


APPS = {
    "one": App(("/x",), ports=(Port("http", "tcp", 80), Port("dns", "udp", 53))),
    "two": App(("/x",), ports=(Port("ftp", "tcp", 20000, 1000), Port("both", "tcp", 1))),
    "three": App(("/x",), ports=(Port("both", "tcp", 2),)),
}


def test_ports_lead_to_the_app_that_declares_them() -> None:
    exposed = [
        ExposedPort("http", 8080),
        ExposedPort("dns", 8080),
        ExposedPort("ftp", 2000, "10.0.0.1"),
        ExposedPort("any", 2000, "10.0.0.2", Port("any", "tcp", 7)),
    ]
    assert forward_ports(exposed, APPS) == (
        ForwardedPort("http", "tcp", "", 8080, 80),
        ForwardedPort("dns", "udp", "", 8080, 53),
        ForwardedPort("ftp", "tcp", "10.0.0.1", 2000, 20000, 1000),
        ForwardedPort("any", "tcp", "10.0.0.2", 2000, 7),
    )


@pytest.mark.parametrize(
    ("exposed", "message"),
    [
        ([ExposedPort("x", 80)], 'port name "x" could not be found in any apps'),
        ([ExposedPort("both", 80)], 'port name "both" defined multiple apps'),
        ([ExposedPort("ftp", 65000)], "end beyond 65535"),
        (
            [ExposedPort("http", 80), ExposedPort("p", 80, "10.0.0.1", Port("p", "tcp", 1))],
            "port tcp-10.0.0.1:80 already mapped to pod port 80",
        ),
        (
            [ExposedPort("p", 80, "10.0.0.1", Port("p", "TCP", 1)), ExposedPort("http", 80)],
            "port tcp-0.0.0.0:80 already mapped to pod port 1",
        ),
        (
            [ExposedPort("ftp", 2000), ExposedPort("http", 2999)],
            "port tcp-0.0.0.0:2999 already mapped to pod port 20000",
        ),
        ([ExposedPort("http", 80, "::"), ExposedPort("http", 80, "::1")], "already mapped"),
    ],
)
def test_ports_that_cannot_be_published(exposed: list[ExposedPort], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        forward_ports(exposed, APPS)


def test_set_env_flags() -> None:
    texts = ["A=b", "B=", "C=d=e\nf"]
    assert environment_from_texts(texts) == {"A": "b", "B": "", "C": "d=e\nf"}


@pytest.mark.parametrize(
    "texts", [["A"], ["=b"], [""], ["A=1", "A=2"], ["1A=x"], ["A B=x"], ["A=\0"], ["A=\udcff"]]
)
def test_refused_set_env_flags(texts: list[str]) -> None:
    with pytest.raises(UsageError, match="^--environment"):
        environment_from_texts(texts, "--environment")


def test_environment_files() -> None:
    data = b"# comment\n; another\n\n  A=b  \r\nB=\nC=d # e\nD=\xc3\xa9\nE=a=b"
    expected = {"A": "b", "B": "", "C": "d # e", "D": "\u00e9", "E": "a=b"}
    assert environment_from_file(data, "env") == expected
    assert environment_from_file(b"", "env") == {}
    # Other line breaks of Unicode end no line.
    assert environment_from_file("A=x\u2028y\x0bz".encode(), "env") == {"A": "x\u2028y\x0bz"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"A=b\nC\n", "^env:2: 'C' is not NAME=VALUE"),
        (b"A=b\n\nA=c", "^env:3: A appears twice"),
        (b"export A=b", "^env:1: environment variable name"),
        (b"=b", "^env:1: environment variable name"),
        (b"A=\xff", "^env: not UTF-8"),
        (b"A=\0", "^env:1: .* holds NUL"),
    ],
)
def test_refused_environment_files(data: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        environment_from_file(data, "env")


def test_booleans() -> None:
    assert [parse_boolean(text, "--x") for text in ("1", "t", "TRUE", "0", "F", "False")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip
    for text in ("", "yes", "tRUE", "2"):
        with pytest.raises(UsageError, match="^--x"):
            parse_boolean(text, "--x")


def test_a_tmpfs_in_a_manifest_is_what_it_was() -> None:
    volume = volume_from_text("v,kind=tmpfs,size=1M,mode=0700,uid=5")
    value = volume_value(volume)
    assert value == {
        "name": "v", "kind": "tmpfs", "mode": "0700", "uid": 5, "gid": 0, "size": "1000000"
    }  # fmt: skip
    manifest = {"acVersion": "0.8.11", "acKind": "PodManifest", "apps": [], "volumes": [value]}
    assert parse_pod_manifest(json.dumps(manifest).encode()).volumes == (volume,)
