"""`podctl trust` on real keys: from a file, from https, by discovery, and what it refuses."""

from __future__ import annotations

import hashlib
import subprocess
from functools import partial
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
        (["--prefix", f"{PREFIX}/", "KEY"], "AC Identifier"),
        (["--prefix", "apps.ex\u00e4mple", "KEY"], "letters and digits"),
        (["--prefix", "apps example", "KEY"], "letters and digits"),
        (["--prefix", "registry.example/app:1.0", "KEY"], "must not have a tag or digest"),
        (["--prefix", "registry.example:v1", "KEY"], "must not have a tag or digest"),
        (["--prefix", f"registry.example/app@sha256:{'0' * 64}", "KEY"], "tag or digest"),
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


@pytest.fixture
def cosign_key(site: Site) -> tuple[Path, Path, str]:
    """A key as openssl makes it: private file, public file, fingerprint."""
    private, public = site.top / "cosign.key", site.top / "cosign.pub"
    run = partial(subprocess.run, check=True, capture_output=True)
    run(["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", str(private)])
    run(["openssl", "pkey", "-in", str(private), "-pubout", "-out", str(public)])
    der = run(["openssl", "pkey", "-pubin", "-in", str(public), "-outform", "DER"]).stdout
    return private, public, hashlib.sha256(der).hexdigest()


@pytest.mark.parametrize(
    ("prefix", "place"),
    [
        ("registry.example:5000/Team/app", "registry.example-5000/team/app"),
        ("localhost:5000", "localhost-5000"),
        ("docker.io/library/redis", "registry-1.docker.io/library/redis"),
        ("quay.io/a__b", "quay.io/a_b"),
    ],
)
def test_a_cosign_key_is_told_from_an_openpgp_one_and_its_prefix_spelt(
    site: Site, cosign_key: tuple[Path, Path, str], prefix: str, place: str
) -> None:
    _, public, digits = cosign_key
    done = site.podctl("trust", "--prefix", prefix, SKIP, str(public))
    assert done.returncode == 0, done.stderr
    assert f'prefix: "{place}"' in done.stderr
    assert "cosign key, ECDSA on P-256" in done.stderr
    assert digits[-4:].upper() in done.stderr
    assert places(site) == [f"prefix.d/{place}/{digits}"]


def test_keys_of_both_schemes_lie_side_by_side(
    site: Site, key: Path, fingerprint: str, cosign_key: tuple[Path, Path, str]
) -> None:
    _, public, digits = cosign_key
    site.must("trust", "--prefix", PREFIX, SKIP, str(key), str(public))
    site.must("trust", "--root", SKIP, str(public))
    assert places(site) == sorted(
        [*(f"prefix.d/{PREFIX}/{name}" for name in (fingerprint, digits)), f"root.d/{digits}"]
    )


def test_a_cosign_private_key_is_refused_by_name(
    site: Site, cosign_key: tuple[Path, Path, str]
) -> None:
    done = site.podctl("trust", "--prefix", PREFIX, SKIP, str(cosign_key[0]))
    assert done.returncode == 254
    assert "this is a private key" in done.stderr.splitlines()[-1]
    assert places(site) == []


def test_what_is_no_key_of_any_scheme_is_refused_with_the_schemes(site: Site) -> None:
    page = site.top / "page.html"
    page.write_text("<html>404</html>")
    done = site.podctl("trust", "--root", SKIP, str(page))
    assert done.returncode == 254
    assert "installed (cosign, openpgp)" in done.stderr.splitlines()[-1]
    assert places(site) == []


def test_an_aci_is_verified_although_a_cosign_key_is_trusted_for_it(
    site: Site, key: Path, fingerprint: str, cosign_key: tuple[Path, Path, str]
) -> None:
    """Keys of the other scheme are passed over, not taken for broken ones."""
    image = site.publish(PREFIX)
    site.keyring.sign(fingerprint, image)
    site.must("trust", "--prefix", PREFIX, SKIP, str(cosign_key[1]))
    refused = site.podctl("fetch", str(image))
    assert refused.returncode == 254
    assert "unknown entity" in refused.stderr
    site.must("trust", "--prefix", PREFIX, SKIP, str(key))
    fetched = site.podctl("fetch", str(image))
    assert fetched.returncode == 0, fetched.stderr
