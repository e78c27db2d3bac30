"""When the webhook's certificates are renewed, and in which order; pure, on a clock passed in.

    new CA in the bundle ──► API servers trust both ──► leaf of the new CA ──► old CA expires

The controller keeps the result in a Secret, registers the bundle and writes the files. A leaf is
never served before its CA has been in the registered bundle for a while; `trusted` says which CAs
have. Unusable material (a key of another certificate, a leaf for other hosts, one made while the
clock was ahead) is replaced at once, because there is nothing left to lose.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from generators.certificates import (
    CLOCK_SKEW,
    Authority,
    Leaf,
    general_name,
    issue,
    new_authority,
    private_pem,
)
from generators.checks import Check, failed, good
from webhook.registration.certificates import secret_part

_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """In seconds; both are renewed after two thirds of their life."""

    authority: float = 365 * _DAY
    leaf: float = 60 * _DAY
    propagate: float = 120.0
    """How long a CA is registered before its leaf is served: a Secret takes that long to arrive."""


@dataclass(frozen=True, slots=True)
class ServedCertificate:
    """What webhooks serve, and the CAs that are to be trusted for it, newest first."""

    authorities: tuple[x509.Certificate, ...]
    leaf: Leaf

    @property
    def bundle(self) -> bytes:
        """All that is to be trusted, as PEM."""
        pem = serialization.Encoding.PEM
        return b"".join(authority.public_bytes(pem) for authority in self.authorities)

    @property
    def certificate(self) -> x509.Certificate:
        """The leaf."""
        return x509.load_pem_x509_certificate(self.leaf.certificate)

    def check(self, now: float) -> Check:
        """The leaf's life; `now` in seconds since the epoch."""
        until = self.certificate.not_valid_after_utc
        if until.timestamp() <= now:
            return failed(f"certificate expired at {until}")
        return good(f"certificate until {until}")


@dataclass(frozen=True, slots=True)
class KeptSecret(ServedCertificate):
    """What our own Secret holds: also the key of the first of `authorities`."""

    key: ec.EllipticCurvePrivateKey

    @property
    def newest(self) -> str:
        """Fingerprint of the CA that signs from now on."""
        return fingerprint(self.authorities[0])

    def data(self) -> dict[str, str]:
        """As `data` of a Secret."""
        parts = {
            "tls.crt": self.leaf.certificate,
            "tls.key": self.leaf.key,
            "ca.crt": self.bundle,
            "ca.key": private_pem(self.key),
        }
        return {name: base64.b64encode(part).decode("ascii") for name, part in parts.items()}


@dataclass(frozen=True, slots=True)
class RotationStep:
    """What to keep from now on; `why` is empty when nothing changes."""

    kept: KeptSecret
    why: str = ""


def fingerprint(certificate: x509.Certificate) -> str:
    """Names a certificate."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def read(data: Mapping[str, str]) -> KeptSecret | None:
    """What a Secret holds, if it can be served from."""
    authorities = _authorities(data)
    key = _private_key(secret_part(data, "ca.key"))
    leaf = Leaf(secret_part(data, "tls.crt"), secret_part(data, "tls.key"))
    if not authorities or key is None:
        return None
    kept = KeptSecret(authorities, leaf, key)
    serving = _private_key(leaf.key)
    try:
        sound = serving is not None and _belongs(serving, kept.certificate)
    except ValueError:
        return None
    return kept if sound else None


def next_step(
    data: Mapping[str, str],
    hosts: tuple[str, ...],
    now: datetime,
    lifetimes: Lifetimes,
    trusted: Callable[[str], bool],
) -> RotationStep:
    """One step of the rotation from what the Secret holds (empty = there is none)."""
    authorities = _live(_authorities(data), now)
    key = _private_key(secret_part(data, "ca.key"))
    if not authorities or key is None or not _belongs(key, authorities[0]):
        return _afresh(authorities, hosts, now, lifetimes, "no CA with its key")
    if authorities[0].not_valid_before_utc > now:
        return _afresh(authorities, hosts, now, lifetimes, "the CA is not valid yet")
    leaf = Leaf(secret_part(data, "tls.crt"), secret_part(data, "tls.key"))
    kept = KeptSecret(authorities, leaf, key)
    if defect := _defect(kept, hosts, now):
        return _reissue(kept, hosts, now, lifetimes, defect)
    pending = not _signed(kept.certificate, authorities[0])
    if pending and trusted(kept.newest):
        return _reissue(kept, hosts, now, lifetimes, "the new CA is trusted everywhere")
    if not pending and _due(authorities[0], now):
        fresh = new_authority(now, lifetimes.authority / _DAY)
        grown = replace(kept, authorities=(fresh.certificate, *authorities), key=fresh.key)
        return RotationStep(grown, "the CA is due for renewal")
    if _due(kept.certificate, now) and trusted(kept.newest):
        return _reissue(kept, hosts, now, lifetimes, "the certificate is due for renewal")
    forgotten = len(_authorities(data)) - len(authorities)
    return RotationStep(kept, "a CA has expired" if forgotten else "")


def _afresh(
    others: tuple[x509.Certificate, ...],
    hosts: tuple[str, ...],
    now: datetime,
    lifetimes: Lifetimes,
    why: str,
) -> RotationStep:
    """A new CA at once; webhooks that still serve a leaf of another one stay trusted."""
    authority = new_authority(now, lifetimes.authority / _DAY)
    leaf = issue(authority, hosts, now, _leaf_days(authority.certificate, now, lifetimes))
    return RotationStep(KeptSecret((authority.certificate, *others), leaf, authority.key), why)


def _reissue(
    kept: KeptSecret, hosts: tuple[str, ...], now: datetime, lifetimes: Lifetimes, why: str
) -> RotationStep:
    authority = Authority(kept.authorities[0], kept.key)
    leaf = issue(authority, hosts, now, _leaf_days(authority.certificate, now, lifetimes))
    return RotationStep(replace(kept, leaf=leaf), why)


def _leaf_days(authority: x509.Certificate, now: datetime, lifetimes: Lifetimes) -> float:
    """A leaf must not outlive its CA."""
    left = (authority.not_valid_after_utc - now).total_seconds()
    return min(lifetimes.leaf, left) / _DAY


def _due(certificate: x509.Certificate, now: datetime) -> bool:
    """Two thirds of its life are over; it was dated back when it was made."""
    made = certificate.not_valid_before_utc + CLOCK_SKEW
    life: timedelta = certificate.not_valid_after_utc - made
    return now >= made + life * 2 / 3


def _defect(kept: KeptSecret, hosts: tuple[str, ...], now: datetime) -> str:
    """Why the leaf cannot be served; empty when it can."""
    key = _private_key(kept.leaf.key)
    try:
        certificate = kept.certificate
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return "the certificate cannot be read"
    if key is None or not _belongs(key, certificate):
        return "the key does not belong to the certificate"
    if any(general_name(host) not in names for host in hosts):
        return f"the certificate is not for {', '.join(hosts)}"
    if certificate.not_valid_after_utc <= now:
        return "the certificate has expired"
    if certificate.not_valid_before_utc > now:
        return "the certificate is not valid yet"
    if not any(_signed(certificate, authority) for authority in kept.authorities):
        return "no CA of the bundle signed the certificate"
    return ""


def _signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _belongs(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> bool:
    der = serialization.Encoding.DER
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    ours = key.public_key().public_bytes(der, info)
    return ours == certificate.public_key().public_bytes(der, info)


def _live(found: tuple[x509.Certificate, ...], now: datetime) -> tuple[x509.Certificate, ...]:
    return tuple(c for c in found if c.not_valid_after_utc > now)


def _authorities(data: Mapping[str, str]) -> tuple[x509.Certificate, ...]:
    try:
        return tuple(x509.load_pem_x509_certificates(secret_part(data, "ca.crt")))
    except ValueError:
        return ()


def _private_key(pem: bytes) -> ec.EllipticCurvePrivateKey | None:
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, ec.EllipticCurvePrivateKey) else None
