"""The webhook's certificate when made by cert-manager or an administrator.

Asked by controller/keeper.py, which registers the CAs. Pure. An issuer swaps CA and leaf at once,
but webhooks serve the old leaf until the Secret has reached them: so a CA that has left the Secret
stays trusted for a while, which `Overlap` counts on a clock passed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from generators.certificates import Leaf, general_name
from generators.errors import RingfenceError
from webhook.registration.certificates import secret_part
from webhook.registration.rotation import ServedCertificate, fingerprint

PARTS = ("tls.crt", "tls.key", "ca.crt")


class NotIssued(RingfenceError):
    """The Secret holds nothing that webhooks could serve."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """CAs seen in the Secret, newest first, and until when those that left it stay trusted."""

    until: tuple[tuple[x509.Certificate, float], ...] = ()

    def seen(self, authorities: tuple[x509.Certificate, ...], now: float, grace: float) -> Overlap:
        """After a look at the Secret at `now`."""
        fresh = {fingerprint(authority) for authority in authorities}
        kept = [(a, end) for a, end in self.until if fingerprint(a) not in fresh and end > now]
        return Overlap((*((a, now + grace) for a in authorities), *kept))

    @property
    def authorities(self) -> tuple[x509.Certificate, ...]:
        """All that are to be trusted."""
        return tuple(authority for authority, _ in self.until)


def read_issued(
    data: Mapping[str, str], hosts: tuple[str, ...], now: datetime, name: str
) -> ServedCertificate:
    """What a Secret maintained by another tool holds; NotIssued says what is wrong with it."""
    parts = [secret_part(data, part) for part in PARTS]
    if missing := [name for name, part in zip(PARTS, parts, strict=True) if not part]:
        raise NotIssued(f"Secret {name} has no {', '.join(missing)}; wait for its issuer or add it")
    certificate, key, bundle = parts
    try:
        served = ServedCertificate(
            tuple(x509.load_pem_x509_certificates(bundle)), Leaf(certificate, key)
        )
        leaf = served.certificate
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound) as error:
        raise NotIssued(f"Secret {name} holds no certificate with names: {error}") from error
    # The API server asks for the first; the others are for people.
    if general_name(hosts[0]) not in names:
        raise NotIssued(
            f"the certificate in Secret {name} is not for {hosts[0]}; issue it for that"
        )
    if leaf.not_valid_after_utc <= now:
        raise NotIssued(f"the certificate in Secret {name} has expired; renew it")
    return served
