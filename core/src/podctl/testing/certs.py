"""Certificates for test servers: an authority made on the spot, and good and bad leaves."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

DAY = datetime.timedelta(days=1)


class Identity(NamedTuple):
    """A certificate and its key, both PEM."""

    certificate: bytes
    key: bytes

    def write(self, directory: Path, name: str = "server") -> tuple[str, str]:
        """Write `name.pem` and `name.key`; return their paths."""
        certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
        certificate.write_bytes(self.certificate)
        key.write_bytes(self.key)
        return str(certificate), str(key)

    def context(self) -> ssl.SSLContext:
        """Return a server's TLS context that presents this certificate."""
        import ssl
        import tempfile
        from pathlib import Path

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # The ssl module reads files alone.
        with tempfile.TemporaryDirectory() as directory:
            context.load_cert_chain(*self.write(Path(directory)))
        return context


class Authority:
    """A certificate authority for one test run."""

    def __init__(self, name: str = "podctl test authority") -> None:
        self._key = _new_key()
        self._name = _name(name)
        self._certificate = self._build(name, self._key, self._name, ca=True)

    @property
    def pem(self) -> bytes:
        """The authority's certificate, to be trusted."""
        return _pem(self._certificate)

    def write(self, directory: Path, name: str = "ca.pem") -> str:
        """Write the authority's certificate; return its path."""
        path = directory / name
        path.write_bytes(self.pem)
        return str(path)

    def issue(
        self,
        *names: str,
        start: datetime.timedelta = -DAY,
        end: datetime.timedelta = DAY,
        self_signed: bool = False,
    ) -> Identity:
        """Make a server certificate for host names and IP addresses.

        Args:
            start: when it begins to be valid, from now.
            end: when it ceases to be, from now.
            self_signed: sign it with its own key instead of the authority's.
        """
        key = _new_key()
        issuer = _name(names[0]) if self_signed else self._name
        certificate = self._build(
            names[0], key, issuer, names=names, start=start, end=end, self_signed=self_signed
        )
        return Identity(_pem(certificate), _key_pem(key))

    def _build(
        self,
        subject: str,
        key: EllipticCurvePrivateKey,
        issuer: x509.Name,
        *,
        names: tuple[str, ...] = (),
        start: datetime.timedelta = -DAY,
        end: datetime.timedelta = DAY,
        ca: bool = False,
        self_signed: bool = False,
    ) -> x509.Certificate:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None, microsecond=0)
        public = key.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + start)
            .not_valid_after(now + end)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )
        if ca:
            builder = builder.add_extension(_ca_usage(), critical=True)
        if names:
            alternative = x509.SubjectAlternativeName([_general_name(name) for name in names])
            builder = builder.add_extension(alternative, critical=False)
        signer = key if self_signed else self._key
        return builder.sign(signer, hashes.SHA256())


def _new_key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _name(text: str) -> x509.Name:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text[:64])])


def _general_name(text: str) -> x509.GeneralName:
    from ipaddress import ip_address

    from cryptography import x509

    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _ca_usage() -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization as s

    return key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
