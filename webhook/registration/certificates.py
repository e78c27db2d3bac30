"""Certificates for the webhook: a CA of its own, and a leaf for the names it is called by.

Pure values from a clock that is passed in; `write_files` is the shell. Used by rotation.py, which
keeps the certificates of a cluster fresh, and by `ringfence webhook certificates` for a webhook
that no controller looks after; there the CA's key is not kept.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

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
    """A serving certificate and its key, as PEM."""

    certificate: bytes
    key: bytes


def new_authority(now: datetime, days: float) -> Authority:
    """A fresh CA, valid from an hour before `now`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ringfence webhook CA")])
    usage = _key_usage(sign_certificates=True)
    certificate = (
        _builder(name, name, key.public_key(), now, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def issue(authority: Authority, hosts: tuple[str, ...], now: datetime, days: float) -> Leaf:
    """A leaf for `hosts` (DNS names and addresses). ValueError names a host that is neither."""
    names = [general_name(host) for host in hosts]
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:LONGEST_COMMON_NAME])])
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    certificate = (
        _builder(subject, authority.certificate.subject, key.public_key(), now, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(issuer_key, critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return Leaf(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


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


def write_files(directory: Path, bundle: bytes, leaf: Leaf) -> None:
    """Write ca.crt, tls.key (readable by its owner alone) and tls.crt, each at one stroke.

    A server that watches them sees key and certificate disagree for a moment, and waits for both.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / "ca.crt", bundle, 0o644)
    _write(directory / "tls.key", leaf.key, 0o600)
    _write(directory / "tls.crt", leaf.certificate, 0o644)


def _write(path: Path, data: bytes, mode: int) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        beside.rename(path)
    finally:
        beside.unlink(missing_ok=True)
