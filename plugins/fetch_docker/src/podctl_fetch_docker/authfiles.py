"""Credentials in the files of podman and docker: containers-auth.json(5), docker's config.json.

In each file a helper for the registry comes before its entry, and the entry before the helper for
all registries; of several entries the one with most of the repository's name counts. A file that
has nothing for a repository leaves the question to the next.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from podctl.errors import ManifestInvalid, UsageError
from podctl.model import jsontext
from podctl_fetch_docker.endpoints import HUB, familiar
from podctl_fetch_docker.helpers import ask_helper
from podctl_fetch_docker.secret import Secret
from podctl_fetch_docker.trusted import read_config

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl_fetch_docker.trusted import ConfigFile, Surroundings

#: how docker's own tools call Docker Hub.
HUB_URL = "https://index.docker.io/v1/"


def auth_paths(around: Surroundings) -> list[str]:
    """The files, in the order in which they are asked.

    $REGISTRY_AUTH_FILE stands for podman's own file, which is otherwise below $XDG_RUNTIME_DIR or,
    without it, /run/containers/UID.
    """
    variables = around.environment
    explicit = variables.get("REGISTRY_AUTH_FILE", "")
    runtime = variables.get("XDG_RUNTIME_DIR", "")
    if not runtime.startswith("/"):
        runtime = f"{around.root}/run/containers/{around.uid}"
        first = f"{runtime}/auth.json"
    else:
        first = f"{runtime}/containers/auth.json"
    paths = [explicit or first]
    if around.config:
        paths.append(f"{around.config}/containers/auth.json")
    docker = variables.get("DOCKER_CONFIG", "")
    if docker.startswith("/"):
        paths.append(f"{docker}/config.json")
    elif around.home:
        paths.append(f"{around.home}/.docker/config.json")
    if around.home:
        paths.append(f"{around.home}/.dockercfg")
    return paths


def secret_from_files(
    host: str, repository: str, around: Surroundings, say: Callable[[str], None]
) -> Secret | None:
    """Return the credentials for a repository at a registry; None where no file has any.

    What is wrong with a file is said, and the next one is asked: without its credentials a
    registry shows less, never more.
    """
    for path in auth_paths(around):
        try:
            file = read_config(path, around.uid)
            found = None if file is None else _secret_in(file, host, repository, around, say)
        except UsageError as error:
            say(f"{error.message}; its credentials are not used")
            continue
        if file is not None and found is not None:
            if file.exposed:
                say(f"{path}: others can read these credentials, chmod 600 it")
            return found
    return None


def secret_from_helper(
    name: str, host: str, around: Surroundings, say: Callable[[str], None]
) -> Secret | None:
    """Ask a helper by all names the registry has."""
    servers = (HUB_URL, HUB) if familiar(host) == HUB else (host,)
    for server in servers:
        try:
            found = ask_helper(name, server, around)
        except UsageError as error:
            say(f"{error.message}; it is not used for {familiar(host)}")
            return None
        if found is not None:
            return found
    return None


def _secret_in(
    file: ConfigFile,
    host: str,
    repository: str,
    around: Surroundings,
    say: Callable[[str], None],
) -> Secret | None:
    try:
        content = jsontext.loads(file.data, what=file.path)
    except ManifestInvalid as error:
        if not file.data.strip():
            return None
        raise UsageError(error.message) from None
    if not isinstance(content, dict):
        raise UsageError(f"{file.path}: is no JSON object")
    # .dockercfg is the table of entries alone.
    legacy = file.path.endswith("/.dockercfg")
    auths = _table({"auths": content} if legacy else content, "auths", file.path)
    helpers = {} if legacy else _table(content, "credHelpers", file.path)
    for key, name in helpers.items():
        if _key_of(key) == familiar(host) and isinstance(name, str):
            return secret_from_helper(name, host, around, say)
    entry = _best(auths, host, repository)
    found = None if entry is None else _entry(entry, file.path)
    store = "" if legacy else content.get("credsStore", "")
    if found is None and isinstance(store, str) and store:
        return secret_from_helper(store, host, around, say)
    return found


def _best(auths: dict[str, Any], host: str, repository: str) -> Any:
    """The entry for the longest part of `host/repository`."""
    wanted = f"{familiar(host)}/{repository}/"
    fitting = [key for key in auths if wanted.startswith(_key_of(key) + "/")]
    # Of two spellings of one key the plain one is podman's, which names what it means.
    best = max(fitting, key=lambda key: (len(_key_of(key)), -len(key)), default=None)
    return None if best is None else auths[best]


def _key_of(key: str) -> str:
    """A key without what docker puts around a registry's name: `https://HOST/v1/`."""
    text = key
    for scheme in ("https://", "http://"):
        if text.startswith(scheme):
            # Of a URL only the host ever counted.
            text = text[len(scheme) :].partition("/")[0]
    host, slash, rest = text.rstrip("/").partition("/")
    if rest in ("v1", "v2"):
        slash = rest = ""
    return familiar(host) + slash + rest


def _entry(entry: object, path: str) -> Secret | None:
    """Read one entry; None where it is empty, as it is beside a helper."""
    if not isinstance(entry, dict):
        raise UsageError(f"{path}: an entry of auths must be an object")
    texts = {key: value for key, value in entry.items() if isinstance(value, str)}
    user, password = texts.get("username", ""), texts.get("password", "")
    if texts.get("auth"):
        user, password = _decoded(texts["auth"], path)
    made = Secret(
        path, user, password, texts.get("identitytoken", ""), texts.get("registrytoken", "")
    )
    return made if user or made.identity_token or made.registry_token else None


def _decoded(auth: str, path: str) -> tuple[str, str]:
    try:
        user, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        colon = user = password = ""
    if not colon:
        raise UsageError(f"{path}: auth of an entry is not base64 of user:password")
    # docker pads with NUL.
    return user, password.rstrip("\0")


def _table(content: dict[str, Any], key: str, path: str) -> dict[str, Any]:
    """A table, or nothing; Go writes an empty one as null."""
    table = content.get(key)
    if table is None:
        return {}
    if not isinstance(table, dict):
        raise UsageError(f"{path}: {key} must be an object")
    return table
