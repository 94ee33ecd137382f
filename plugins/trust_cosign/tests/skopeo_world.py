"""A real registry on the loopback device, and skopeo as signer and verifier beside it.

Used by record_skopeo.py alone: Debian 12 builds skopeo without sigstore signatures.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import socket
import subprocess
import tarfile
import time
import urllib.error
import urllib.request  # noqa: TID253
from typing import TYPE_CHECKING, Any

from cosign_lab import b64, compact
from cryptography.hazmat.primitives import serialization  # noqa: TID253

from podctl.model.imagedocument import ImageDocument, RegistrySignature, digest_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cosign_lab import Signer

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"


def private_file(signer: Signer, path: Path, passphrase: bytes) -> None:
    """Write `cosign.key`: PKCS #8 in a secretbox, its key from the passphrase by scrypt."""
    from nacl.secret import SecretBox  # type: ignore[import-not-found,unused-ignore]

    plain = signer.key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    salt, nonce = os.urandom(32), os.urandom(24)
    memory = 64 << 20
    key = hashlib.scrypt(passphrase, salt=salt, n=32768, r=8, p=1, dklen=32, maxmem=memory)
    params = {"N": 32768, "r": 8, "p": 1}
    value = {
        "kdf": {"name": "scrypt", "params": params, "salt": b64(salt)},
        "cipher": {"name": "nacl/secretbox", "nonce": b64(nonce)},
        "ciphertext": b64(SecretBox(key).encrypt(plain, nonce).ciphertext),
    }
    label = "ENCRYPTED COSIGN PRIVATE KEY"
    path.write_text(f"-----BEGIN {label}-----\n{b64(compact(value))}\n-----END {label}-----\n")


def layout(path: Path, text: str = "hello\n") -> None:
    """Write an OCI image of one layer with one file."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("hello")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text.encode()))
    plain = archive.getvalue()
    layer = gzip.compress(plain, mtime=0)
    config = compact(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [digest_of(plain)]},
        }
    )
    manifest = compact(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described(config, CONFIG),
            "layers": [described(layer, "application/vnd.oci.image.layer.v1.tar+gzip")],
        }
    )
    blobs = path / "blobs/sha256"
    blobs.mkdir(parents=True)
    for part in (layer, config, manifest):
        (blobs / hashlib.sha256(part).hexdigest()).write_bytes(part)
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    index = {"schemaVersion": 2, "manifests": [described(manifest, MANIFEST)]}
    (path / "index.json").write_bytes(compact(index))


def described(part: bytes, kind: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest_of(part), "size": len(part), **more}


class World:
    """A registry with its own directory.

    Args:
        top: an empty directory.
        skopeo: how to run skopeo; the directory must have the same path for it.
    """

    def __init__(self, top: Path, skopeo: Sequence[str]) -> None:
        self.top = top
        self._command = list(skopeo)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.host = f"127.0.0.1:{probe.getsockname()[1]}"
        config = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(top / "registry")}},
            "http": {"addr": self.host},
        }
        (top / "registry.json").write_bytes(compact(config))
        command = ["docker-registry", "serve", str(top / "registry.json")]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._wait()
        (top / "registries.d").mkdir()
        attach = f"docker:\n  {self.host}:\n    use-sigstore-attachments: true\n"
        (top / "registries.d/test.yaml").write_text(attach)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()

    def _wait(self) -> None:
        """Until it answers: there is nothing to be told by."""
        for _ in range(500):
            try:
                self.get("/v2/")
            except (urllib.error.URLError, ConnectionError):
                assert self._process.poll() is None
                time.sleep(0.02)
            else:
                return
        raise AssertionError("the registry does not answer")

    def get(self, path: str) -> bytes:
        request = urllib.request.Request(f"http://{self.host}{path}", headers={"Accept": MANIFEST})
        with urllib.request.urlopen(request) as answer:
            content: bytes = answer.read()
        return content

    def put_blob(self, repository: str, content: bytes) -> None:
        start = urllib.request.Request(
            f"http://{self.host}/v2/{repository}/blobs/uploads/", method="POST"
        )
        with urllib.request.urlopen(start) as answer:
            place = answer.headers["Location"]
        joint = "&" if "?" in place else "?"
        finish = urllib.request.Request(
            f"{place}{joint}digest={digest_of(content)}",
            data=content,
            method="PUT",
            headers={"Content-Type": "application/octet-stream"},
        )
        urllib.request.urlopen(finish).close()

    def put_signatures(
        self, repository: str, digest: str, signatures: Sequence[RegistrySignature]
    ) -> None:
        """Lay signatures beside an image as cosign does, in place of those that are there."""
        config = b"{}"
        layers = [
            described(one.content, PAYLOAD, annotations={SIGNATURE: one.signature})
            for one in signatures
        ]
        for part in (config, *(one.content for one in signatures)):
            self.put_blob(repository, part)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described(config, CONFIG),
            "layers": layers,
        }
        request = urllib.request.Request(
            f"http://{self.host}/v2/{repository}/manifests/{signature_tag(digest)}",
            data=compact(manifest),
            method="PUT",
            headers={"Content-Type": MANIFEST},
        )
        urllib.request.urlopen(request).close()

    def document(self, repository: str, reference: str) -> ImageDocument:
        """What a transport would find under a tag or digest."""
        manifest = self.get(f"/v2/{repository}/manifests/{reference}")
        config = self.get(f"/v2/{repository}/blobs/{json.loads(manifest)['config']['digest']}")
        joint = "@" if ":" in reference else ":"
        return ImageDocument(f"{self.host}/{repository}{joint}{reference}", None, manifest, config)

    def signatures(self, repository: str, digest: str) -> list[RegistrySignature]:
        manifest = json.loads(self.get(f"/v2/{repository}/manifests/{signature_tag(digest)}"))
        return [
            RegistrySignature(
                "simple",
                self.get(f"/v2/{repository}/blobs/{layer['digest']}"),
                layer["annotations"][SIGNATURE],
            )
            for layer in manifest["layers"]
        ]

    def push(self, image: Path, name: str, signer: Signer | None = None) -> None:
        """Copy an image into the registry with skopeo, signed by it."""
        options = []
        if signer is not None:
            private_file(signer, self.top / "cosign.key", b"secret")
            (self.top / "passphrase").write_bytes(b"secret")
            options = [
                f"--sign-by-sigstore-private-key={self.top}/cosign.key",
                f"--sign-passphrase-file={self.top}/passphrase",
            ]
        anything = {"default": [{"type": "insecureAcceptAnything"}]}
        done = self._skopeo(anything, *options, f"oci:{image}", f"docker://{self.host}/{name}")
        assert done.returncode == 0, done.stderr

    def accepts(self, name: str, key: bytes, identity: str = "matchRepoDigestOrExact") -> bool:
        """Whether skopeo copies an image whose policy asks for a signature by a key."""
        (self.top / "key.pub").write_bytes(key)
        signed = {
            "type": "sigstoreSigned",
            "keyPath": str(self.top / "key.pub"),
            "signedIdentity": {"type": identity},
        }
        policy = {"default": [{"type": "reject"}], "transports": {"docker": {self.host: [signed]}}}
        target = self.top / "copied"
        subprocess.run(["rm", "-rf", str(target)], check=True)
        done = self._skopeo(policy, f"docker://{self.host}/{name}", f"dir:{target}")
        # Nothing else than the policy may be in the way.
        assert done.returncode == 0 or "Source image rejected" in done.stderr, done.stderr
        return done.returncode == 0

    def _skopeo(self, policy: object, *arguments: str) -> subprocess.CompletedProcess[str]:
        (self.top / "policy.json").write_bytes(compact(policy))
        command = [
            *self._command,
            f"--policy={self.top}/policy.json",
            f"--registries.d={self.top}/registries.d",
            "copy",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
        ]
        return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)


def signature_tag(digest: str) -> str:
    return f"{digest.replace(':', '-')}.sig"
