"""Lines of the controller's /readyz, each of a value: `[+]` good, `[!]` bridged, `[-]` not good."""

from __future__ import annotations

from collections.abc import Iterable

from generators.kube.lease import Standing
from generators.kube.reflector import ReflectorStats
from webhook.reload import TenantFile
from webhook.rotation import Served


def of_file(tenants: TenantFile) -> list[str]:
    """The tenant file: the one on disk, or the last good one."""
    if tenants.problem:
        stays = f"{tenants.config.digest} stays in force"
        return [f"[!]config refused, {stays}: {tenants.problem}"]
    return [f"[+]config ok: {tenants.config.digest}"]


def of_copies(followed: Iterable[ReflectorStats]) -> list[str]:
    """What is wrong with the copies of resources; nothing about those that are current."""
    lines = []
    for stats in followed:
        if stats.forbidden:
            lines.append(f"[-]{stats.resource}: the API server forbids to follow it")
        elif not stats.synced:
            lines.append(f"[-]{stats.resource}: not synced")
        elif not stats.connected:
            age = stats.last_event_age
            lines.append(f"[!]{stats.resource}: no word from the API server for {age:.0f} s")
    return lines


def of_standby(standing: Standing) -> str:
    """A candidate that does not lead. One that held the Lease last has lost it, and is nobody's
    standby; of another holder the word may be old."""
    silence = f"the API server has not answered for the Lease for {standing.silent:.0f} s"
    if standing.ours or not standing.holder:
        return f"[-]no leader is known: {silence}" if standing.stale else "[-]no leader is known"
    if standing.stale:
        return f"[!]standby; {standing.holder} led when it was last heard, {silence}"
    return f"[+]standby of {standing.holder}"


def of_certificate(kept: Served | None, now: float) -> list[str]:
    """The webhook's certificate; `now` in seconds since the epoch."""
    if kept is None:
        return ["[-]certificate: there is none yet"]
    until = kept.certificate.not_valid_after_utc
    expired = until.timestamp() <= now
    return [f"[-]certificate expired at {until}" if expired else f"[+]certificate until {until}"]
