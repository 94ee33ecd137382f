"""Who may sign what: every bad signature is refused with nothing stored, the good one runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from site_world import Site

pytestmark = pytest.mark.root

NAME = "apps.example/tool"
OTHER = "apps.example/other"


@pytest.fixture(scope="module")
def keys(published: Site) -> dict[str, str]:
    """Fingerprints of the keys of this play."""
    ring = published.keyring
    found = {name: ring.make(f"{name} <{name}@example.com>") for name in ("good", "stranger")}
    old = ["--faked-system-time", "20240101T000000!"]
    found["expired"] = ring.make("expired <expired@example.com>", *old, expire="1d")
    found["revoked"] = ring.make("revoked <revoked@example.com>")
    return found


@pytest.fixture
def image(site: Site) -> Path:
    path = site.publish(NAME)
    path.with_name(path.name + ".asc").unlink(missing_ok=True)
    return path


def trust(site: Site, fingerprint: str, prefix: str) -> None:
    key = site.keyring.export(fingerprint, site.top / "key.asc")
    site.must("trust", "--prefix", prefix, "--skip-fingerprint-review", str(key))


def unsigned(site: Site, keys: dict[str, str], image: Path) -> str:
    trust(site, keys["good"], NAME)
    return "no signature"


def signed_by_a_stranger(site: Site, keys: dict[str, str], image: Path) -> str:
    trust(site, keys["good"], NAME)
    site.keyring.sign(keys["stranger"], image)
    return "unknown entity"


def signed_for_another_prefix(site: Site, keys: dict[str, str], image: Path) -> str:
    trust(site, keys["good"], OTHER)
    site.keyring.sign(keys["good"], image)
    return "no key is trusted|unknown entity"


def signed_for_a_longer_name(site: Site, keys: dict[str, str], image: Path) -> str:
    trust(site, keys["good"], NAME[:-1])
    site.keyring.sign(keys["good"], image)
    return "unknown entity"


def signed_by_an_expired_key(site: Site, keys: dict[str, str], image: Path) -> str:
    trust(site, keys["expired"], NAME)
    site.keyring.sign(keys["expired"], image, "--faked-system-time", "20240101T120000!")
    return "expired"


def signed_by_a_revoked_key(site: Site, keys: dict[str, str], image: Path) -> str:
    site.keyring.sign(keys["revoked"], image)
    certificate = site.keyring.home / f"openpgp-revocs.d/{keys['revoked'].upper()}.rev"
    # gpg guards the file against being imported by accident.
    text = certificate.read_text().replace(":-----BEGIN", "-----BEGIN")
    (site.top / "revoke.asc").write_text(text)
    site.keyring.gpg("--import", str(site.top / "revoke.asc"))
    trust(site, keys["revoked"], NAME)
    return "revoked"


def signed_before_it_was_changed(site: Site, keys: dict[str, str], image: Path) -> str:
    trust(site, keys["good"], NAME)
    site.keyring.sign(keys["good"], image)
    content = bytearray(image.read_bytes())
    # A bit of the gzip header's time stamp: the archive itself stays whole.
    content[4] ^= 1
    image.write_bytes(content)
    return "not what was signed"


def signature_of_another_image(site: Site, keys: dict[str, str], image: Path) -> str:
    """The rename attack: a well signed image served under another name."""
    trust(site, keys["good"], "apps.example")
    other = site.publish(OTHER)
    site.keyring.sign(keys["good"], other)
    image.write_bytes(other.read_bytes())
    image.with_name(image.name + ".asc").write_bytes(
        other.with_name(other.name + ".asc").read_bytes()
    )
    return "differs from the requested"


def a_page_instead_of_a_signature(site: Site, keys: dict[str, str], image: Path) -> str:
    trust(site, keys["good"], NAME)
    image.with_name(image.name + ".asc").write_text("<html>404, but with status 200</html>")
    return "signature"


BAD = [
    unsigned,
    signed_by_a_stranger,
    signed_for_another_prefix,
    signed_for_a_longer_name,
    signed_by_an_expired_key,
    signed_by_a_revoked_key,
    signed_before_it_was_changed,
    signature_of_another_image,
    a_page_instead_of_a_signature,
]


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.__name__)
def test_refused_with_nothing_stored(
    site: Site,
    keys: dict[str, str],
    image: Path,
    case: Callable[[Site, dict[str, str], Path], str],
) -> None:
    reason = case(site, keys, image)
    for arguments in (["run", "--stage1=fly", NAME], ["fetch", NAME], ["fetch", str(image)]):
        done = site.podctl(*arguments)
        if arguments == ["fetch", str(image)] and case is signature_of_another_image:
            # By path nobody has asked for a name: it is what it says it is, and well signed.
            continue
        assert done.returncode == 254, done
        assert re.search(reason, done.stderr) or arguments[0] == "fetch", done.stderr
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith(f"{arguments[0]}: "), done.stderr
        assert stored(site) == []
    assert site.must("list", "--no-legend").strip() == ""


def stored(site: Site) -> list[str]:
    """Everything in the data directory that is content."""
    data = site.top / "data"
    return [
        str(path.relative_to(data))
        for path in data.rglob("*")
        if path.is_file()
        and "lock" not in str(path.relative_to(data))
        and path.parent.name != "index"
    ]


def test_the_same_image_runs_once_its_key_is_trusted(
    site: Site, keys: dict[str, str], image: Path
) -> None:
    site.keyring.sign(keys["good"], image)
    refused = site.podctl("run", "--stage1=fly", NAME)
    assert refused.returncode == 254
    trust(site, keys["good"], NAME)
    ran = site.podctl("run", "--stage1=fly", NAME)
    assert ran.returncode == 0, ran.stderr
    assert "signature verified: good <good@example.com>" in ran.stderr


def test_insecure_option_is_the_explicit_way_out_and_must_be_repeated(
    site: Site, image: Path
) -> None:
    insecure = "--insecure-options=image"
    assert site.podctl(insecure, "run", "--stage1=fly", NAME).returncode == 0
    again = site.podctl("run", "--stage1=fly", NAME)
    assert again.returncode == 254
    assert "without a signature" in again.stderr


def test_a_key_that_is_taken_away_counts_no_more(
    site: Site, keys: dict[str, str], image: Path
) -> None:
    site.keyring.sign(keys["good"], image)
    trust(site, keys["good"], NAME)
    assert site.podctl("run", "--stage1=fly", NAME).returncode == 0
    (place,) = (site.top / "etc/trustedkeys/prefix.d" / NAME).iterdir()
    place.write_bytes(b"")
    masked = site.podctl("run", "--stage1=fly", NAME)
    assert masked.returncode == 254
    assert "not trusted for it any more" in masked.stderr


def test_a_revocation_that_arrives_later_counts_at_the_next_run(site: Site, image: Path) -> None:
    fingerprint = site.keyring.make("later <later@example.com>")
    site.keyring.sign(fingerprint, image)
    trust(site, fingerprint, NAME)
    assert site.podctl("run", "--stage1=fly", NAME).returncode == 0
    certificate = site.keyring.home / f"openpgp-revocs.d/{fingerprint.upper()}.rev"
    text = certificate.read_text().replace(":-----BEGIN", "-----BEGIN")
    (site.top / "revoke.asc").write_text(text)
    site.keyring.gpg("--import", str(site.top / "revoke.asc"))
    trust(site, fingerprint, NAME)
    revoked = site.podctl("run", "--stage1=fly", NAME)
    assert revoked.returncode == 254
    assert "revoked" in revoked.stderr


def test_keys_announced_by_https_are_taken_without_a_word_when_told_so(
    site: Site, keys: dict[str, str], image: Path
) -> None:
    site.keyring.sign(keys["good"], image)
    site.keyring.export(keys["good"], site.public / "pubkeys.gpg")
    unasked = site.podctl("run", "--stage1=fly", NAME)
    assert unasked.returncode == 254
    ran = site.podctl("--trust-keys-from-https", "run", "--stage1=fly", NAME)
    assert ran.returncode == 0, ran.stderr
    assert f'Added key for prefix "{NAME}"' in ran.stderr
