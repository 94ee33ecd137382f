"""A throwaway GnuPG home: real keys and signatures of any date, and gpgv as a second opinion."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec  # noqa: TID253
from openpgp_forge import Key, dearmored, ecdsa_key, ed25519_key, rsa_key

if TYPE_CHECKING:
    from types import TracebackType

_ENVIRONMENT = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC"}
#: When most keys of the corpus were made.
THEN = "20240101T000000"


@dataclass(frozen=True)
class Opinion:
    """What gpgv said, by its status lines alone: its exit code is 0 for revoked keys too."""

    lines: tuple[str, ...]

    def accepts(self) -> bool:
        """One signature that is good with an accepted hash, and has nothing against it."""
        return any(self._good(group) for group in self._signatures())

    def _signatures(self) -> list[list[list[str]]]:
        groups: list[list[list[str]]] = [[]]
        for line in self.lines:
            words = line.removeprefix("[GNUPG:] ").split()
            if words and words[0] == "NEWSIG":
                groups.append([])
            groups[-1].append(words)
        return groups

    @staticmethod
    def _good(group: list[list[str]]) -> bool:
        keywords = {words[0] for words in group if words}
        against = {"EXPKEYSIG", "REVKEYSIG", "EXPSIG", "ERRSIG", "BADSIG"}
        if not keywords >= {"GOODSIG", "VALIDSIG"} or keywords & against:
            return False
        valid = next(words for words in group if words[0] == "VALIDSIG")
        # Fields: fingerprint, date, time, expiry, version, reserved, algorithm, hash, class, ...
        return int(valid[8]) in (8, 9, 10, 11) and valid[9] == "00"


class Lab:
    """GnuPG with a home of its own, removed (and its agent ended) at the end."""

    def __init__(self) -> None:
        # Sockets of the agent live here: the path has to be short.
        self.home = Path(tempfile.mkdtemp(prefix="gnupg-", dir="/tmp"))
        #: What the corpus made here, by case.
        self.samples: dict[str, object] = {}
        self._keys: dict[str, str] = {}
        self._files = 0

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        agents = [os.pidfd_open(pid) for pid in self.processes()]
        subprocess.run(
            ["gpgconf", "--homedir", str(self.home), "--kill", "all"],
            env=_ENVIRONMENT,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=30,
        )
        for agent in agents:
            select.select([agent], [], [], 30)
            os.close(agent)
        left = self.processes()
        shutil.rmtree(self.home)
        assert not left, f"gpg left processes behind: {left}"

    def processes(self) -> list[int]:
        """Return the processes that live and name this home in their command line."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                line = (entry / "cmdline").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if os.fsencode(self.home) in line and state != "Z":
                found.append(int(entry.name))
        return found

    def gpg(self, *arguments: str, at: str | None = THEN, stdin: bytes = b"") -> bytes:
        """Run gpg, at a faked time if given; return its standard output."""
        command = ["gpg", "--homedir", str(self.home), "--batch", "--yes", "--no-tty"]
        command += ["--pinentry-mode", "loopback", "--passphrase", "", "--trust-model", "always"]
        command += ["--no-auto-check-trustdb", "--quiet", "--allow-weak-digest-algos"]
        if at is not None:
            # Frozen: a slow machine must not date a key later than what is done with it next.
            command += ["--faked-system-time", f"{at}!"]
        done = subprocess.run(
            [*command, *arguments], input=stdin, env=_ENVIRONMENT, capture_output=True, timeout=60
        )
        if done.returncode != 0:
            raise AssertionError(f"gpg {arguments}: {done.stderr.decode(errors='replace')}")
        return done.stdout

    def key(
        self,
        name: str,
        algorithm: str = "ed25519",
        *,
        usage: str = "cert,sign",
        expire: str = "never",
        at: str = THEN,
        options: tuple[str, ...] = (),
    ) -> str:
        """Make a key once, return its fingerprint."""
        if name not in self._keys:
            uid = f"{name} <{name}@example.com>"
            self.gpg(*options, "--quick-generate-key", uid, algorithm, usage, expire, at=at)
            self._keys[name] = self._fingerprints(name)[0]
        return self._keys[name]

    def subkey(
        self, name: str, algorithm: str, usage: str, expire: str = "never", at: str = THEN
    ) -> str:
        """Add a subkey to a key, return its fingerprint."""
        self.gpg("--quick-add-key", self._keys[name], algorithm, usage, expire, at=at)
        return self._fingerprints(name)[-1]

    def _fingerprints(self, name: str) -> list[str]:
        listing = self.gpg(
            "--with-colons", "--with-subkey-fingerprint", "--list-keys", f"{name}@example.com"
        )
        return [
            line.split(":")[9].lower()
            for line in listing.decode().splitlines()
            if line.startswith("fpr:")
        ]

    def export(self, *names: str, armor: bool = True, command: str = "--export") -> bytes:
        """Export public keys (or what `command` says)."""
        chosen = [self._keys[name] for name in names]
        return self.gpg(*(["--armor"] if armor else []), command, *chosen)

    def sign(
        self,
        signer: str,
        data: bytes,
        *options: str,
        at: str = "20240201T000000",
        how: str = "--detach-sign",
        armor: bool = True,
    ) -> bytes:
        """Sign data with a key or subkey (fingerprint or name)."""
        user = self._keys.get(signer, signer)
        return self.gpg(
            *(["--armor"] if armor else []), "-u", f"{user}!", *options, how, at=at, stdin=data
        )

    def revocation(self, name: str) -> bytes:
        """Return the revocation certificate gpg made along with a key, fit to be used."""
        path = self.home / "openpgp-revocs.d" / f"{self._keys[name].upper()}.rev"
        text = path.read_text()
        return text[text.index(":-----BEGIN") + 1 :].encode()

    def edit(
        self, name: str, *commands: str, at: str = THEN, options: tuple[str, ...] = ()
    ) -> None:
        """Drive gpg's key editor."""
        script = "".join(f"{line}\n" for line in commands).encode()
        self.gpg(
            *options,
            "--command-fd",
            "0",
            "--expert",
            "--edit-key",
            self._keys[name],
            at=at,
            stdin=script,
        )

    def gpgv(self, key: bytes, signature: bytes, data: bytes) -> Opinion:
        """Ask gpgv, today, with a keyring of its own."""
        self._files += 1
        place = self.home / f"gpgv-{self._files}"
        place.mkdir(mode=0o700)
        (place / "ring.gpg").write_bytes(dearmored(key))
        (place / "signature").write_bytes(signature)
        (place / "data").write_bytes(data)
        done = subprocess.run(
            [
                "gpgv",
                "--homedir",
                str(place),
                "--keyring",
                str(place / "ring.gpg"),
                "--status-fd",
                "1",
                str(place / "signature"),
                str(place / "data"),
            ],
            env=_ENVIRONMENT,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
        shutil.rmtree(place)
        return Opinion(tuple(done.stdout.decode(errors="replace").splitlines()))

    @cached_property
    def rsa(self) -> Key:
        """A forged RSA key to build things with."""
        return rsa_key()

    @cached_property
    def ed(self) -> Key:
        """A forged Ed25519 key to build things with."""
        return ed25519_key()

    @cached_property
    def p256(self) -> Key:
        """A forged key on NIST P-256."""
        return ecdsa_key(ec.SECP256R1())

    @cached_property
    def weak(self) -> Key:
        """A forged RSA key of 1024 bits."""
        return rsa_key(1024)

    @cached_property
    def other(self) -> Key:
        """Another forged key: an attacker's."""
        return ed25519_key()


@lru_cache
def body_of(size: int) -> bytes:
    """Return content that is worth signing."""
    return bytes(range(256)) * (size // 256 + 1)
