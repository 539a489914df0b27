"""Development certificates."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from mesh.local import certificates
from mesh.local.certificates import Identity, issue


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def life(cert: x509.Certificate) -> timedelta:
    return cert.not_valid_after_utc - datetime.now(UTC)


def contents(identity: Identity) -> tuple[bytes, bytes, bytes]:
    files = (identity.cert, identity.key, identity.ca)
    return files[0].read_bytes(), files[1].read_bytes(), files[2].read_bytes()


def test_a_leaf_says_who_it_is_in_every_form_peers_check(tmp_path: Path) -> None:
    identity = issue(tmp_path, ["chat"])["chat"]

    extensions = read(identity.cert).extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [str(name.value) for name in names] == [
        "spiffe://khesht/chat",
        "chat.khesht.internal",
        "localhost",
        "127.0.0.1",
    ]
    assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def test_a_leaf_lives_90_days_and_its_authority_ten_years(tmp_path: Path) -> None:
    identity = issue(tmp_path, ["chat"])["chat"]

    leaf, authority = read(identity.cert), read(identity.ca)
    leaf.verify_directly_issued_by(authority)
    assert (life(leaf).days, life(authority).days) == (89, 3649)


def test_keys_are_private(tmp_path: Path) -> None:
    issue(tmp_path, ["chat", "keys"])

    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.glob("*.key")}

    assert modes == dict.fromkeys(("ca.key", "chat.key", "keys.key"), 0o600)


def test_issuing_again_changes_nothing_and_adds_what_is_new(tmp_path: Path) -> None:
    before = contents(issue(tmp_path, ["chat"])["chat"])

    after = issue(tmp_path, ["chat", "keys"])

    assert contents(after["chat"]) == before
    read(after["keys"].cert).verify_directly_issued_by(read(after["keys"].ca))


@pytest.mark.parametrize(("age", "renewed"), [(59, False), (61, True)])
def test_a_leaf_is_renewed_in_its_last_30_days(tmp_path: Path, age: int, *, renewed: bool) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=age)
    old = certificates._issue(tmp_path, ["chat"], long_ago)["chat"]
    old_cert, old_ca = old.cert.read_bytes(), old.ca.read_bytes()

    new = issue(tmp_path, ["chat"])["chat"]

    assert (new.cert.read_bytes() != old_cert) is renewed
    assert new.ca.read_bytes() == old_ca


def spoil_certificate(identity: Identity) -> None:
    identity.cert.write_bytes(identity.cert.read_bytes()[:100])


def lose_key(identity: Identity) -> None:
    identity.key.unlink()


def swap_key(identity: Identity) -> None:
    identity.key.write_bytes(identity.ca.with_name("ca.key").read_bytes())


def lose_authority(identity: Identity) -> None:
    identity.ca.unlink()


@pytest.mark.parametrize("damage", [spoil_certificate, lose_key, swap_key, lose_authority])
def test_a_damaged_identity_is_made_anew(tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    old = issue(tmp_path, ["chat"])["chat"]
    old_cert = old.cert.read_bytes()
    damage(old)

    new = issue(tmp_path, ["chat"])["chat"]

    read(new.cert).verify_directly_issued_by(read(new.ca))
    assert new.cert.read_bytes() != old_cert
