"""No secret of a registry is ever shown or kept (row R15), whoever gave it and whatever fails."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from logins import PASSWORD, USER, log_in, shapes
from small import runnable

from podctl.testing import registryfaults as faults
from podctl.testing.httpserver import Reply
from podctl.testing.ocilayers import file
from podctl.testing.registryauth import Basic, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from clean_home import Clean

    from podctl.testing.registry import Guard, Registry

pytestmark = pytest.mark.root

NAME = "docker://registry.example/private:1"
IDENTITY = "identity-token-0123456789"
FLY = "--stage1=fly"


def by_rkt(home: Clean) -> None:
    log_in(home)


def by_podman(home: Clean) -> None:
    word = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    write(home, ".config/containers/auth.json", {"auths": {"registry.example": {"auth": word}}})


def by_docker_token(home: Clean) -> None:
    entry = {"auth": base64.b64encode(b"<token>:").decode(), "identitytoken": IDENTITY}
    write(home, ".docker/config.json", {"auths": {"registry.example": entry}})


def by_helper(home: Clean) -> None:
    write(home, ".docker/config.json", {"credHelpers": {"registry.example": "podctl-test"}})
    answer = {"ServerURL": "registry.example", "Username": USER, "Secret": PASSWORD}
    place = home.user_home / "bin"
    place.mkdir()
    helper = place / "docker-credential-podctl-test"
    helper.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{json.dumps(answer)}'\n")
    helper.chmod(0o755)
    home.prefix += ["env", f"PATH={place}:/usr/bin:/bin:/usr/sbin:/sbin"]


def write(home: Clean, name: str, value: object) -> None:
    path = home.user_home / name
    path.parent.mkdir(parents=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(value))


SOURCES = [by_rkt, by_podman, by_docker_token, by_helper]


def guard(kind: str) -> Guard:
    if kind == "basic":
        return Basic({USER: PASSWORD})
    users = {USER: PASSWORD}
    realm = "https://registry.example/token"
    return Tokens(realm, users=users, refresh_tokens=(IDENTITY,))


def secrets_of(registry: Registry) -> list[str]:
    """All that must not be seen, tokens the registry gave out included."""
    issued = list(registry.guard.issued) if isinstance(registry.guard, Tokens) else []
    return [*shapes(), IDENTITY, base64.b64encode(IDENTITY.encode()).decode(), *issued]


def assert_hidden(registry: Registry, home: Clean, *texts: str) -> None:
    secrets = secrets_of(registry)
    for secret in secrets:
        for text in texts:
            assert secret not in text, text
        for path in home.data.rglob("*"):
            assert secret not in str(path)
            if path.is_file() and path.name != "busybox":
                assert secret.encode() not in path.read_bytes(), path


def echo(request: Any, honest: Any) -> Reply:
    """An error that repeats what was sent."""
    text = f"{request.headers}"
    return Reply(404, {"X-Echo": text, "Content-Type": "text/plain"}, text.encode())


FAULTS: dict[str, Callable[[Registry], None]] = {
    "none": lambda registry: None,
    "manifest 403": lambda r: r.spoil("manifest", faults.refused(403)),
    "blob 403": lambda r: r.spoil("blob", faults.refused(403)),
    "token 401": lambda r: r.spoil("token", faults.refused(401)),
    "token no JSON": lambda r: r.spoil("token", faults.answered(Reply(200, {}, b"sorry"))),
    "echo": lambda r: r.spoil("manifest", echo),
    "echo of tokens": lambda r: r.spoil("token", echo),
    "downgrade": lambda r: r.spoil("blob", faults.elsewhere("http://evil.example/")),
    "secret in a redirect": lambda r: r.spoil(
        "blob", faults.elsewhere(f"https://{USER}:{PASSWORD}@evil.example/{PASSWORD}")
    ),
    "wrong bytes": lambda r: r.spoil("blob", faults.corrupted()),
}


@pytest.mark.parametrize("source", SOURCES, ids=lambda one: one.__name__)
@pytest.mark.parametrize("kind", ["basic", "tokens"])
@pytest.mark.parametrize("fault", FAULTS)
def test_r15_credentials_are_never_shown(
    source: Callable[[Clean], None], kind: str, fault: str, registry: Registry, home: Clean
) -> None:
    if source is by_docker_token and kind == "basic":
        kind = "tokens"
    registry.put("private", runnable(file("x")), "1")
    registry.guard = guard(kind)
    source(home)
    FAULTS[fault](registry)
    for words in (["fetch", NAME], ["--debug", "fetch", NAME], ["--debug", "run", FLY, NAME]):
        done = home.podctl(*words)
        if fault == "secret in a redirect":
            # Here the secret is the server's to tell; the URL is shown without it.
            assert f"{USER}:" not in done.stderr
            continue
        assert_hidden(registry, home, done.stdout, done.stderr)
    if fault == "none":
        assert done.returncode == 0, done


def test_r15_credentials_are_in_no_command_line(registry: Registry, home: Clean) -> None:
    """While it downloads, /proc shows arguments and environment to others."""
    made = runnable(file("x"))
    registry.put("private", made, "1")
    registry.guard = guard("tokens")
    by_helper(home)
    asked, release = threading.Event(), threading.Event()
    registry.spoil("blob", faults.held(release, 1, asked), name=made.layers[0].digest)
    fetch = home.start("fetch", NAME, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert asked.wait(30)
        shown = ""
        for line in home.processes():
            process = Path("/proc") / line.partition(":")[0]
            shown += (process / "cmdline").read_text() + (process / "environ").read_text()
        assert "private:1" in shown
        for secret in secrets_of(registry):
            assert secret not in shown
    finally:
        release.set()
        fetch.communicate()
    assert fetch.returncode == 0


@pytest.mark.parametrize("source", [by_rkt, by_podman], ids=lambda one: one.__name__)
def test_r15_a_file_others_may_read_is_warned_of(
    source: Callable[[Clean], None], registry: Registry, home: Clean
) -> None:
    registry.put("private", runnable(), "1")
    registry.guard = guard("basic")
    source(home)
    (path,) = [*home.local.rglob("registry.json"), *home.user_home.rglob("auth.json")]
    home.must("fetch", NAME)
    path.chmod(0o644)
    done = home.podctl("fetch", NAME)
    assert done.returncode == 0
    assert path.name in done.stderr
    assert_hidden(registry, home, done.stdout, done.stderr)


def test_r15_a_failing_helper_is_named_and_what_it_said_is_not_a_secret(
    registry: Registry, home: Clean
) -> None:
    registry.put("private", runnable(), "1")
    registry.guard = guard("basic")
    by_helper(home)
    (helper,) = (home.user_home / "bin").iterdir()
    helper.write_text(f'#!/bin/sh\necho \'{{"Secret": "{PASSWORD}"\' ; exit 1\n')
    done = home.podctl("--debug", "fetch", NAME)
    assert done.returncode == 254
    assert "podctl-test" in done.stderr
    assert_hidden(registry, home, done.stdout, done.stderr)


def test_r15_a_login_that_is_not_used_is_not_sent(registry: Registry, home: Clean) -> None:
    """A registry that asks for nothing is told nothing."""
    registry.put("private", runnable(), "1")
    by_rkt(home)
    home.must("fetch", NAME)
    assert [visit for visit in registry.log if visit.request.header("Authorization")] == []
