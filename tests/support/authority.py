"""A certificate authority of the tests' own: a root, an issuer below it, and what that issues."""

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = dt.timedelta(days=1)
Key = ec.EllipticCurvePrivateKey


class Authority:
    """Signs certificates for servers; ``root`` is the file to trust."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        root_key, self._issuer_key = _new_key(), _new_key()
        root = _signed("Test Root", root_key, "Test Root", root_key, is_authority=True)
        self._issuer = _signed(
            "Test Issuer", self._issuer_key, "Test Root", root_key, is_authority=True
        )
        self.root = directory / "root.pem"
        self.root.write_bytes(_pem(root))

    def issue(self, *names: str, days: int = 1, with_issuer: bool = True) -> tuple[Path, Path]:
        """Files with a certificate for these names or addresses, and with its key.

        ``days`` below zero: it ended so many days ago. The file has the issuer's certificate as
        well, as a server has to show it, unless ``with_issuer`` says otherwise.
        """
        key = _new_key()
        certificate = _signed(names[0], key, "Test Issuer", self._issuer_key, names, days)
        stem = names[0].replace("*", "any") + ("" if days > 0 else "-expired")
        files = self._directory / f"{stem}.pem", self._directory / f"{stem}-key.pem"
        chain = _pem(certificate) + (_pem(self._issuer) if with_issuer else b"")
        files[0].write_bytes(chain)
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files


def _new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _signed(
    subject: str,
    key: Key,
    issuer: str,
    issuer_key: Key,
    names: tuple[str, ...] = (),
    days: int = 1,
    *,
    is_authority: bool = False,
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + min(days, 0) * DAY - DAY)
        .not_valid_after(now + days * DAY)
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    if is_authority:
        usage = x509.KeyUsage(*(name in ("sign", "crl") for name in _USAGES))
        builder = builder.add_extension(usage, critical=True)
    if names:
        others = [_general_name(name) for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(others), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


_USAGES = ("digital", "content", "key", "data", "agreement", "sign", "crl", "encipher", "decipher")


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
