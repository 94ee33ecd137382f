"""Configuration files in rkt's kinds: which count, who wins, what is refused."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from podctl.cli import main
from podctl.config import Config, Stage1, load
from podctl.errors import ManifestInvalid, PodctlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Write = Callable[..., Path]

BASIC = {"user": "alice", "password": "S3CRET-basic"}
OAUTH = {"token": "S3CRET-oauth"}
AWS = {"accessKeyID": "key", "secretAccessKey": "S3CRET-aws"}


def auth(domain: str, kind: str = "basic", **credentials: str) -> dict[str, Any]:
    fields = credentials or {"basic": BASIC, "oauth": OAUTH, "aws": AWS}[kind]
    return {
        "rktKind": "auth",
        "rktVersion": "v1",
        "domains": [domain],
        "type": kind,
        "credentials": fields,
    }


def registry(name: str, **credentials: str) -> dict[str, Any]:
    return {
        "rktKind": "dockerAuth",
        "rktVersion": "v1",
        "registries": [name],
        "credentials": credentials or BASIC,
    }


def paths(**fields: str) -> dict[str, Any]:
    return {"rktKind": "paths", "rktVersion": "v1", **fields}


def stage1(**fields: str) -> dict[str, Any]:
    return {"rktKind": "stage1", "rktVersion": "v1", **fields}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write one configuration file: level, directory, name, content."""

    def call(place: str, content: object, mode: int = 0o600) -> Path:
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        path.chmod(mode)
        return path

    return call


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def config(tmp_path: Path, warnings: list[str]) -> Config:
    levels = (str(tmp_path / level) for level in ("system", "local", "user"))
    return load(*levels, warnings.append)


def test_without_files_the_defaults_hold(config: Config) -> None:
    assert config.data_dir == "/var/lib/podctl"
    assert config.stage1 == Stage1(None, None, None)
    assert config.credentials() == ()
    assert config.entries() == []


def test_later_directories_win_item_by_item(write: Write, config: Config) -> None:
    write("system/paths.d/a.json", paths(data="/system", **{"stage1-images": "/images"}))
    write("local/paths.d/z.json", paths(data="/local"))
    write("system/auth.d/a.json", auth("a.example"))
    write("system/auth.d/b.json", auth("b.example"))
    write("local/auth.d/a.json", auth("a.example", "oauth"))
    write("user/auth.d/b.json", auth("b.example", "aws"))
    assert (config.data_dir, config.stage1_images) == ("/local", "/images")
    found = {credential.domain: credential for credential in config.credentials()}
    assert (found["a.example"].kind, found["a.example"].fields) == ("oauth", OAUTH)
    assert (found["b.example"].kind, found["b.example"].fields) == ("aws", AWS)


def test_name_and_version_of_stage1_are_overridden_as_a_pair(write: Write, config: Config) -> None:
    write("system/stage1.d/a.json", stage1(name="x/fly", version="1", location="/a.aci"))
    write("local/stage1.d/a.json", stage1(name="x/kvm", version="2"))
    assert config.stage1 == Stage1("x/kvm", "2", "/a.aci")


def test_one_directory_may_split_its_items_over_files(write: Write, config: Config) -> None:
    write("local/stage1.d/a.json", stage1(name="x/fly", version="1"))
    write("local/stage1.d/b.json", stage1(location="https://x.example/fly.aci"))
    assert config.stage1 == Stage1("x/fly", "1", "https://x.example/fly.aci")


@pytest.mark.parametrize(
    ("directory", "first", "second", "item"),
    [
        ("auth.d", auth("a.example"), auth("a.example", "oauth"), "domain"),
        ("auth.d", registry("r.example"), registry("r.example"), "registry"),
        ("paths.d", paths(data="/a"), paths(data="/a"), "data"),
        ("stage1.d", stage1(location="/a"), stage1(location="/b"), "location"),
    ],
)
def test_an_item_twice_in_one_directory_names_both_files(
    write: Write, config: Config, directory: str, first: object, second: object, item: str
) -> None:
    one = write(f"local/{directory}/one.json", first)
    two = write(f"local/{directory}/two.json", second)
    with pytest.raises(UsageError, match=item) as caught:
        config.entries()
    assert str(one) in str(caught.value)
    assert str(two) in str(caught.value)


def test_a_domain_may_have_an_auth_and_a_docker_credential(write: Write, config: Config) -> None:
    write("local/auth.d/a.json", auth("x.example", "oauth"))
    write("local/auth.d/b.json", registry("x.example"))
    assert [c.kind for c in config.credentials()] == ["oauth"]
    assert [c.kind for c in config.registry_credentials()] == ["basic"]


def test_only_regular_json_files_count(write: Write, config: Config, tmp_path: Path) -> None:
    real = write("elsewhere/paths.json", paths(data="/linked"))
    write("local/paths.d/readme.txt", "no JSON")
    write("local/paths.d/sub/nested.json", "no JSON")
    write("local/paths.d/backup.json~", "no JSON")
    (tmp_path / "local/paths.d/link.json").symlink_to(real)
    (tmp_path / "local/paths.d/directory.json").mkdir()
    os.mkfifo(tmp_path / "local/paths.d/pipe.json")
    assert config.data_dir == "/var/lib/podctl"


@pytest.mark.parametrize(
    ("directory", "content", "complaint"),
    [
        ("paths.d", {"rktVersion": "v1", "data": "/a"}, "rktKind"),
        ("paths.d", {"rktKind": "paths", "data": "/a"}, "rktVersion"),
        ("paths.d", {"rktKind": "", "rktVersion": "v1"}, "rktKind"),
        ("paths.d", {"rktKind": "paths", "rktVersion": "v2"}, "version"),
        ("paths.d", {"rktKind": "paths", "rktVersion": 1}, "rktVersion"),
        ("paths.d", auth("a.example"), "does not belong"),
        ("auth.d", paths(data="/a"), "does not belong"),
        ("stage1.d", {"rktKind": "unheard-of", "rktVersion": "v1"}, "does not belong"),
        ("paths.d", paths(data="relative/path"), "absolute"),
        ("paths.d", {**paths(), "data": ["/a"]}, "not a text"),
        ("paths.d", [], "object"),
        ("paths.d", "{", "bad.json"),
        ("paths.d", '{"rktKind":"paths","rktKind":"paths","rktVersion":"v1"}', "rktKind"),
        ("stage1.d", stage1(name="x/fly"), "together"),
        ("stage1.d", stage1(version="1"), "together"),
        ("stage1.d", stage1(location="relative.aci"), "neither an absolute path"),
        ("stage1.d", stage1(location="ftp://x/y"), "neither an absolute path"),
        ("auth.d", {**auth("a"), "domains": []}, "domains"),
        ("auth.d", {**auth("a"), "domains": [""]}, "domains"),
        ("auth.d", {**auth("a"), "domains": "a"}, "domains"),
        ("auth.d", {**auth("a"), "type": "kerberos"}, "unknown type"),
        ("auth.d", {**auth("a"), "type": None}, "type"),
        ("auth.d", {**auth("a"), "credentials": None}, "credentials"),
        ("auth.d", {**auth("a"), "credentials": {"user": "u"}}, "password"),
        ("auth.d", {**auth("a", "oauth"), "credentials": {}}, "token"),
        ("auth.d", {**auth("a", "aws"), "credentials": {"accessKeyID": "x"}}, "secretAccessKey"),
        ("auth.d", {**registry("a"), "registries": []}, "registries"),
    ],
)
def test_a_bad_file_is_refused_by_name(
    write: Write, config: Config, directory: str, content: object, complaint: str
) -> None:
    path = write(f"local/{directory}/bad.json", content)
    with pytest.raises(PodctlError, match=complaint) as caught:
        config.entries()
    assert isinstance(caught.value, ManifestInvalid | UsageError)
    assert str(path) in str(caught.value)


def test_an_oversized_file_is_refused(write: Write, config: Config) -> None:
    write("local/paths.d/big.json", " " * (2 << 20))
    with pytest.raises(ManifestInvalid, match="larger than"):
        _ = config.data_dir


def test_a_broken_kind_does_not_stop_what_needs_another(write: Write, config: Config) -> None:
    write("local/auth.d/bad.json", "{")
    write("local/paths.d/good.json", paths(data="/data"))
    assert config.data_dir == "/data"


def test_unknown_fields_are_warned_of(write: Write, config: Config, warnings: list[str]) -> None:
    write("local/paths.d/a.json", paths(data="/data", dtaa="/typo"))
    assert config.data_dir == "/data"
    assert len(warnings) == 1
    assert 'unknown field "dtaa"' in warnings[0]


@pytest.mark.parametrize(("mode", "warned"), [(0o644, 1), (0o604, 1), (0o640, 0), (0o600, 0)])
def test_credentials_others_can_read_are_warned_of(
    write: Write, config: Config, warnings: list[str], mode: int, warned: int
) -> None:
    path = write("local/auth.d/a.json", auth("a.example"), mode=mode)
    assert len(config.credentials()) == 1
    assert len(warnings) == warned
    assert all(str(path) in line for line in warnings)


def test_files_without_secrets_may_be_readable(
    write: Write, config: Config, warnings: list[str]
) -> None:
    write("local/paths.d/a.json", paths(data="/data"), mode=0o644)
    assert config.data_dir == "/data"
    assert warnings == []


def test_secrets_are_in_no_representation_and_no_error(write: Write, config: Config) -> None:
    write("local/auth.d/a.json", auth("a.example"))
    write("local/auth.d/b.json", registry("r.example"))
    from podctl.config.files import read_kinds

    shown = [repr(config.credentials()), repr(config.registry_credentials())]
    place = config._directories[1]
    shown.extend(repr(document) for document in read_kinds(f"{place}/auth.d", lambda text: None))
    write("user/auth.d/c.json", {**auth("c"), "type": "kerberos"})
    fresh = load(*config._directories)
    with pytest.raises(ManifestInvalid) as caught:
        fresh.credentials()
    shown.append(repr(caught.value) + str(caught.value))
    assert not any("S3CRET" in text for text in shown)


def test_credentials_only_root_may_read_do_not_stop_a_member(
    write: Write, config: Config, warnings: list[str], tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    write("local/auth.d/a.json", auth("a.example"))
    for directory in (tmp_path, *tmp_path.parents):
        if directory.owner() == "root" and directory.name.startswith(("pytest", "test")):
            directory.chmod(0o755)
    os.seteuid(65534)
    try:
        assert config.credentials() == ()
    finally:
        os.seteuid(0)
    assert "not readable" in warnings[0]


def test_config_prints_what_is_in_force(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = [
        auth("a.example"),
        auth("b.example", "oauth"),
        auth("c.example", "aws", **AWS, awsRegion="eu-central-1"),
        registry("r.example"),
        paths(data="/data", **{"stage1-images": "/images"}),
        stage1(name="x/fly", version="1", location="/fly.aci"),
    ]
    places = ["auth.d"] * 4 + ["paths.d", "stage1.d"]
    for number, (place, document) in enumerate(zip(places, documents, strict=True)):
        level = "system" if number % 2 else "local"
        write(f"{level}/{place}/{number}.json", document)
    write("system/auth.d/overridden.json", auth("a.example", "oauth"))
    arguments = [f"--system-config={tmp_path}/system", f"--local-config={tmp_path}/local"]
    assert main.run(["config", *arguments]) == 0
    pretty = capsys.readouterr().out
    assert json.loads(pretty) == {"stage0": documents}
    assert main.run(["config", "--pretty-print=false", *arguments]) == 0
    compact = capsys.readouterr().out
    assert json.loads(compact) == {"stage0": documents}
    assert compact.count("\n") == 1 < pretty.count("\n")


def test_what_config_prints_reads_back(write: Write, config: Config, tmp_path: Path) -> None:
    write("local/auth.d/a.json", {**auth("a.example"), "domains": ["a.example", "b.example"]})
    write("local/stage1.d/a.json", stage1(location="/fly.aci"))
    entries = config.entries()
    directories = {"auth": "auth.d", "stage1": "stage1.d"}
    for number, entry in enumerate(entries):
        write(f"again/{directories[str(entry['rktKind'])]}/{number}.json", entry)
    assert load(str(tmp_path / "again"), "", "").entries() == entries


def test_the_data_directory_follows_flag_then_configuration(write: Write, tmp_path: Path) -> None:
    from podctl.cli.context import Globals

    write("local/paths.d/a.json", paths(data="/configured"))
    options = Globals()
    options.system_config, options.local_config = "", str(tmp_path / "local")
    assert options.data_dir == "/configured"
    options.dir = "/given"
    assert options.data_dir == "/given"
