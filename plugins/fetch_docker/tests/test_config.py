"""Configurations: what is read, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from podctl.errors import ManifestInvalid
from podctl_fetch_docker.config import ImageConfig, Settings, check_layers, parse_config
from podctl_fetch_docker.manifests import parse_manifest
from podctl_fetch_docker.platforms import Platform

DATA = Path(__file__).parent / "data"
DIFF = "sha256:" + "d" * 64


def config(**fields: Any) -> dict[str, Any]:
    value = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [DIFF]},
        **fields,
    }
    return {key: item for key, item in value.items() if item is not ...}


def parsed(**fields: Any) -> ImageConfig:
    return parse_config(json.dumps(config(**fields)).encode())


def settings(**fields: Any) -> Settings:
    return parsed(config=fields).settings


def test_what_docker_s_format_holds_is_read() -> None:
    data = (DATA / "buildah-docker.config.json").read_bytes()
    found = parse_config(data)
    assert found == ImageConfig(
        Platform("linux", "amd64"),
        ("sha256:538aad243299370de4a92a998d45ba94b06120d195038b5a004ecdc1d4155aea",),
        Settings(
            user="app:staff",
            exposed_ports=("53/udp", "8080/tcp", "9000-9002"),
            env=("A=b", "PATH=/bin"),
            entrypoint=("/hello",),
            cmd=("--loud", "now"),
            volumes=("/data", "/var/lib/app"),
            working_dir="/srv",
            labels={"io.buildah.version": "1.28.2", "org.example.name": "hello"},
            stop_signal="SIGQUIT",
            healthcheck={
                "Test": ["CMD-SHELL", "/hello"],
                "Interval": 10_000_000_000,
                "Timeout": 30_000_000_000,
                "Retries": 3,
            },
            shell=("/bin/bash", "-c"),
        ),
        created="2023-11-14T22:13:20Z",
        author="A. Uthor",
        comment="a comment",
    )


@pytest.mark.parametrize("name", ["umoci", "buildah-oci", "buildah.arm64"])
def test_other_tools_configurations_are_read(name: str) -> None:
    found = parse_config((DATA / f"{name}.config.json").read_bytes())
    assert len(found.diff_ids) == 1
    assert found.settings.cmd


def test_the_least_there_can_be() -> None:
    found = parsed()
    assert found == ImageConfig(Platform("linux", "amd64"), (DIFF,), Settings())
    assert parsed(config=None, created=None, author=None) == found
    nothing = dict.fromkeys(
        ("User", "Env", "Cmd", "Entrypoint", "Volumes", "ExposedPorts", "Labels", "Healthcheck")
    )
    assert parsed(config=nothing) == found


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"os": ...}, "os is required"),
        ({"architecture": ...}, "architecture is required"),
        ({"os": ""}, "must not be empty"),
        ({"architecture": ""}, "must not be empty"),
        ({"architecture": 64}, "must be a string"),
        ({"rootfs": ...}, "rootfs is required"),
        ({"rootfs": {"diff_ids": [DIFF]}}, "type is required"),
        ({"rootfs": {"type": "base", "diff_ids": [DIFF]}}, "must be layers"),
        ({"rootfs": {"type": "layers", "diff_ids": DIFF}}, "must be an array"),
        ({"rootfs": {"type": "layers", "diff_ids": [DIFF.upper()]}}, r"diff_ids\[0\]"),
        ({"rootfs": {"type": "layers", "diff_ids": ["sha256:../x"]}}, r"diff_ids\[0\]"),
        ({"rootfs": {"type": "layers", "diff_ids": [DIFF, "sha512:" + "0" * 128]}}, "sha256"),
        ({"Rootfs": {}}, "must be spelt 'rootfs'"),
        ({"OS": "windows"}, "must be spelt 'os'"),
        ({"created": 5}, "must be a string"),
        ({"config": []}, "must be an object"),
        ({"config": {"user": "root"}}, "must be spelt 'User'"),
        ({"config": {"entrypoint": ["/bin/sh"]}}, "must be spelt 'Entrypoint'"),
        ({"config": {"Cmd": "sh -c true"}}, "must be an array"),
        ({"config": {"Cmd": [1]}}, "must be a string"),
        ({"config": {"Env": {"A": "b"}}}, "must be an array"),
        ({"config": {"User": 0}}, "must be a string"),
        ({"config": {"Volumes": ["/data"]}}, "must be an object"),
        ({"config": {"Volumes": {"/data": "/host"}}}, "must be an empty object"),
        ({"config": {"Volumes": {"/data": {"source": "/"}}}}, "must be an empty object"),
        ({"config": {"ExposedPorts": {"80/tcp": 8080}}}, "must be an empty object"),
        ({"config": {"Labels": {"a": 1}}}, "must be a string"),
        ({"config": {"Labels": ["a=b"]}}, "must be an object"),
        ({"config": {"StopTimeout": -1}}, "must not be negative"),
        ({"config": {"StopTimeout": 1.5}}, "must be an integer"),
        ({"config": {"Healthcheck": ["CMD"]}}, "must be an object"),
    ],
)
def test_malformed_configurations_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestInvalid, match=message):
        parsed(**fields)


def test_history_and_everything_else_has_no_say() -> None:
    odd: dict[str, Any] = {
        "history": "whatever",
        "container_config": {"User": 5},
        "docker_version": [],
        "moby.buildkit.buildinfo.v1": "e30=",
        "os.version": 7,
    }
    assert parsed(**odd) == parsed()
    assert settings(OnBuild="x", Memory="1G", Tty=3, ArgsEscaped=True) == Settings()


def test_a_set_s_values_may_be_null() -> None:
    assert settings(Volumes={"/b": None, "/a": {}}).volumes == ("/a", "/b")


@pytest.mark.parametrize("count", [0, 2])
def test_m7_diff_ids_must_be_as_many_as_layers(count: int) -> None:
    manifest = parse_manifest((DATA / "umoci.manifest.json").read_bytes())
    found = parse_config((DATA / "umoci.config.json").read_bytes())
    check_layers(found, manifest)
    with pytest.raises(ManifestInvalid, match=f"has {count} diff_ids, its manifest 1 layers"):
        check_layers(found._replace(diff_ids=(DIFF,) * count), manifest)
