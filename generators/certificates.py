"""The one maker of certificates: a CA, and what it signs for servers and for clients.

Pure values from a clock that is passed in. Used for the webhook and for the API server of a lab.
ECDSA P-256 throughout: a key takes a millisecond, RSA would take longer than a lab's whole start.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLOCK_SKEW = timedelta(hours=1)
"""How far the clocks of a cluster may differ: certificates are valid from that long ago."""

DNS_NAME = re.compile(r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
LONGEST_NAME = 253
LONGEST_COMMON_NAME = 64


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA that signs leaves."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate that clients trust (`caBundle`)."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh key."""
    return ec.generate_private_key(ec.SECP256R1())


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A key as PEM, as Go reads it."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def new_authority(
    now: datetime, days: float, common_name: str = "ringfence webhook CA"
) -> Authority:
    """A fresh CA, valid from an hour before `now`."""
    key = new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    usage = _key_usage(sign_certificates=True)
    certificate = (
        _builder(name, name, key.public_key(), now, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def issue(authority: Authority, hosts: Sequence[str], now: datetime, days: float) -> Leaf:
    """A leaf for `hosts` (DNS names and addresses). ValueError names a host that is neither."""
    names = x509.SubjectAlternativeName([general_name(host) for host in hosts])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:LONGEST_COMMON_NAME])])
    return _leaf(authority, subject, (ExtendedKeyUsageOID.SERVER_AUTH, names), now, days)


def issue_client(
    authority: Authority, user: str, groups: Sequence[str], now: datetime, days: float
) -> Leaf:
    """A client's leaf: CN is the user, each O a group, as the API server reads them."""
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    subject = x509.Name([*names, x509.NameAttribute(NameOID.COMMON_NAME, user)])
    return _leaf(authority, subject, (ExtendedKeyUsageOID.CLIENT_AUTH,), now, days)


def _leaf(
    authority: Authority,
    subject: x509.Name,
    purpose: tuple[x509.ObjectIdentifier, *tuple[x509.SubjectAlternativeName, ...]],
    now: datetime,
    days: float,
) -> Leaf:
    """Signed for a purpose, with the names that go with it."""
    key = new_key()
    usage, *names = purpose
    builder = (
        _builder(subject, authority.certificate.subject, key.public_key(), now, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )
    for each in names:
        builder = builder.add_extension(each, critical=False)
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    certificate = builder.add_extension(issuer_key, critical=False).sign(
        authority.key, hashes.SHA256()
    )
    return Leaf(certificate.public_bytes(serialization.Encoding.PEM), private_pem(key))


def general_name(host: str) -> x509.GeneralName:
    """`host` as a subject alternative name. The API server looks nowhere else."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if len(host) > LONGEST_NAME or not DNS_NAME.match(host):
            raise ValueError(f"{host!r} is neither a DNS name nor an address") from None
        return x509.DNSName(host)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    days: float,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )
