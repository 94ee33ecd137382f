"""`podctl trust` on real keys: from a file, from https, by discovery, and what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from site_world import Site

pytestmark = pytest.mark.root

PREFIX = "apps.example/trusted"
SKIP = "--skip-fingerprint-review"


@pytest.fixture(scope="module")
def fingerprint(published: Site) -> str:
    return published.keyring.make("trust <trust@example.com>")


@pytest.fixture
def key(site: Site, fingerprint: str) -> Path:
    """The key, on the site as well: at a URL and where discovery announces it."""
    site.keyring.export(fingerprint, site.public / "pubkeys.gpg")
    return site.keyring.export(fingerprint, site.top / "trust.asc")


def places(site: Site) -> list[str]:
    top = site.top / "etc/trustedkeys"
    return sorted(str(path.relative_to(top)) for path in top.rglob("*") if path.is_file())


@pytest.mark.parametrize("source", ["file", "https", "discovery"])
def test_a_key_is_shown_and_added(site: Site, key: Path, fingerprint: str, source: str) -> None:
    location = {"file": [str(key)], "https": ["https://apps.example/pubkeys.gpg"], "discovery": []}
    done = site.podctl("trust", "--prefix", PREFIX, SKIP, *location[source])
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "trust <trust@example.com>" in done.stderr
    assert fingerprint[-4:].upper() in done.stderr
    assert places(site) == [f"prefix.d/{PREFIX}/{fingerprint}"]


def test_a_root_key_counts_for_everything(site: Site, key: Path, fingerprint: str) -> None:
    site.must("trust", "--root", SKIP, str(key))
    assert places(site) == [f"root.d/{fingerprint}"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "exactly one of --prefix and --root"),
        (["--root", "--prefix", PREFIX, "KEY"], "exactly one of --prefix and --root"),
        (["--root"], "needs a PUBKEY"),
        (["--prefix", f"https://{PREFIX}", "KEY"], "must not have a scheme"),
        (["--prefix", "../etc", "KEY"], "AC Identifier"),
        (["--prefix", PREFIX, "KEY"], "lack of tty"),
        (["--prefix", PREFIX, SKIP, "http://apps.example/pubkeys.gpg"], "insecure-allow-http"),
        (["--prefix", PREFIX, SKIP, "ftp://apps.example/pubkeys.gpg"], "not an https URL"),
        (["--prefix", PREFIX, SKIP, "/nowhere.asc"], "cannot be read"),
        (["--prefix", PREFIX, SKIP, "/etc/passwd"], "trust: "),
        (["--prefix", "nobody.example/x", SKIP], "nobody.example"),
    ],
)
def test_refused_in_one_line_and_nothing_is_added(
    site: Site, key: Path, arguments: list[str], reason: str
) -> None:
    done = site.podctl("trust", *(str(key) if word == "KEY" else word for word in arguments))
    assert done.returncode == 254
    assert reason in done.stderr.splitlines()[-1]
    assert places(site) == []


def test_a_secret_key_is_refused(site: Site, key: Path, fingerprint: str) -> None:
    secret = site.top / "secret.asc"
    secret.write_bytes(site.keyring.gpg("--armor", "--export-secret-keys", fingerprint))
    done = site.podctl("trust", "--prefix", PREFIX, SKIP, str(secret))
    assert done.returncode == 254
    assert places(site) == []
