"""Credentials of this host: which one counts, and what is not believed (row R15)."""

from __future__ import annotations

import base64
import json
import os
from typing import Any

import pytest

from podctl.errors import UsageError
from podctl.model.fetching import Credential, FetchRequest
from podctl_fetch_docker.authfiles import HUB_URL, auth_paths
from podctl_fetch_docker.configure import find_secret
from podctl_fetch_docker.helpers import ask_helper, is_helper_name
from podctl_fetch_docker.registriesconf import RegistriesConf
from podctl_fetch_docker.secret import Secret

AUTH = "run/containers/auth.json"
CONFIG = "home/.config/containers/auth.json"
DOCKER = "home/.docker/config.json"
DOCKERCFG = "home/.dockercfg"


def encoded(user: str, password: str = "p") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def auths(**keys: str) -> str:
    """An auth.json: key -> user."""
    return json.dumps({"auths": {key: encoded(user) for key, user in keys.items()}})


def secret(
    host: Any, registry: str = "a.example", repository: str = "ns/app", **fields: Any
) -> Secret | None:
    request = FetchRequest(say=host.said.append, **fields)
    return find_secret(registry, repository, request, RegistriesConf(), host.around)


def user(host: Any, registry: str = "a.example", repository: str = "ns/app") -> str | None:
    found = secret(host, registry, repository)
    return None if found is None else found.user


# -- the order -------------------------------------------------------------------------------------


def test_sources_are_asked_in_order(host: Any) -> None:
    files = (DOCKERCFG, DOCKER, CONFIG, AUTH)
    assert user(host) is None
    for path in files:
        if path == DOCKERCFG:
            host.write(path, json.dumps({"a.example": encoded(path)}))
        else:
            host.write(path, auths(**{"a.example": path}))
        assert user(host) == path
    assert [os.path.relpath(path, host.top) for path in auth_paths(host.around)] == [
        *reversed(files)
    ]
    entry = Credential("a.example", "basic", {"user": "configured", "password": "x"})
    found = secret(host, registry_credentials=(entry,))
    assert found == Secret("kind dockerAuth", "configured", "x")
    assert host.said == []


def test_a_file_without_the_registry_leaves_it_to_the_next(host: Any) -> None:
    host.write(AUTH, auths(**{"b.example": "b"}))
    host.write(CONFIG, "")
    host.write(DOCKER, auths(**{"a.example": "a"}))
    assert user(host) == "a"


def test_variables_move_the_files(host: Any) -> None:
    path = host.write("elsewhere.json", auths(**{"a.example": "explicit"}))
    docker = host.write("docker/config.json", auths(**{"a.example": "docker"}))
    host.write(AUTH, auths(**{"a.example": "usual"}))
    assert user(host.having(REGISTRY_AUTH_FILE=str(path))) == "explicit"
    moved = host.having(REGISTRY_AUTH_FILE="/nonexistent", DOCKER_CONFIG=str(docker.parent))
    assert user(moved) == "docker"


def test_without_a_runtime_directory_it_is_below_run(host: Any) -> None:
    bare = host.having(XDG_RUNTIME_DIR="relative")
    assert auth_paths(bare.around)[0] == f"{host.top}/run/containers/0/auth.json"


# -- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("repository", "expected"),
    [("ns/app", "app"), ("ns/other", "ns"), ("nsx/app", "host"), ("ns/app/deep", "app")],
)
def test_the_longest_key_counts_by_components(host: Any, repository: str, expected: str) -> None:
    host.write(
        AUTH, auths(**{"a.example": "host", "a.example/ns": "ns", "a.example/ns/app": "app"})
    )
    assert user(host, repository=repository) == expected


@pytest.mark.parametrize(
    "registry",
    ["a.example:5000", "sub.a.example", "xa.example", "a.example.evil", "127.0.0.1", "a"],
)
def test_a_key_is_for_its_registry_alone(host: Any, registry: str) -> None:
    host.write(AUTH, auths(**{"a.example": "a", "https://a.example/v1/": "b"}))
    assert user(host, registry) is None
    assert user(host) == "a", "the control"


@pytest.mark.parametrize(
    "key", ["a.example", "https://a.example", "https://a.example/v1/", "http://a.example/v2/"]
)
def test_dockers_spellings_of_a_registry_are_understood(host: Any, key: str) -> None:
    host.write(DOCKER, auths(**{key: "a"}))
    assert user(host) == "a"


@pytest.mark.parametrize(
    "key", ["docker.io", "index.docker.io", "registry-1.docker.io", HUB_URL, "docker.io/library"]
)
@pytest.mark.parametrize("registry", ["docker.io", "registry-1.docker.io", "index.docker.io"])
def test_docker_hub_has_many_names(host: Any, key: str, registry: str) -> None:
    host.write(AUTH, auths(**{key: "hub"}))
    assert user(host, registry, "library/busybox") == "hub"
    entry = Credential(registry, "basic", {"user": "configured", "password": "x"})
    found = secret(host, "docker.io", registry_credentials=(entry,))
    assert found is not None
    assert found.user == "configured"


def test_tokens_are_read(host: Any) -> None:
    entries = {
        "a.example": {**encoded("<token>", ""), "identitytoken": "refresh"},
        "b.example": {"registrytoken": "ready"},
        "c.example": {"username": "u", "password": "p"},
        "d.example": {},
    }
    path = host.write(DOCKER, json.dumps({"auths": entries}))
    found = [secret(host, name) for name in entries]
    assert found == [
        Secret(str(path), "<token>", "", identity_token="refresh"),
        Secret(str(path), registry_token="ready"),
        Secret(str(path), "u", "p"),
        None,
    ]


def test_a_password_may_hold_colons(host: Any) -> None:
    host.write(AUTH, json.dumps({"auths": {"a.example": encoded("u", "p:w:ü")}}))
    found = secret(host)
    assert found is not None
    assert (found.user, found.password) == ("u", "p:w:ü")


# -- files that are not as they should be ----------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[]",
        "null",
        '{"auths": []}',
        '{"auths": {"a.example": 5}}',
        '{"auths": {"a.example": {"auth": "!!!"}}}',
        '{"auths": {"a.example": {"auth": "bm9jb2xvbg=="}}}',
        '{"auths": {"a.example": {"auth": "/////w=="}}}',
        '{"auths": {"a.example": {}, "a.example": {}}}',
        '{"credHelpers": 5}',
        '{"credsStore": 5, "auths": 5}',
    ],
)
def test_a_malformed_file_is_said_and_the_next_is_asked(host: Any, text: str) -> None:
    path = host.write(AUTH, text)
    host.write(DOCKER, auths(**{"a.example": "a"}))
    assert user(host) == "a"
    (line,) = host.said
    assert line.startswith(f"{path}: ")
    assert line.endswith("its credentials are not used")


def test_a_malformed_file_quotes_none_of_its_secrets(host: Any) -> None:
    secrets = ("hunter2", base64.b64encode(b"hunter2-no-colon").decode())
    for text in (
        f'{{"auths": {{"a.example": {{"auth": "{secrets[1]}"}}}}}}',
        '{"auths": {"a.example": "hunter2"}}',
        '{"auths": {"a.example": {"password": "hunter2"',
    ):
        host.write(AUTH, text)
        assert user(host) is None
    assert len(host.said) == 3
    assert not any(one in line for line in host.said for one in secrets)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_credentials_that_others_can_read_are_said(host: Any, mode: int) -> None:
    path = host.write(AUTH, auths(**{"a.example": "a"}), mode)
    assert user(host) == "a"
    assert host.said == [f"{path}: others can read these credentials, chmod 600 it"]


@pytest.mark.root
def test_root_believes_no_file_of_another_user(host: Any) -> None:
    path = host.write(DOCKER, auths(**{"a.example": "a"}))
    assert user(host) == "a", "the control"
    os.chown(path, 1000, 1000)
    assert user(host) is None
    assert "somebody else than root" in host.said[0]


def test_a_secret_shows_nothing_of_itself() -> None:
    shown = repr(Secret("file", "user-x", "pass-x", "identity-x", "registry-x"))
    assert shown == "Secret(source='file')"


# -- helpers ---------------------------------------------------------------------------------------

SCRIPT = """#!/bin/sh
read server
echo "$1 $server" >>{top}/asked
env >{top}/environment
case $server in
    a.example) echo '{{"ServerURL":"x","Username":"helped","Secret":"s3"}}' ;;
    docker.io) echo '{{"ServerURL":"x","Username":"<token>","Secret":"refresh"}}' ;;
    *) echo 'credentials not found in native keychain'; exit 1 ;;
esac
"""


def helper(host: Any, name: str = "test", text: str = SCRIPT) -> None:
    host.write(f"bin/docker-credential-{name}", text.format(top=host.top), 0o755)


def test_a_helper_comes_before_the_entry_and_the_entry_before_the_store(host: Any) -> None:
    helper(host)
    content = {
        "auths": {"a.example": encoded("entry"), "b.example": {}},
        "credHelpers": {"a.example": "test"},
        "credsStore": "test",
    }
    host.write(AUTH, json.dumps(content))
    assert user(host) == "helped"
    del content["credHelpers"]
    host.write(AUTH, json.dumps(content))
    assert user(host) == "entry"
    content["auths"] = {}
    host.write(AUTH, json.dumps(content))
    assert secret(host) == Secret("docker-credential-test", "helped", "s3")
    assert host.said == []


def test_a_helper_that_has_nothing_leaves_it_to_the_next_file(host: Any) -> None:
    helper(host)
    host.write(AUTH, '{"credsStore": "test"}')
    host.write(DOCKER, auths(**{"b.example": "b"}))
    assert user(host, "b.example") == "b"
    assert host.said == []


def test_docker_hub_is_asked_for_by_both_names(host: Any) -> None:
    helper(host)
    host.write(AUTH, '{"credHelpers": {"docker.io": "test"}}')
    found = secret(host, "registry-1.docker.io", "library/x")
    assert found == Secret("docker-credential-test", identity_token="refresh")
    assert (host.top / "asked").read_text() == f"get {HUB_URL}\nget docker.io\n"


def test_registries_conf_may_name_helpers(host: Any) -> None:
    helper(host)
    request = FetchRequest(say=host.said.append)
    conf = RegistriesConf(helpers=("containers-auth.json", "test"))
    found = find_secret("a.example", "x", request, conf, host.around)
    assert found is not None
    assert found.user == "helped"
    host.write(AUTH, auths(**{"a.example": "entry"}))
    found = find_secret("a.example", "x", request, conf, host.around)
    assert found is not None
    assert found.user == "entry"


def test_a_helper_sees_a_clean_environment(host: Any) -> None:
    helper(host)
    dirty = host.having(LD_PRELOAD="/evil.so", PYTHONPATH="/evil", SECRET="x", BASH_ENV="/evil")
    assert ask_helper("test", "a.example", dirty.around) is not None
    names = {line.partition("=")[0] for line in (host.top / "environment").read_text().split("\n")}
    assert names - {"", "_", "PWD", "SHLVL", "OLDPWD"} == {
        "HOME", "LC_ALL", "PATH", "XDG_RUNTIME_DIR",
    }  # fmt: skip


@pytest.mark.parametrize(
    "name", ["../../bin/sh", "a/b", "", "-x", "a b", "a;b", "x" * 65, "ü", "a\n", "."]
)
def test_a_helper_is_named_by_a_plain_word(host: Any, name: str) -> None:
    assert not is_helper_name(name)
    with pytest.raises(UsageError, match="is no name of a program"):
        ask_helper(name, "a.example", host.around)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("#!/bin/sh\nexit 3\n", "failed with exit code 3"),
        ("#!/bin/sh\necho hunter2; exit 3\n", "failed with exit code 3"),
        ("#!/bin/sh\necho hunter2\n", "printed no credentials"),
        ('#!/bin/sh\necho \'{{"Username": "hunter2"}}\'\n', "printed no credentials"),
        ("#!/bin/sh\nyes hunter2\n", "prints more than 65536 bytes"),
        ("#!/bin/sh\nkill -9 $$\n", "failed with exit code -9"),
    ],
)
def test_a_helper_that_fails_is_named_and_not_quoted(host: Any, text: str, says: str) -> None:
    helper(host, text=text)
    with pytest.raises(UsageError, match=says) as caught:
        ask_helper("test", "a.example", host.around)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["exec sleep 1000", "exec >&-; exec sleep 1000", "sleep 1000 & exit 0"]
)
def test_a_helper_that_does_not_end_is_given_up(host: Any, text: str) -> None:
    helper(host, text=f"#!/bin/sh\n{text}\n")
    with pytest.raises(UsageError, match="took longer than 0.1 s"):
        ask_helper("test", "a.example", host.around, deadline=0.1)


def test_nothing_of_a_helper_is_left(host: Any) -> None:
    """What it started holds a pipe: when that ends, so has the process."""
    read, write = os.pipe()
    held = f"/proc/{os.getpid()}/fd/{write}"
    helper(host, text=f"#!/bin/sh\nsleep 1000 >{held} 2>&1 & echo '{{{{}}}}'\n")
    with pytest.raises(UsageError, match="printed no credentials"):
        ask_helper("test", "a.example", host.around)
    os.close(write)
    assert os.read(read, 1) == b""
    os.close(read)


def test_a_helper_that_fails_leaves_the_request_anonymous(host: Any) -> None:
    host.write(AUTH, '{"credsStore": "missing"}')
    assert user(host) is None
    (line,) = host.said
    assert "docker-credential-missing is not in a directory of root's in $PATH" in line


@pytest.mark.root
@pytest.mark.parametrize("spoil", ["owner", "mode", "directory", "sticky"])
def test_root_starts_no_program_that_others_could_have_put_there(host: Any, spoil: str) -> None:
    helper(host)
    assert ask_helper("test", "a.example", host.around) is not None, "the control"
    program = host.top / "bin/docker-credential-test"
    if spoil == "owner":
        os.chown(program, 1000, 1000)
    elif spoil == "mode":
        program.chmod(0o757)
    elif spoil == "directory":
        os.chown(program.parent, 1000, 1000)
    else:
        # Nobody replaces root's program in such a directory, but anybody adds another.
        program.parent.chmod(0o1777)
    (host.top / "asked").unlink()
    with pytest.raises(UsageError, match="is not in a directory of root's"):
        ask_helper("test", "a.example", host.around)
    assert not (host.top / "asked").exists()


def test_a_relative_directory_in_path_is_none(host: Any, monkeypatch: Any) -> None:
    helper(host)
    monkeypatch.chdir(host.top / "bin")
    for path in (".", "", "bin"):
        with pytest.raises(UsageError, match="is not in"):
            ask_helper("test", "a.example", host.having(PATH=path).around)
