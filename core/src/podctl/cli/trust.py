"""`podctl trust`: take public keys into the key store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podctl.cli.context import Globals
    from podctl.images.session import FetchSession
    from podctl.plugins import TrustHandle


@click.command(
    help="""Trust public keys for images whose name starts with a prefix (--prefix), or for all
    images (--root).

    PUBKEY is a file or an https URL: an OpenPGP key for App Container Images, a cosign key for
    images of a registry (--prefix=registry/repository). Without one, the keys that the prefix's
    own site announces (ac-discovery-pubkeys) are offered."""
)
@click.option(
    "--prefix", metavar="PREFIX", default="", help="Trust the keys for names below this prefix."
)
@click.option("--root", is_flag=True, help="Trust the keys for every image.")
@click.option(
    "--skip-fingerprint-review", is_flag=True, help="Do not ask; the key is known to be right."
)
@click.option("--insecure-allow-http", is_flag=True, help="Accept keys from http URLs.")
@click.argument("locations", metavar="[PUBKEY]...", nargs=-1)
@click.pass_obj
def command(
    options: Globals,
    prefix: str,
    root: bool,
    skip_fingerprint_review: bool,
    insecure_allow_http: bool,
    locations: tuple[str, ...],
) -> None:
    """Check the scope, then take in each key."""
    from podctl.cli.session import open_session

    scope = _scope(prefix, root, bool(locations))
    session = open_session(options, "trust")
    schemes = _schemes(session)
    review = not skip_fingerprint_review
    if not locations and scope is not None:
        _discover(session, schemes, scope, review, insecure_allow_http)
    for location in locations:
        data = _read(session, location, insecure_allow_http)
        _take(session, schemes, scope, location, data, review)


def _scope(prefix: str, root: bool, has_locations: bool) -> str | None:
    """Return the prefix, or None for every image."""
    from podctl.errors import UsageError

    if bool(prefix) == root:
        raise UsageError("exactly one of --prefix and --root is required")
    if root:
        if not has_locations:
            raise UsageError("--root needs a PUBKEY: there is no name to discover keys by")
        return None
    if "://" in prefix:
        raise UsageError(f'prefix "{prefix}" must not have a scheme', hint="give the name alone")
    return _image_prefix(prefix)


def _image_prefix(prefix: str) -> str:
    """Spell a prefix as images are named: those of registries have their registry's port in it."""
    from podctl.errors import InvalidInput, UsageError
    from podctl.model.names import registry_identifier

    host, _, path = prefix.partition("/")
    port = host.partition(":")[2]
    if ":" in path or "@" in prefix or not (port or "0").isdigit():
        raise UsageError(
            f'prefix "{prefix}" must not have a tag or digest',
            hint="a key is trusted for a repository, or for all below the start of its name",
        )
    plain = prefix
    for separator in "-._~/:":
        plain = plain.replace(separator, "")
    if plain and not (plain.isascii() and plain.isalnum()):
        raise InvalidInput(f"prefix {prefix!r} must be letters and digits joined by -._~ or /")
    return registry_identifier(prefix)


def _schemes(session: FetchSession) -> list[TrustHandle]:
    """Load every installed signature scheme; one that is broken is told of and left out.

    Raises:
        PluginError: no scheme can be loaded.
    """
    from podctl.errors import PluginError
    from podctl.plugins import trust_scheme, trust_scheme_names

    loaded: list[TrustHandle] = []
    failures: list[PluginError] = []
    for name in trust_scheme_names():
        try:
            scheme = trust_scheme(name)
            scheme.preload()
        except PluginError as error:
            failures.append(error)
        else:
            loaded.append(scheme)
    if not loaded:
        raise failures[0]
    for failure in failures:
        session.say(str(failure))
    return loaded


def _read(session: FetchSession, location: str, allow_http: bool) -> bytes:
    """Read a key file, or download it."""
    from podctl.errors import NotFound

    if "://" in location:
        from podctl.images.wire import key_document
        from podctl.plugins import transport
        from podctl.trust.discovery import check_scheme

        check_scheme(location, allow_http=allow_http)
        carrier = transport(location.partition("://")[0])
        carrier.preload()
        return key_document(carrier, location, session.request())
    from podctl.sys.files import read_small
    from podctl.trust.keystore import MAX_KEY_BYTES

    try:
        return read_small(location, MAX_KEY_BYTES)
    except (OSError, ValueError) as error:
        raise NotFound(f'key file "{location}" cannot be read: {error}') from error


def _discover(
    session: FetchSession,
    schemes: Sequence[TrustHandle],
    prefix: str,
    review: bool,
    allow_http: bool,
) -> None:
    from podctl.images.keys import announced
    from podctl.trust.discovery import take_announced

    locations, fetch = announced(session, prefix, allow_http=allow_http)
    take_announced(
        prefix,
        locations,
        fetch=fetch,
        take=lambda where, url, data, ask: _take(session, schemes, where, url, data, ask),
        review=review,
        allow_http=allow_http,
    )


def _take(
    session: FetchSession,
    schemes: Sequence[TrustHandle],
    prefix: str | None,
    location: str,
    data: bytes,
    review: bool,
) -> bool:
    """Let the scheme that the key is of look at it, then add it."""
    from podctl.trust.checking import scheme_of
    from podctl.trust.review import take_key

    by_name = {scheme.name: scheme for scheme in schemes}
    sayers = {
        name: scheme.recognises if scheme.offers("trust_recognises") else None
        for name, scheme in by_name.items()
    }
    return take_key(
        session.keystore,
        by_name[scheme_of(data, sayers)].key,
        data,
        prefix=prefix,
        location=location,
        review=review,
        say=session.say,
    )
