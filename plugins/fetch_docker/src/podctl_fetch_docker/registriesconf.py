"""registries.conf, version 2, and what lies in registries.conf.d: containers-registries.conf(5).

Read whole and strictly: a setting that is not known, or stands in the wrong table, is refused,
since what it was to forbid would silently be allowed.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from podctl.errors import InvalidInput, UsageError
from podctl.model.reference import is_host, name_has_registry
from podctl.model.reference import parse as parse_reference
from podctl_fetch_docker.endpoints import familiar
from podctl_fetch_docker.trusted import Surroundings, list_config, read_config

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_TOP = frozenset(
    {
        "additional-layer-store-auth-helper",
        "aliases",
        "credential-helpers",
        "registry",
        "short-name-mode",
        "unqualified-search-registries",
    }
)
_REGISTRY = frozenset(
    {
        "blocked",
        "insecure",
        "location",
        "mirror",
        "mirror-by-digest-only",
        "prefix",
    }
)
_MIRROR = frozenset({"insecure", "location", "pull-from-mirror"})
_MODES = ("", "enforcing", "permissive", "disabled")
AUTH_FILES = "containers-auth.json"


class Mirror(NamedTuple):
    """A place that has copies.

    Args:
        location: host[:port][/namespace...].
        pull: `all`, `digest-only` or `tag-only`: the references it is asked for.
    """

    location: str
    insecure: bool = False
    pull: str = "all"


class Registry(NamedTuple):
    """One `[[registry]]`.

    Args:
        prefix: the names it is for: host[:port][/namespace...], or `*.domain`.
        location: what stands in the prefix's place on the wire; empty: the prefix itself.
        source: path of the file it stands in.
    """

    prefix: str
    location: str
    insecure: bool
    blocked: bool
    mirrors: tuple[Mirror, ...]
    source: str


class RegistriesConf(NamedTuple):
    """The effective configuration.

    Args:
        search: registries for names without one, in order.
        aliases: short name -> `registry/repository`.
        registries: prefix -> its settings.
        helpers: where credentials come from, in order: AUTH_FILES, or a helper's name.
        sources: the files that say all this.
    """

    search: tuple[str, ...] = ()
    aliases: Mapping[str, str] = MappingProxyType({})
    registries: Mapping[str, Registry] = MappingProxyType({})
    helpers: tuple[str, ...] = (AUTH_FILES,)
    sources: tuple[str, ...] = ()

    def find(self, name: str) -> Registry | None:
        """The registry with the longest prefix of `host[:port]/repository`, by components."""
        fitting = [one for one in self.registries.values() if covered(one.prefix, name)]
        return max(fitting, key=lambda one: len(one.prefix), default=None)


def covered(prefix: str, name: str) -> int:
    """How many characters of a name are what a prefix stands for; 0 where it is none of it."""
    if prefix.startswith("*."):
        host = name.partition("/")[0]
        return len(host) if host.endswith(prefix[1:]) else 0
    return len(prefix) if f"{name}/".startswith(f"{prefix}/") else 0


def load_registries(around: Surroundings) -> RegistriesConf:
    """Read the files that count: the main one ($CONTAINERS_REGISTRIES_CONF, the user's own, or the
    system's), then the drop-ins in the order of their names. Root has no files of its own beside
    the system's. Later ones override item by item.

    Raises:
        UsageError: one is malformed or cannot be read.
    """
    own = f"{around.config}/containers" if around.config and around.uid != 0 else ""
    named = around.environment.get("CONTAINERS_REGISTRIES_CONF", "")
    main = [f"{own}/registries.conf"] if own else []
    main.append(around.etc("containers/registries.conf"))
    conf = RegistriesConf()
    for path in [named] if named else main:
        found = _merged(conf, path, around.uid)
        if found is not None:
            conf = found
            break
    else:
        if named:
            raise UsageError(f"$CONTAINERS_REGISTRIES_CONF: there is no {named}")
    directories = [around.etc("containers/registries.conf.d")]
    directories += [f"{own}/registries.conf.d"] if own else []
    for directory in directories:
        for path in list_config(directory, ".conf"):
            conf = _merged(conf, path, around.uid) or conf
    return conf


def _merged(conf: RegistriesConf, path: str, uid: int) -> RegistriesConf | None:
    file = read_config(path, uid)
    if file is None:
        return None
    table = parse_toml(file.data, path)
    registries = {one.prefix: one for one in _registries(table, path)}
    aliases = {**conf.aliases, **_aliases(table, path)}
    return RegistriesConf(
        search=_search(table, path) if "unqualified-search-registries" in table else conf.search,
        aliases={short: name for short, name in aliases.items() if name},
        registries={**conf.registries, **registries},
        helpers=_strings(table, "credential-helpers", path) or conf.helpers,
        sources=(*conf.sources, path),
    )


def parse_toml(data: bytes, path: str) -> dict[str, Any]:
    """Parse one file and check its outermost keys.

    Raises:
        UsageError: it is no TOML, of version 1, or holds what is not known.
    """
    import tomllib

    try:
        table = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: no TOML: {str(error).splitlines()[0][:200]}") from None
    if "registries" in table:
        raise UsageError(
            f"{path}: is of version 1, which podctl does not read",
            hint="write [[registry]] tables and unqualified-search-registries",
        )
    _check_keys(table, _TOP, path)
    mode = table.get("short-name-mode", "")
    if mode not in _MODES:
        raise UsageError(f"{path}: short-name-mode {mode!r} is none of: {', '.join(_MODES[1:])}")
    return table


def _registries(table: dict[str, Any], path: str) -> list[Registry]:
    found = []
    for entry in _tables(table, "registry", path):
        _check_keys(entry, _REGISTRY, f"{path}: [[registry]]")
        location = _checked(_string(entry, "location", path), path, _is_place)
        prefix = _checked(_string(entry, "prefix", path) or location, path, _is_prefix)
        if not prefix:
            raise UsageError(f"{path}: a [[registry]] has neither prefix nor location")
        found.append(
            Registry(
                prefix=prefix,
                location=location,
                insecure=_boolean(entry, "insecure", path),
                blocked=_boolean(entry, "blocked", path),
                mirrors=_mirrors(entry, path),
                source=path,
            )
        )
    prefixes = [one.prefix for one in found]
    for prefix in prefixes:
        if prefixes.count(prefix) > 1:
            raise UsageError(f'{path}: two [[registry]] tables are for the prefix "{prefix}"')
    return found


def _mirrors(entry: dict[str, Any], path: str) -> tuple[Mirror, ...]:
    by_digest = _boolean(entry, "mirror-by-digest-only", path)
    found = []
    for one in _tables(entry, "mirror", path):
        _check_keys(one, _MIRROR, f"{path}: [[registry.mirror]]")
        pull = _string(one, "pull-from-mirror", path)
        if pull not in ("", "all", "digest-only", "tag-only"):
            raise UsageError(
                f"{path}: pull-from-mirror {pull!r} is none of: all, digest-only, tag-only"
            )
        if pull and by_digest:
            raise UsageError(f"{path}: pull-from-mirror and mirror-by-digest-only contradict")
        location = _checked(_string(one, "location", path), path, _is_place)
        if not location:
            raise UsageError(f"{path}: a [[registry.mirror]] has no location")
        pull = "digest-only" if by_digest else pull or "all"
        found.append(Mirror(location, _boolean(one, "insecure", path), pull))
    return tuple(found)


def _aliases(table: dict[str, Any], path: str) -> dict[str, str]:
    aliases = table.get("aliases", {})
    if not isinstance(aliases, dict):
        raise UsageError(f"{path}: aliases must be a table")
    for short, name in aliases.items():
        good = isinstance(name, str) and _is_alias(short, name)
        if not good:
            raise UsageError(
                f"{path}: alias {short!r} must lead from a name without a registry to one with"
            )
    return aliases


def _is_alias(short: str, name: str) -> bool:
    try:
        parsed = [parse_reference(f"docker://{one}") for one in (short, name or "x.example/y")]
    except InvalidInput:
        return False
    # Neither may have a tag or digest, which belong to the image that is asked for.
    bare = not any(char in one.rpartition("/")[2] for one in (short, name) for char in ":@")
    return bare and parsed[0].short and not parsed[1].short


def _search(table: dict[str, Any], path: str) -> tuple[str, ...]:
    def is_registry(text: str) -> bool:
        # Without a dot or port it would be taken for a part of Docker Hub's names.
        return "/" not in text and name_has_registry(f"{text}/x") and _is_place(text)

    found = _strings(table, "unqualified-search-registries", path)
    return tuple(_checked(one, path, is_registry) for one in found)


def _checked(text: str, path: str, good: Callable[[str], bool]) -> str:
    text = text.rstrip("/")
    if text and not good(text):
        raise UsageError(f"{path}: {text[:128]!r} is no registry, nor a part of one")
    host, slash, rest = text.partition("/")
    return familiar(host) + slash + rest


def _is_prefix(text: str) -> bool:
    return _is_place(text.removeprefix("*.") if "/" not in text else text)


def _is_place(text: str) -> bool:
    """host[:port], or more of a repository's name, with neither tag nor digest."""
    host, slash, rest = text.partition("/")
    try:
        parse_reference(f"docker://{host}/{rest if slash else 'x'}")
    except InvalidInput:
        return False
    last = rest.rpartition("/")[2]
    known = name_has_registry(f"{host}/x") or is_host(host)
    return known and ":" not in last and "@" not in rest


def _tables(table: dict[str, Any], key: str, path: str) -> list[dict[str, Any]]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise UsageError(f"{path}: {key} must be an array of tables: write [[{key}]]")
    return value


def _strings(table: dict[str, Any], key: str, path: str) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise UsageError(f"{path}: {key} must be an array of strings")
    return tuple(value)


def _string(table: dict[str, Any], key: str, path: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise UsageError(f"{path}: {key} must be a string")
    return value


def _boolean(table: dict[str, Any], key: str, path: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise UsageError(f"{path}: {key} must be true or false")
    return value


def _check_keys(table: dict[str, Any], known: frozenset[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise UsageError(f"{where}: {key!r} is not known here")
