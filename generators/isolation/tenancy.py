"""The tenant of an existing namespace: by record, label and name, and what proves the label.

Called by the controller for each namespace, and by `plan --kubeconfig`. Pure. The webhook decides
by requester and leaves its decision as a label; later readers must know whether the label passed
the webhook. That is the question `proven` answers (webhook/registration/guard.py asks the API
server); it is only asked where the answer matters.

    label                        | proven               | not proven
    -----------------------------|----------------------|------------------------------------
    what record or name say      | (not asked)          | (not asked)
    another tenant of the file   | that tenant          | set back to what record or name say
    a tenant that is not in file | held as it is        | set back
    none, though recorded        | the name decides     | set again

What is undecided is in quarantine, `quarantined`: a name that two tenants claim equally well, and a
namespace whose recorded tenant has left the file while no other claims its name. The latter keeps
label and record until it is deleted, an admin labels it for another tenant, or takes the label off,
which releases it.

A namespace that changes its tenant also loses the further labels that its former tenant's entry
set (`left_behind`); the record is what knows the former tenant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from generators.isolation.record import Basis, RecordEntry
from generators.objects import Namespace
from generators.tenants.assignment import Assignment, Outcome, assign_by_name
from generators.tenants.consents import Consent
from generators.tenants.model import Tenant, TenantConfig


class Finding(StrEnum):
    """Findings that get an Event on the namespace; also the Event's reason."""

    LABEL_SET_BACK = "TenantLabelSetBack"
    MOVED = "TenantChanged"
    UNKNOWN_TENANT = "UnknownTenant"
    TENANT_GONE = "TenantRemoved"
    AMBIGUOUS = "TenantAmbiguous"
    RELEASED = "TenantReleased"
    CLAIMED = "TenantAssigned"
    """An existing namespace becomes a tenant's by its name."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """The decision about one namespace."""

    assignment: Assignment
    basis: Basis = Basis.NAME
    finding: Finding | None = None
    held: bool = False
    """Nothing is to be written: the label waits in quarantine for a newer tenant file."""
    quarantined: bool = False
    """No tenant is decided: closed until an admin decides."""
    left_behind: frozenset[str] = frozenset()
    """Keys of labels that go, because the former tenant's entry set them."""
    consents: tuple[Consent, ...] = ()
    """What is recorded that its tenant agreed to; another tenant has agreed to nothing yet."""

    def entry(self, namespace: str) -> RecordEntry | None:
        """What the record should say."""
        tenant = self.assignment.tenant
        return None if tenant is None else RecordEntry(namespace, tenant, self.basis, self.consents)


def ownership(
    config: TenantConfig,
    namespace: Namespace,
    recorded: RecordEntry | None,
    proven: Callable[[], bool],
) -> Ownership:
    """Decide; `proven`: whether the label, as it is, passed the webhook."""
    decided = _decide(config, namespace, recorded, proven)
    now = decided.assignment.tenant
    if recorded is not None and now == recorded.tenant:
        decided = replace(decided, consents=recorded.consents)
    if recorded is None or decided.held or now == recorded.tenant:
        return decided
    former, latter = config.tenants.get(recorded.tenant), config.tenants.get(now or "")
    return replace(decided, left_behind=left_behind(namespace.labels, former, latter))


def left_behind(
    labels: Mapping[str, str], former: Tenant | None, latter: Tenant | None
) -> frozenset[str]:
    """Which of the labels the former tenant's entry set and the latter's does not.

    A label with another value was set by someone else and stays.
    """
    theirs = {} if former is None else former.labels
    kept = {} if latter is None else latter.labels
    return frozenset(k for k, v in theirs.items() if labels.get(k) == v and k not in kept)


def _decide(
    config: TenantConfig,
    namespace: Namespace,
    recorded: RecordEntry | None,
    proven: Callable[[], bool],
) -> Ownership:
    named = assign_by_name(config, namespace.name)
    label = namespace.labels.get(config.label_key)
    if named.outcome is Outcome.RESERVED:
        lies = Finding.LABEL_SET_BACK if label is not None else None
        return Ownership(named, finding=lies)
    standing = _standing(config, named, recorded)
    if label == standing.assignment.tenant:
        return standing
    if recorded is not None and label == recorded.tenant:
        # The projection of what was agreed so far, not somebody's new wish.
        return standing
    if label is None:
        withdrawable = standing.basis is Basis.ADMISSION or standing.quarantined
        if recorded is None:
            return replace(standing, finding=Finding.CLAIMED)
        if not withdrawable or not proven():
            return standing
        return _by_name(named, Finding.RELEASED if standing.quarantined else Finding.MOVED)
    if not proven():
        return replace(standing, finding=Finding.LABEL_SET_BACK)
    if label not in config.tenants:
        return Ownership(standing.assignment, standing.basis, Finding.UNKNOWN_TENANT, held=True)
    moved = Finding.MOVED if recorded is not None else None
    reason = f"admission let label {config.label_key}={label} pass"
    return Ownership(_assigned(config, namespace.name, label, reason), Basis.ADMISSION, moved)


def _standing(config: TenantConfig, named: Assignment, recorded: RecordEntry | None) -> Ownership:
    """What holds when the label is not believed."""
    if recorded is None:
        return _by_name(named, None)
    if recorded.tenant not in config.tenants and named.tenant is None:
        return _gone(config, recorded)
    if recorded.tenant not in config.tenants:
        return Ownership(named, finding=Finding.TENANT_GONE)
    # A tie of names is a mistake in the file; it must not take down a wall that stands.
    if recorded.basis is Basis.ADMISSION or named.outcome is Outcome.AMBIGUOUS:
        reason = "the record says so"
        assigned = _assigned(config, recorded.namespace, recorded.tenant, reason)
        return Ownership(assigned, recorded.basis)
    changed = named.tenant != recorded.tenant
    return Ownership(named, finding=Finding.MOVED if changed else None)


def _by_name(named: Assignment, finding: Finding | None) -> Ownership:
    if named.outcome is Outcome.AMBIGUOUS:
        return Ownership(named, finding=Finding.AMBIGUOUS, quarantined=True)
    return Ownership(named, finding=finding)


def _gone(config: TenantConfig, recorded: RecordEntry) -> Ownership:
    reason = (
        f"tenant {recorded.tenant} is not in {config.file} any more; delete the namespace, label it"
        f" for another tenant, or `ringfence namespace label {recorded.namespace} --release`"
    )
    labels = {config.label_key: recorded.tenant}
    held = Assignment(recorded.namespace, recorded.tenant, Outcome.ASSIGNED, reason, labels)
    return Ownership(held, recorded.basis, Finding.TENANT_GONE, quarantined=True)


def _assigned(config: TenantConfig, namespace: str, tenant: str, reason: str) -> Assignment:
    labels = {config.label_key: tenant, **config.tenants[tenant].labels}
    return Assignment(namespace, tenant, Outcome.ASSIGNED, reason, dict(sorted(labels.items())))
