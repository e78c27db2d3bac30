"""Checks of the controller's /readyz, each of a value."""

from __future__ import annotations

from generators.checks import Check, bridged, failed, good
from generators.kube.lease import Standing
from webhook.registration.rotation import Served


def of_standby(standing: Standing) -> Check:
    """A candidate that does not lead. One that held the Lease last has lost it, and is nobody's
    standby; of another holder the word may be old."""
    silence = f"the API server has not answered for the Lease for {standing.silent:.0f} s"
    if standing.ours or not standing.holder:
        return failed("no leader is known", silence if standing.stale else "")
    if standing.stale:
        return bridged(f"standby; {standing.holder} led when it was last heard, {silence}")
    return good(f"standby of {standing.holder}")


def of_certificate(kept: Served | None, now: float) -> Check:
    """The webhook's certificate; `now` in seconds since the epoch."""
    if kept is None:
        return failed("certificate", "there is none yet")
    until = kept.certificate.not_valid_after_utc
    expired = until.timestamp() <= now
    return (
        failed(f"certificate expired at {until}") if expired else good(f"certificate until {until}")
    )
