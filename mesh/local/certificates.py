"""Development certificates for mutual TLS: one authority, and a leaf for each process."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mesh.local.files import write_private

AUTHORITY_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=90)
RENEWED_BEFORE = timedelta(days=30)
CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Identity:
    """Paths of the PEM files with which one process shows who it is and checks its peers."""

    cert: Path
    key: Path
    ca: Path


@dataclass(frozen=True, slots=True)
class _Pair:
    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def uri_name(name: str) -> str:
    """The name peers know a process by, in the SPIFFE form."""
    return f"spiffe://khesht/{name}"


def dns_name(name: str) -> str:
    """The name TLS clients check a process against."""
    return f"{name}.khesht.internal"


def issue(folder: Path, names: Iterable[str]) -> dict[str, Identity]:
    """The identity of each name, from files in `folder`.

    What is missing, unreadable, of another authority, or valid for less than 30 more days is
    made anew: a leaf for 90 days, the authority for ten years.
    """
    return _issue(folder, names, datetime.now(UTC))


def _issue(folder: Path, names: Iterable[str], now: datetime) -> dict[str, Identity]:
    ca = _files(folder, "ca")
    authority = _load(ca, now) or _save(ca, _authority(now))
    identities = {}
    for name in names:
        files = _files(folder, name)
        pair = _load(files, now)
        if pair is None or not _issued_by(pair.cert, authority.cert):
            _save(files, _leaf(name, authority, now))
        identities[name] = files
    return identities


def _files(folder: Path, name: str) -> Identity:
    return Identity(cert=folder / f"{name}.crt", key=folder / f"{name}.key", ca=folder / "ca.crt")


def _load(files: Identity, now: datetime) -> _Pair | None:
    try:
        cert = x509.load_pem_x509_certificate(files.cert.read_bytes())
        key = load_pem_private_key(files.key.read_bytes(), password=None)
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != cert.public_key():
        return None
    return _Pair(cert, key) if cert.not_valid_after_utc - now >= RENEWED_BEFORE else None


def _save(files: Identity, pair: _Pair) -> _Pair:
    key = pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_private(files.key, key)
    write_private(files.cert, pair.cert.public_bytes(Encoding.PEM))
    return pair


def _issued_by(cert: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        cert.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError):
        return False
    return True


def _authority(now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _common_name("khesht development authority")
    builder = (
        _builder(name, name, key, key, now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
    )
    return _Pair(builder.sign(key, hashes.SHA256()), key)


def _leaf(name: str, authority: _Pair, now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(uri_name(name)),
        x509.DNSName(dns_name(name)),
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")),
    ]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        _builder(_common_name(name), authority.cert.subject, key, authority.key, now, LEAF_LIFE)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
    )
    return _Pair(builder.sign(authority.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
