"""The corpus: keys and signatures, good and bad, each with the verdict it must get.

`differs` names the rule by which podctl and gpgv part on purpose; a case without it is one on which
they must agree, and a case with it one on which they must not, so that the list stays true.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import openpgp_forge as forge
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: TID253
from openpgp_forge import (
    CERTIFY,
    ENCRYPT,
    MADE,
    MD5,
    SHA1,
    SHA224,
    SHA256,
    SHA384,
    SHA512,
    SIGN,
    UID,
    Key,
    Recipe,
    binding,
    certification,
    detached,
    packet,
    simple,
    subpacket,
    u32,
    with_subkey,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from openpgp_lab import Lab

DATA = b"an image, as far as a signature cares\n" * 64


@dataclass(frozen=True)
class Sample:
    """Key files, a signature file and the content it is said to sign."""

    keys: tuple[bytes, ...]
    signature: bytes
    data: bytes = DATA


@dataclass(frozen=True)
class Case:
    """One sample and its verdict.

    Args:
        name: unique.
        good: whether it must be accepted.
        says: part of the refusal's message.
        differs: why gpgv sees it the other way round; None when both must agree.
        build: makes the sample.
    """

    name: str
    good: bool
    says: str
    differs: str | None
    build: Callable[[Lab], Sample]

    def sample(self, lab: Lab) -> Sample:
        """Return the sample, made once: a key can only be revoked once."""
        if self.name not in lab.samples:
            lab.samples[self.name] = self.build(lab)
        made = lab.samples[self.name]
        assert isinstance(made, Sample)
        return made


CASES: list[Case] = []

WEAK_KEY = "podctl refuses RSA below 2048 and DSA below 2048/224 bits"
SHA1_SELF = "podctl refuses SHA-1 self-signatures made since 2019-01-19"
FUTURE = "podctl refuses what is from the future"
STRICT_FILE = "podctl takes files of one kind only, framed without slack"
CURVE = "podctl supports NIST P-256, P-384, P-521 and Ed25519 only"
REVOKED_ANYHOW = "podctl takes a revocation it cannot check for a revocation"
NO_FLAGS = "podctl wants the signing flag of a subkey spelled out"
SHORT_HASH = "podctl wants 256 bits of hash under Ed25519 (RFC 9580 section 5.2.3.2)"
NATIVE_ED25519 = "gpgv 2.2 does not know algorithm 27 (RFC 9580)"
CONTRADICTION = "podctl refuses signatures whose subpackets contradict one another"
CHECK_OCTETS = "podctl compares the two check octets of a digest"
STOPS = "gpgv stops at the first signature of a file that is bad"


def good(
    name: str, *, differs: str | None = None
) -> Callable[[Callable[[Lab], Sample]], Callable[[Lab], Sample]]:
    """Register a case that must be accepted."""
    return _register(name, True, "", differs)


def bad(
    name: str, says: str, *, differs: str | None = None
) -> Callable[[Callable[[Lab], Sample]], Callable[[Lab], Sample]]:
    """Register a case that must be refused with these words."""
    return _register(name, False, says, differs)


def _register(
    name: str, verdict: bool, says: str, differs: str | None
) -> Callable[[Callable[[Lab], Sample]], Callable[[Lab], Sample]]:
    def keep(build: Callable[[Lab], Sample]) -> Callable[[Lab], Sample]:
        CASES.append(Case(name, verdict, says, differs, build))
        return build

    return keep


# Made by gpg: every algorithm.

_ALGORITHMS = {
    "rsa2048": (),
    "rsa3072": (),
    "rsa4096": (),
    "dsa2048": (),
    "ed25519": (),
    "nistp256": (),
    "nistp384": (),
    "nistp521": (),
}


def _by(lab: Lab, algorithm: str, *options: str, armor: bool = True) -> Sample:
    lab.key(algorithm, algorithm)
    return Sample(
        (lab.export(algorithm, armor=armor),), lab.sign(algorithm, DATA, *options, armor=armor)
    )


def _algorithm_cases() -> None:
    for algorithm in _ALGORITHMS:

        def armored(lab: Lab, algorithm: str = algorithm) -> Sample:
            return _by(lab, algorithm)

        def binary(lab: Lab, algorithm: str = algorithm) -> Sample:
            return _by(lab, algorithm, armor=False)

        def tampered(lab: Lab, algorithm: str = algorithm) -> Sample:
            sample = _by(lab, algorithm)
            return Sample(sample.keys, sample.signature, DATA[:-1] + b"!")

        good(f"gpg-{algorithm}-armored")(armored)
        good(f"gpg-{algorithm}-binary")(binary)
        bad(f"gpg-{algorithm}-tampered", "not what was signed")(tampered)


_algorithm_cases()


@bad("gpg-rsa1024", "RSA key of 1024 bits", differs=WEAK_KEY)
def _(lab: Lab) -> Sample:
    return _by(lab, "rsa1024")


@bad("gpg-dsa1024", "DSA key of 1024/160 bits", differs=WEAK_KEY)
def _(lab: Lab) -> Sample:
    return _by(lab, "dsa1024", "--digest-algo", "SHA256")


@bad("gpg-secp256k1", "curve other than NIST", differs=CURVE)
def _(lab: Lab) -> Sample:
    return _by(lab, "secp256k1")


@bad("gpg-brainpool", "curve other than NIST", differs=CURVE)
def _(lab: Lab) -> Sample:
    return _by(lab, "brainpoolP256r1")


# Made by gpg: hash algorithms.


@good("gpg-sha224")
def _(lab: Lab) -> Sample:
    return _by(lab, "rsa2048", "--digest-algo", "SHA224")


@good("gpg-sha384")
def _(lab: Lab) -> Sample:
    return _by(lab, "rsa2048", "--digest-algo", "SHA384")


@good("gpg-sha512")
def _(lab: Lab) -> Sample:
    return _by(lab, "ed25519", "--digest-algo", "SHA512")


@bad("gpg-sha1", "SHA-1 is not accepted")
def _(lab: Lab) -> Sample:
    return _by(lab, "rsa2048", "--digest-algo", "SHA1")


@bad("gpg-ripemd160", "RIPEMD-160 is not accepted")
def _(lab: Lab) -> Sample:
    return _by(lab, "rsa2048", "--digest-algo", "RIPEMD160")


@bad("gpg-md5", "MD5 is not accepted")
def _(lab: Lab) -> Sample:
    return _by(lab, "rsa2048", "--digest-algo", "MD5")


# Made by gpg: content and other keys.


@good("gpg-empty-content")
def _(lab: Lab) -> Sample:
    lab.key("ed25519")
    return Sample((lab.export("ed25519"),), lab.sign("ed25519", b""), b"")


@good("gpg-among-several-keys")
def _(lab: Lab) -> Sample:
    first, second = _by(lab, "rsa2048"), _by(lab, "ed25519")
    return Sample(first.keys + second.keys, second.signature)


@bad("gpg-key-not-given", "no key that is trusted here")
def _(lab: Lab) -> Sample:
    return Sample(_by(lab, "rsa2048").keys, _by(lab, "ed25519").signature)


@bad("gpg-content-truncated", "not what was signed")
def _(lab: Lab) -> Sample:
    return Sample(_by(lab, "ed25519").keys, _by(lab, "ed25519").signature, DATA[:-1])


@bad("gpg-content-extended", "not what was signed")
def _(lab: Lab) -> Sample:
    return Sample(_by(lab, "ed25519").keys, _by(lab, "ed25519").signature, DATA + b"\0")


@bad("gpg-text-mode", "type 0x01")
def _(lab: Lab) -> Sample:
    return _by(lab, "ed25519", "--textmode")


@good("only-key-id-named")
def _(lab: Lab) -> Sample:
    """As old GnuPG and Go's openpgp write it: no issuer fingerprint."""
    signature = detached(lab.rsa, DATA, fingerprint=False)
    return Sample((simple(lab.rsa),), signature)


# Made by gpg: time.


@bad("gpg-key-expired", "expired 2024-04-01")
def _(lab: Lab) -> Sample:
    lab.key("expired", expire="20240401T000000")
    return Sample((lab.export("expired"),), lab.sign("expired", DATA))


@good("gpg-key-expires-later")
def _(lab: Lab) -> Sample:
    lab.key("later", expire="20990101T000000")
    return Sample((lab.export("later"),), lab.sign("later", DATA))


@good("gpg-key-expiry-extended")
def _(lab: Lab) -> Sample:
    lab.key("extended", expire="20240401T000000")
    signature = lab.sign("extended", DATA)
    lab.gpg("--quick-set-expire", lab.key("extended"), "20990101T000000", at="20240301T000000")
    return Sample((lab.export("extended"),), signature)


@bad("gpg-key-expiry-shortened", "expired 2024-04-01")
def _(lab: Lab) -> Sample:
    lab.key("shortened", expire="20990101T000000")
    signature = lab.sign("shortened", DATA)
    lab.gpg("--quick-set-expire", lab.key("shortened"), "20240401T000000", at="20240301T000000")
    return Sample((lab.export("shortened"),), signature)


@good("gpg-key-expiry-removed")
def _(lab: Lab) -> Sample:
    lab.key("removed", expire="20240401T000000")
    signature = lab.sign("removed", DATA)
    lab.gpg("--quick-set-expire", lab.key("removed"), "never", at="20240301T000000")
    return Sample((lab.export("removed"),), signature)


@bad("gpg-signature-expired", "expired 2024-02-02")
def _(lab: Lab) -> Sample:
    return _by(lab, "ed25519", "--default-sig-expire", "1d")


@good("gpg-signature-expires-later")
def _(lab: Lab) -> Sample:
    return _by(lab, "ed25519", "--default-sig-expire", "70y")


@bad("gpg-signature-from-the-future", "but the clock says", differs=FUTURE)
def _(lab: Lab) -> Sample:
    lab.key("ed25519")
    return Sample((lab.export("ed25519"),), lab.sign("ed25519", DATA, at="20880101T000000"))


@bad("gpg-key-from-the-future", "but the clock says")
def _(lab: Lab) -> Sample:
    lab.key("unborn", at="20880101T000000")
    return Sample((lab.export("unborn"),), lab.sign("unborn", DATA, at="20880201T000000"))


@bad("gpg-signature-older-than-key", "before its key was created")
def _(lab: Lab) -> Sample:
    lab.key("young")
    signature = lab.sign("young", DATA, "--ignore-time-conflict", at="20230101T000000")
    return Sample((lab.export("young"),), signature)


# Made by gpg: revocation.


@bad("gpg-key-revoked", "is revoked")
def _(lab: Lab) -> Sample:
    lab.key("revoked")
    signature = lab.sign("revoked", DATA)
    lab.gpg("--import", stdin=lab.revocation("revoked"))
    return Sample((lab.export("revoked"),), signature)


@bad("gpg-revocation-appended", "is revoked", differs="gpgv looks behind the primary key only")
def _(lab: Lab) -> Sample:
    """The revocation certificate simply concatenated to the key file, as armored text."""
    lab.key("appended")
    key = lab.export("appended")
    return Sample((key + lab.revocation("appended"),), lab.sign("appended", DATA))


@bad("gpg-key-revoked-superseded", "is revoked")
def _(lab: Lab) -> Sample:
    """A soft reason does not leave older signatures good here."""
    lab.key("superseded")
    signature = lab.sign("superseded", DATA)
    lab.edit("superseded", "revkey", "y", "2", "", "y", "save", at="20240301T000000")
    return Sample((lab.export("superseded"),), signature)


@bad("only-uid-revoked", "no user id that is not revoked", differs="gpgv ignores user ids")
def _(lab: Lab) -> Sample:
    """Not made by gpg, which refuses to revoke the last one."""
    content = forge.uid_content(lab.rsa, UID)
    revocation = Recipe(lab.rsa, kind=0x30, content=content, created=MADE + 10).packet()
    return Sample((simple(lab.rsa, revocation),), detached(lab.rsa, DATA))


@good("gpg-one-of-two-uids-revoked")
def _(lab: Lab) -> Sample:
    lab.key("twouids")
    signature = lab.sign("twouids", DATA)
    lab.gpg("--quick-add-uid", lab.key("twouids"), "second <twouids@example.net>")
    lab.edit("twouids", "uid 1", "revuid", "y", "0", "", "y", "save", at="20240301T000000")
    return Sample((lab.export("twouids"),), signature)


@good("uid-revoked-and-recertified")
def _(lab: Lab) -> Sample:
    key, uid = lab.rsa, UID
    content = forge.uid_content(key, uid)
    revocation = Recipe(key, kind=0x30, content=content, created=MADE + 10).packet()
    again = certification(key, uid, created=MADE + 20)
    return Sample((simple(key, revocation, again),), detached(key, DATA))


# Made by gpg: subkeys.


def _subkey(lab: Lab, name: str, algorithm: str = "ed25519", expire: str = "never") -> str:
    lab.key(name, usage="cert")
    return lab.subkey(name, algorithm, "sign", expire)


@good("gpg-subkey")
def _(lab: Lab) -> Sample:
    subkey = _subkey(lab, "withsub")
    return Sample((lab.export("withsub"),), lab.sign(subkey, DATA))


@good("gpg-subkey-rsa-under-ed25519-with-encryption-subkey")
def _(lab: Lab) -> Sample:
    subkey = _subkey(lab, "mixed", "rsa2048")
    lab.subkey("mixed", "cv25519", "encr")
    return Sample((lab.export("mixed"),), lab.sign(subkey, DATA))


@bad("gpg-subkey-expired", "expired 2024-04-01")
def _(lab: Lab) -> Sample:
    subkey = _subkey(lab, "subexpired", expire="20240401T000000")
    return Sample((lab.export("subexpired"),), lab.sign(subkey, DATA))


@bad("gpg-subkey-revoked", "is revoked")
def _(lab: Lab) -> Sample:
    subkey = _subkey(lab, "subrevoked")
    signature = lab.sign(subkey, DATA)
    lab.edit("subrevoked", "key 1", "revkey", "y", "0", "", "y", "save", at="20240301T000000")
    return Sample((lab.export("subrevoked"),), signature)


@bad("gpg-subkey-of-expired-key", "expired 2024-04-01")
def _(lab: Lab) -> Sample:
    lab.key("oldmain", usage="cert", expire="20240401T000000")
    subkey = lab.subkey("oldmain", "ed25519", "sign")
    return Sample((lab.export("oldmain"),), lab.sign(subkey, DATA))


@bad("gpg-subkey-of-revoked-key", "is revoked")
def _(lab: Lab) -> Sample:
    subkey = _subkey(lab, "revmain")
    signature = lab.sign(subkey, DATA)
    lab.gpg("--import", stdin=lab.revocation("revmain"))
    return Sample((lab.export("revmain"),), signature)


@good("gpg-primary-still-signs-with-revoked-subkey")
def _(lab: Lab) -> Sample:
    lab.key("keeps")
    lab.subkey("keeps", "ed25519", "sign")
    lab.edit("keeps", "key 1", "revkey", "y", "0", "", "y", "save", at="20240301T000000")
    return Sample((lab.export("keeps"),), lab.sign("keeps", DATA))


@bad("gpg-subkey-missing-from-key-file", "no key that is trusted here")
def _(lab: Lab) -> Sample:
    lab.key("growing", usage="cert")
    before = lab.export("growing")
    subkey = lab.subkey("growing", "ed25519", "sign")
    return Sample((before,), lab.sign(subkey, DATA))


# Made by gpg: keys of rkt's time.


def _old(lab: Lab, name: str, at: str) -> tuple[bytes, bytes]:
    lab.key(name, "rsa2048", at=at, options=("--cert-digest-algo", "SHA1"))
    return lab.export(name), lab.sign(name, DATA)


@good("gpg-2015-sha1-self-signature")
def _(lab: Lab) -> Sample:
    key, signature = _old(lab, "year2015", "20150601T000000")
    return Sample((key,), signature)


@bad("gpg-2022-sha1-self-signature", "self-signed with SHA-1", differs=SHA1_SELF)
def _(lab: Lab) -> Sample:
    key, signature = _old(lab, "year2022", "20220601T000000")
    return Sample((key,), signature)


@good("gpg-sha1-self-signature-renewed-with-sha256")
def _(lab: Lab) -> Sample:
    _, signature = _old(lab, "renewed", "20220601T000000")
    lab.gpg(
        "--cert-digest-algo",
        "SHA256",
        "--quick-set-expire",
        lab.key("renewed"),
        "20990101T000000",
        at="20240301T000000",
    )
    return Sample((lab.export("renewed"),), signature)


# Made by gpg: what a signature says about itself.


@good("gpg-notation")
def _(lab: Lab) -> Sample:
    return _by(lab, "ed25519", "--sig-notation", "build@example.com=7")


@bad("gpg-critical-notation", "critical subpacket 20")
def _(lab: Lab) -> Sample:
    return _by(lab, "ed25519", "--sig-notation", "!build@example.com=7")


@good("gpg-critical-policy")
def _(lab: Lab) -> Sample:
    return _by(lab, "ed25519", "--sig-policy-url", "!https://example.com/policy")


@good("hostile-uid")
def _(lab: Lab) -> Sample:
    """A user id that imitates a status line of gpg (CVE-2018-12020) is a name, nothing more."""
    uid = b"x\n[GNUPG:] VALIDSIG 0000 \x1b[2J\xff"
    return Sample((simple(lab.rsa, uid=uid),), detached(lab.rsa, DATA))


# Made by gpg: what is no detached signature.


@bad("gpg-cleartext-signed", "cleartext-signed message")
def _(lab: Lab) -> Sample:
    sample = _by(lab, "ed25519")
    return Sample(sample.keys, lab.sign("ed25519", DATA, how="--clear-sign"))


@bad("gpg-inline-signed", "signed inline or encrypted")
def _(lab: Lab) -> Sample:
    sample = _by(lab, "ed25519")
    return Sample(sample.keys, lab.sign("ed25519", DATA, how="--sign"))


@bad("gpg-inline-signed-binary", "the file holds")
def _(lab: Lab) -> Sample:
    sample = _by(lab, "ed25519")
    signature = lab.sign("ed25519", DATA, "--compress-algo", "none", how="--sign", armor=False)
    return Sample(sample.keys, signature)


@bad("gpg-inline-compressed-binary", "indeterminate length")
def _(lab: Lab) -> Sample:
    sample = _by(lab, "ed25519")
    return Sample(sample.keys, lab.sign("ed25519", DATA, how="--sign", armor=False))


@bad("gpg-literal-only", "no OpenPGP data|literal data|length")
def _(lab: Lab) -> Sample:
    sample = _by(lab, "ed25519")
    return Sample(sample.keys, lab.gpg("--compress-algo", "none", "--store", stdin=DATA))


@bad("gpg-symmetrically-encrypted", "encrypted")
def _(lab: Lab) -> Sample:
    sample = _by(lab, "ed25519")
    return Sample(sample.keys, lab.gpg("--armor", "--passphrase", "x", "--symmetric", stdin=DATA))


@bad("gpg-encrypted-binary", "encrypted session key")
def _(lab: Lab) -> Sample:
    lab.key("reader", usage="cert,sign")
    lab.subkey("reader", "cv25519", "encr")
    message = lab.gpg("--encrypt", "--sign", "-r", lab.key("reader"), stdin=DATA)
    return Sample((lab.export("reader"),), message)


@bad("gpg-public-key-as-signature", "this is a public key")
def _(lab: Lab) -> Sample:
    sample = _by(lab, "ed25519")
    return Sample(sample.keys, sample.keys[0])


@bad("html-as-signature", "HTML")
def _(lab: Lab) -> Sample:
    return Sample(_by(lab, "ed25519").keys, b"<!DOCTYPE html><title>Not found</title>\n")


@bad("empty-signature", "is empty")
def _(lab: Lab) -> Sample:
    return Sample(_by(lab, "ed25519").keys, b"")


@bad("blank-signature", "is empty")
def _(lab: Lab) -> Sample:
    return Sample(_by(lab, "ed25519").keys, b"\n\n  \n")


# Key files.


@bad("gpg-two-keys-in-one-file", "more than one public key", differs=STRICT_FILE)
def _(lab: Lab) -> Sample:
    sample = _by(lab, "ed25519")
    lab.key("rsa2048", "rsa2048")
    return Sample((lab.export("ed25519", "rsa2048"),), sample.signature)


@bad("gpg-secret-key", "this is a secret key")
def _(lab: Lab) -> Sample:
    sample = _by(lab, "ed25519")
    return Sample((lab.export("ed25519", command="--export-secret-keys"),), sample.signature)


@bad("gpg-secret-key-binary", "starts with a secret key")
def _(lab: Lab) -> Sample:
    sample = _by(lab, "ed25519")
    secret = lab.export("ed25519", armor=False, command="--export-secret-keys")
    return Sample((secret,), sample.signature)


@bad("key-file-is-a-signature", "this is a signature")
def _(lab: Lab) -> Sample:
    sample = _by(lab, "ed25519")
    return Sample((sample.signature,), sample.signature)


@bad("key-without-self-signature", "no valid self-signature")
def _(lab: Lab) -> Sample:
    key = packet(6, lab.rsa.body) + packet(13, UID)
    return Sample((key,), detached(lab.rsa, DATA))


@bad("key-with-forged-self-signature", "no valid self-signature")
def _(lab: Lab) -> Sample:
    key = simple(lab.rsa, signer=lab.other, issuer=lab.rsa.fingerprint)
    return Sample((key,), detached(lab.rsa, DATA))


@bad("key-with-self-signature-of-other-uid", "no valid self-signature")
def _(lab: Lab) -> Sample:
    key = packet(6, lab.rsa.body) + packet(13, b"Somebody else") + certification(lab.rsa, UID)
    return Sample((key,), detached(lab.rsa, DATA))


@bad("key-self-signed-with-md5", "self-signed with MD5")
def _(lab: Lab) -> Sample:
    return Sample((simple(lab.rsa, hash_id=MD5),), detached(lab.rsa, DATA))


@bad("key-with-critical-unknown-in-self-signature", "no valid self-signature")
def _(lab: Lab) -> Sample:
    key = simple(lab.rsa, hashed=[subpacket(99, b"?", critical=True)])
    return Sample((key,), detached(lab.rsa, DATA))


@good("key-with-direct-key-signature-only")
def _(lab: Lab) -> Sample:
    direct = Recipe(lab.rsa, kind=0x1F, content=lab.rsa.framed, created=MADE).packet()
    return Sample((packet(6, lab.rsa.body) + direct,), detached(lab.rsa, DATA))


@bad("key-expired-by-direct-key-signature", "expired 2024-06-01")
def _(lab: Lab) -> Sample:
    direct = Recipe(
        lab.rsa, kind=0x1F, content=lab.rsa.framed, created=MADE + 5, hashed=[subpacket(9, u32(60))]
    ).packet()
    file = packet(6, lab.rsa.body) + direct + packet(13, UID) + certification(lab.rsa, UID)
    return Sample((file,), detached(lab.rsa, DATA, created=MADE + 30))


@good("key-flags-absent")
def _(lab: Lab) -> Sample:
    return Sample((simple(lab.rsa, flags=None),), detached(lab.rsa, DATA))


@bad("key-flags-certify-only", "not allowed to sign")
def _(lab: Lab) -> Sample:
    return Sample((simple(lab.rsa, flags=CERTIFY),), detached(lab.rsa, DATA))


@bad("key-flags-encrypt-only", "not allowed to sign")
def _(lab: Lab) -> Sample:
    return Sample((simple(lab.rsa, flags=CERTIFY | ENCRYPT),), detached(lab.rsa, DATA))


@good("key-old-format-packets")
def _(lab: Lab) -> Sample:
    certified = certification(lab.rsa, UID)
    body = certified[3:] if certified[1] >= 192 else certified[2:]
    key = forge.old_packet(6, lab.rsa.body) + forge.old_packet(13, UID) + forge.old_packet(2, body)
    return Sample((key,), forge.old_packet(2, Recipe(lab.rsa, content=DATA).body()))


@bad("key-with-revocation-by-md5", "revocation that cannot be checked", differs=REVOKED_ANYHOW)
def _(lab: Lab) -> Sample:
    revocation = Recipe(lab.rsa, kind=0x20, content=lab.rsa.framed, hash_id=MD5).packet()
    file = packet(6, lab.rsa.body) + revocation + packet(13, UID) + certification(lab.rsa, UID)
    return Sample((file,), detached(lab.rsa, DATA))


@bad("key-with-revocation-by-sha1", "is revoked")
def _(lab: Lab) -> Sample:
    revocation = Recipe(lab.rsa, kind=0x20, content=lab.rsa.framed, hash_id=SHA1).packet()
    file = packet(6, lab.rsa.body) + revocation + packet(13, UID) + certification(lab.rsa, UID)
    return Sample((file,), detached(lab.rsa, DATA))


@good("key-with-forged-revocation")
def _(lab: Lab) -> Sample:
    """Anybody could append one; it proves nothing."""
    revocation = Recipe(
        lab.other,
        kind=0x20,
        content=lab.rsa.framed,
        issuer=lab.rsa.fingerprint,
        algorithm=lab.rsa.algorithm,
    )
    head, digest = revocation.hashed_part()
    body = head + b"\0\0" + digest[:2] + lab.rsa.sign(SHA256, bytes(32))
    file = packet(6, lab.rsa.body) + packet(2, body) + packet(13, UID)
    return Sample((file + certification(lab.rsa, UID),), detached(lab.rsa, DATA))


@bad("key-with-designated-revocation", "designated revoker", differs=REVOKED_ANYHOW)
def _(lab: Lab) -> Sample:
    designation = subpacket(12, b"\x80" + bytes([lab.other.algorithm]) + lab.other.fingerprint)
    direct = Recipe(
        lab.rsa, kind=0x1F, content=lab.rsa.framed, created=MADE, hashed=[designation]
    ).packet()
    revocation = Recipe(lab.other, kind=0x20, content=lab.rsa.framed).packet()
    file = packet(6, lab.rsa.body) + direct + revocation + packet(13, UID)
    return Sample((file + certification(lab.rsa, UID),), detached(lab.rsa, DATA))


@good("key-with-stranger-revocation")
def _(lab: Lab) -> Sample:
    revocation = Recipe(lab.other, kind=0x20, content=lab.rsa.framed).packet()
    file = packet(6, lab.rsa.body) + revocation + packet(13, UID) + certification(lab.rsa, UID)
    return Sample((file,), detached(lab.rsa, DATA))


@bad("key-revoked-in-the-first-copy", "is revoked")
def _(lab: Lab) -> Sample:
    revocation = Recipe(lab.rsa, kind=0x20, content=lab.rsa.framed).packet()
    revoked = packet(6, lab.rsa.body) + revocation + packet(13, UID) + certification(lab.rsa, UID)
    return Sample((revoked, simple(lab.rsa)), detached(lab.rsa, DATA))


@bad("key-revoked-in-the-second-copy", "is revoked", differs="gpgv looks at the first copy only")
def _(lab: Lab) -> Sample:
    revocation = Recipe(lab.rsa, kind=0x20, content=lab.rsa.framed).packet()
    revoked = packet(6, lab.rsa.body) + revocation + packet(13, UID) + certification(lab.rsa, UID)
    return Sample((simple(lab.rsa), revoked), detached(lab.rsa, DATA))


# Subkeys, forged.


def _with(lab: Lab, binding_packet: bytes, *more: bytes, subkey: Key | None = None) -> Sample:
    signer = subkey or lab.ed
    return Sample((with_subkey(lab.rsa, signer, binding_packet, *more),), detached(signer, DATA))


@good("subkey-forged-rightly")
def _(lab: Lab) -> Sample:
    return _with(lab, binding(lab.rsa, lab.ed))


@bad("subkey-without-back-signature", "has not signed its binding")
def _(lab: Lab) -> Sample:
    return _with(lab, binding(lab.rsa, lab.ed, back=None))


@bad("subkey-back-signature-by-another-key", "has not signed its binding")
def _(lab: Lab) -> Sample:
    content = lab.rsa.framed + lab.ed.framed
    back = Recipe(lab.other, kind=0x19, content=content, created=MADE).body()
    return _with(lab, binding(lab.rsa, lab.ed, back=back))


@bad("subkey-back-signature-by-primary", "has not signed its binding")
def _(lab: Lab) -> Sample:
    content = lab.rsa.framed + lab.ed.framed
    back = Recipe(lab.rsa, kind=0x19, content=content, created=MADE).body()
    return _with(lab, binding(lab.rsa, lab.ed, back=back))


@bad("subkey-back-signature-for-another-primary", "has not signed its binding")
def _(lab: Lab) -> Sample:
    """The theft that back-signatures exist against: a subkey taken over under one's own key."""
    content = lab.other.framed + lab.ed.framed
    back = Recipe(lab.ed, kind=0x19, content=content, created=MADE).body()
    return _with(lab, binding(lab.rsa, lab.ed, back=back))


@bad("subkey-back-signature-of-wrong-type", "has not signed its binding")
def _(lab: Lab) -> Sample:
    content = lab.rsa.framed + lab.ed.framed
    back = Recipe(lab.ed, kind=0x18, content=content, created=MADE).body()
    return _with(lab, binding(lab.rsa, lab.ed, back=back))


@bad("subkey-back-signature-garbage", "has not signed its binding")
def _(lab: Lab) -> Sample:
    return _with(lab, binding(lab.rsa, lab.ed, back=b"\x04\x19\x16\x08\xff"))


@bad("subkey-encrypt-flag-only", "not allowed to sign")
def _(lab: Lab) -> Sample:
    return _with(lab, binding(lab.rsa, lab.ed, flags=ENCRYPT))


@bad("subkey-without-flags", "not allowed to sign", differs=NO_FLAGS)
def _(lab: Lab) -> Sample:
    return _with(lab, binding(lab.rsa, lab.ed, flags=None))


@bad("subkey-sign-flag-withdrawn", "not allowed to sign")
def _(lab: Lab) -> Sample:
    newer = binding(lab.rsa, lab.ed, flags=ENCRYPT, created=MADE + 60)
    return _with(lab, binding(lab.rsa, lab.ed), newer)


@bad("subkey-binding-by-stranger", "is not bound")
def _(lab: Lab) -> Sample:
    content = lab.rsa.framed + lab.ed.framed
    back = Recipe(lab.ed, kind=0x19, content=content, created=MADE).body()
    forged = Recipe(
        lab.other,
        kind=0x18,
        content=content,
        created=MADE,
        issuer=lab.rsa.fingerprint,
        hashed=[subpacket(27, bytes([SIGN]))],
        unhashed=[subpacket(32, back)],
    ).packet()
    return _with(lab, forged)


@bad("subkey-binding-of-another-subkey", "is not bound")
def _(lab: Lab) -> Sample:
    return _with(lab, binding(lab.rsa, lab.other))


@bad("subkey-without-binding", "is not bound")
def _(lab: Lab) -> Sample:
    return _with(lab, b"")


@bad("subkey-expired", "expired 2024-06-03")
def _(lab: Lab) -> Sample:
    return _with(lab, binding(lab.rsa, lab.ed, hashed=[subpacket(9, u32(2 * 86400))]))


@bad("subkey-binding-expired", "is not bound")
def _(lab: Lab) -> Sample:
    return _with(lab, binding(lab.rsa, lab.ed, hashed=[subpacket(3, u32(2 * 86400))]))


@bad("subkey-revoked-in-second-copy", "is revoked", differs="gpgv looks at the first copy only")
def _(lab: Lab) -> Sample:
    content = lab.rsa.framed + lab.ed.framed
    revocation = Recipe(lab.rsa, kind=0x28, content=content).packet()
    copy = packet(14, lab.ed.body) + revocation
    return _with(lab, binding(lab.rsa, lab.ed), copy)


@bad("subkey-revocation-misplaced", "is revoked", differs="gpgv looks behind the subkey only")
def _(lab: Lab) -> Sample:
    content = lab.rsa.framed + lab.ed.framed
    revocation = Recipe(lab.rsa, kind=0x28, content=content).packet()
    another = packet(14, lab.other.body) + binding(lab.rsa, lab.other)
    return _with(lab, binding(lab.rsa, lab.ed), another, revocation)


@bad("subkey-weak-rsa", "RSA key of 1024 bits", differs=WEAK_KEY)
def _(lab: Lab) -> Sample:
    return _with(lab, binding(lab.rsa, lab.weak), subkey=lab.weak)


# Signatures, forged.


def _signed(lab: Lab, **changes: object) -> Sample:
    return Sample((simple(lab.rsa),), detached(lab.rsa, DATA, **changes))


@good("signature-minimal-sha256")
def _(lab: Lab) -> Sample:
    return _signed(lab)


@bad("signature-md5", "MD5 is not accepted")
def _(lab: Lab) -> Sample:
    return _signed(lab, hash_id=MD5)


@bad("signature-says-sha256-is-sha1", "not what was signed")
def _(lab: Lab) -> Sample:
    """SHA-1's digest in a packet that claims SHA-256."""
    honest = Recipe(lab.rsa, content=DATA)
    head, digest = honest.hashed_part()
    return Sample(
        (simple(lab.rsa),), packet(2, head + b"\0\0" + digest[:2] + lab.rsa.sign(SHA1, digest[:20]))
    )


@bad("signature-over-other-content", "not what was signed")
def _(lab: Lab) -> Sample:
    return Sample((simple(lab.rsa),), detached(lab.rsa, b"other content"))


@bad("signature-by-stranger-in-trusted-name", "not what was signed|algorithm")
def _(lab: Lab) -> Sample:
    signature = detached(lab.other, DATA, issuer=lab.ed.fingerprint)
    return Sample((simple(lab.ed),), signature)


@bad("signature-of-a-certification", "type 0x13")
def _(lab: Lab) -> Sample:
    return Sample((simple(lab.rsa),), certification(lab.rsa, UID))


@bad("signature-standalone", "type 0x02")
def _(lab: Lab) -> Sample:
    return _signed(lab, kind=0x02)


@bad("signature-timestamp", "type 0x40")
def _(lab: Lab) -> Sample:
    return _signed(lab, kind=0x40)


@bad("signature-without-creation-time", "no creation time")
def _(lab: Lab) -> Sample:
    return _signed(lab, created=None)


@bad("signature-without-issuer", "does not name the key")
def _(lab: Lab) -> Sample:
    return _signed(lab, fingerprint=False, key_id=False)


@bad("signature-names-other-fingerprint", "no key that is trusted here", differs=CONTRADICTION)
def _(lab: Lab) -> Sample:
    """The right 64-bit key id beside a wrong full fingerprint: the fingerprint decides."""
    wrong = subpacket(33, b"\x04" + bytes(12) + lab.rsa.fingerprint[-8:])
    return _signed(lab, fingerprint=False, hashed=[wrong])


@bad("signature-critical-unknown", "critical subpacket 99")
def _(lab: Lab) -> Sample:
    return _signed(lab, hashed=[subpacket(99, b"?", critical=True)])


@bad("signature-critical-unknown-unprotected", "critical subpacket 99")
def _(lab: Lab) -> Sample:
    return _signed(lab, unhashed=[subpacket(99, b"?", critical=True)])


@good("signature-unknown-not-critical")
def _(lab: Lab) -> Sample:
    return _signed(lab, hashed=[subpacket(99, b"?")])


@bad("signature-two-creation-times", "contradicts itself", differs=CONTRADICTION)
def _(lab: Lab) -> Sample:
    return _signed(lab, hashed=[subpacket(2, u32(MADE + 5))])


@bad("signature-expired-at-once", "expired")
def _(lab: Lab) -> Sample:
    return _signed(lab, hashed=[subpacket(3, u32(1))])


@bad("signature-version-3", "version 3 is not supported", differs="podctl knows version 4 only")
def _(lab: Lab) -> Sample:
    return Sample((simple(lab.rsa),), _version_3(lab.rsa))


def _version_3(key: Key) -> bytes:
    import hashlib

    tail = b"\x00" + u32(MADE + 86400)
    digest = hashlib.sha256(DATA + tail).digest()
    body = b"\x03\x05" + tail + key.fingerprint[-8:] + bytes([key.algorithm, SHA256])
    return packet(2, body + digest[:2] + key.sign(SHA256, digest))


@bad("signature-version-6", "version 6 is not supported")
def _(lab: Lab) -> Sample:
    return _signed(lab, version=6)


@bad("signature-wrong-check-octets", "not what was signed", differs=CHECK_OCTETS)
def _(lab: Lab) -> Sample:
    recipe = Recipe(lab.rsa, content=DATA)
    head, digest = recipe.hashed_part()
    check = bytes([digest[0] ^ 1, digest[1]])
    unhashed = b"\x00\x0a" + subpacket(16, lab.rsa.fingerprint[-8:])
    body = head + unhashed + check + lab.rsa.sign(SHA256, digest)
    return Sample((simple(lab.rsa),), packet(2, body))


@bad("signature-zero-numbers", "not what was signed")
def _(lab: Lab) -> Sample:
    recipe = Recipe(lab.p256, content=DATA)
    head, digest = recipe.hashed_part()
    body = head + b"\0\0" + digest[:2] + forge.mpi(0) + forge.mpi(0)
    return Sample((simple(lab.p256),), packet(2, body))


@bad("signature-ecdsa-hash-too-short", "too short")
def _(lab: Lab) -> Sample:
    key = forge.ecdsa_key(ec.SECP384R1())
    return Sample((simple(key, hash_id=SHA384),), detached(key, DATA, hash_id=SHA256))


@bad("signature-ed25519-sha224", "too short", differs=SHORT_HASH)
def _(lab: Lab) -> Sample:
    return Sample((simple(lab.ed),), detached(lab.ed, DATA, hash_id=SHA224))


@good("signature-p521-sha512")
def _(lab: Lab) -> Sample:
    key = forge.ecdsa_key(ec.SECP521R1())
    return Sample((simple(key, hash_id=SHA512),), detached(key, DATA, hash_id=SHA512))


@good("signature-rsa-sign-only-algorithm")
def _(lab: Lab) -> Sample:
    key = forge.rsa_key(algorithm=3)
    return Sample((simple(key),), detached(key, DATA))


@good("signature-native-ed25519", differs=NATIVE_ED25519)
def _(lab: Lab) -> Sample:
    key = forge.ed25519_key(algorithm=27)
    return Sample((simple(key),), detached(key, DATA))


@bad("signature-by-encryption-only-rsa", "cannot sign")
def _(lab: Lab) -> Sample:
    key = forge.rsa_key(algorithm=1)
    key.algorithm = 2
    return Sample((simple(key, algorithm=1),), Recipe(key, content=DATA, algorithm=1).packet())


# Framing.


@bad("signature-huge-length", "is truncated", differs=STRICT_FILE)
def _(lab: Lab) -> Sample:
    body = Recipe(lab.rsa, content=DATA).body()
    return Sample((simple(lab.rsa),), b"\xc2\xff\xff\xff\xff\xff" + body)


@bad("signature-partial-length", "partial length")
def _(lab: Lab) -> Sample:
    body = Recipe(lab.rsa, content=DATA).body()
    return Sample((simple(lab.rsa),), b"\xc2\xe8" + body[:256] + bytes([len(body) - 256]))


@bad("signature-indeterminate-length", "indeterminate length")
def _(lab: Lab) -> Sample:
    return Sample((simple(lab.rsa),), b"\x8b" + Recipe(lab.rsa, content=DATA).body())


@bad("signature-bytes-inside-after-end", "bytes after its end", differs=STRICT_FILE)
def _(lab: Lab) -> Sample:
    body = Recipe(lab.rsa, content=DATA).body()
    return Sample((simple(lab.rsa),), packet(2, body + b"\0"))


@bad("signature-trailing-garbage", "no OpenPGP data", differs=STRICT_FILE)
def _(lab: Lab) -> Sample:
    return Sample((simple(lab.rsa),), detached(lab.rsa, DATA) + b"\0\0\0\0")


@bad("signature-literal-appended", "literal data")
def _(lab: Lab) -> Sample:
    literal = packet(11, b"b\0\0\0\0\0" + DATA)
    return Sample((simple(lab.rsa),), detached(lab.rsa, DATA) + literal)


@bad("signature-marker-first", "a marker", differs=STRICT_FILE)
def _(lab: Lab) -> Sample:
    return Sample((simple(lab.rsa),), packet(10, b"PGP") + detached(lab.rsa, DATA))


@bad("signature-truncated", "is truncated")
def _(lab: Lab) -> Sample:
    return Sample((simple(lab.rsa),), detached(lab.rsa, DATA)[:-7])


@good("armor-without-checksum")
def _(lab: Lab) -> Sample:
    return Sample((simple(lab.rsa),), forge.armored(detached(lab.rsa, DATA), crc=b""))


@bad("armor-wrong-checksum", "checksum")
def _(lab: Lab) -> Sample:
    return Sample((simple(lab.rsa),), forge.armored(detached(lab.rsa, DATA), crc=b"=AAAA"))


@bad("armor-text-before", "no OpenPGP data", differs=STRICT_FILE)
def _(lab: Lab) -> Sample:
    return Sample((simple(lab.rsa),), b"my signature:\n" + forge.armored(detached(lab.rsa, DATA)))


@good("armor-crlf")
def _(lab: Lab) -> Sample:
    text = forge.armored(detached(lab.rsa, DATA)).replace(b"\n", b"\r\n")
    return Sample(
        (forge.armored(simple(lab.rsa), "PUBLIC KEY BLOCK").replace(b"\n", b"\r\n"),), text
    )


# Many signatures in one file.


@good("many-two-good")
def _(lab: Lab) -> Sample:
    keys = (simple(lab.rsa), simple(lab.ed))
    return Sample(keys, detached(lab.rsa, DATA) + detached(lab.ed, DATA))


@good("many-good-then-bad")
def _(lab: Lab) -> Sample:
    keys = (simple(lab.rsa), simple(lab.ed))
    return Sample(keys, detached(lab.rsa, DATA) + detached(lab.ed, b"other"))


@good("many-bad-then-good", differs=STOPS)
def _(lab: Lab) -> Sample:
    keys = (simple(lab.rsa), simple(lab.ed))
    return Sample(keys, detached(lab.rsa, b"other") + detached(lab.ed, DATA))


@good("many-stranger-then-good")
def _(lab: Lab) -> Sample:
    return Sample((simple(lab.rsa),), detached(lab.other, DATA) + detached(lab.rsa, DATA))


@bad("many-all-bad", "and 2 more")
def _(lab: Lab) -> Sample:
    keys = (simple(lab.rsa), simple(lab.ed))
    several = detached(lab.rsa, b"a") + detached(lab.ed, b"b") + detached(lab.other, DATA)
    return Sample(keys, several + detached(lab.rsa, b"d") * 3)


@good("many-armor-blocks")
def _(lab: Lab) -> Sample:
    first, second = detached(lab.other, DATA), detached(lab.rsa, DATA)
    return Sample((simple(lab.rsa),), forge.armored(first) + forge.armored(second))


@bad("many-too-many", "more than 32", differs=STRICT_FILE)
def _(lab: Lab) -> Sample:
    return Sample((simple(lab.ed),), detached(lab.ed, DATA) * 33)


@bad("many-too-large", "larger than 65536 bytes", differs=STRICT_FILE)
def _(lab: Lab) -> Sample:
    return Sample((simple(lab.rsa),), detached(lab.rsa, DATA) * 250)
