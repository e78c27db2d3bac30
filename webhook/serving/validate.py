"""The validating decision: what only admins and our own controller may do to tenancy.

Pure. Judges the old and the new object and the requester, never the kind of patch that led there,
on the namespace itself and on its `status` and `finalize`, also while the namespace is being
deleted. What was wrong before the request and stays as it was is allowed with a warning: refusing
it would block the repair of the namespace.
"""

from __future__ import annotations

from generators.kyverno.model import Operation
from generators.labels import AUDIT_MODE, GRANTS_ANNOTATION, MANAGED_BY, MANAGER, MODE_ANNOTATION
from generators.tenants.assignment import (
    Requester,
    assign,
    assign_by_name,
    is_admin,
    reserved,
)
from generators.tenants.consents import UnclearConsent, parse_consents, unusable
from generators.tenants.model import Tenant, TenantConfig
from webhook.review import (
    Decision,
    Denial,
    Malformed,
    Review,
    annotations_of,
    labels_of,
)
from webhook.settings import DEFAULT_CONTROLLER

CLEANERS = frozenset(
    {
        "system:serviceaccount:kube-system:namespace-controller",
        "system:serviceaccount:kube-system:generic-garbage-collector",
    }
)
"""Kubernetes' own controllers that empty a namespace which is being deleted."""

SHOWN_DIGEST = 12
"""How much of a tenant file's digest a message shows."""

NAMED_TENANTS = 10
"""How many tenants a message lists."""

Labels = dict[str, str]


def decide(config: TenantConfig, review: Review, controller: str = DEFAULT_CONTROLLER) -> Decision:
    """The answer of /validate; `controller` is the username of Ringfence's own controller."""
    try:
        before, after = labels_of(review.old_object), labels_of(review.object)
        if review.is_network_policy:
            return _network_policy(config, review, controller, before, after)
        if not review.is_namespace:
            return Decision("not a kind that Ringfence protects")
        if refused := (
            _mode(config, review, controller)
            or _grants(config, review)
            or _retired(config, before, after)
        ):
            return refused
        if review.operation is Operation.CREATE:
            return _create(config, review, after)
        if review.operation is Operation.UPDATE:
            trusted = _trusted(config, review.requester, controller)
            return _update(config, review, before, after, trusted)
    except Malformed as error:
        return Decision(str(error), Denial.INVALID)
    return Decision(f"{review.operation} does not change a tenant")


def not_read(file: str, newest: TenantConfig) -> Decision:
    """The answer of a replica that has not read the tenant file that is registered."""
    here, asked = newest.digest[:SHOWN_DIGEST], file[:SHOWN_DIGEST]
    what = f"tenant file {asked} is registered, but this webhook has only read {here}"
    fix = "try again in a minute; if it persists, see the log of Ringfence's controller"
    return Decision(f"{what}; {fix}", Denial.NOT_YET)


def closed(config: TenantConfig, review: Review) -> Decision:
    """The answer while the key of the tenant label changes: no tenant is decided."""
    if not review.is_namespace or review.operation not in (Operation.CREATE, Operation.UPDATE):
        return Decision("does not change a tenant")
    what = f'namespace "{review.name}": the tenant label is just changing to {config.label_key}'
    return Decision(f"{what}; try again in a few seconds", Denial.NOT_YET)


def _mode(config: TenantConfig, review: Review, controller: str) -> Decision | None:
    """A namespace under audit is open: only admins may ask for that, or end it."""
    was = annotations_of(review.old_object).get(MODE_ANNOTATION)
    now = annotations_of(review.object).get(MODE_ANNOTATION)
    if review.operation not in (Operation.CREATE, Operation.UPDATE) or was == now:
        return None
    attempt = f'namespace "{review.name}": annotation {MODE_ANNOTATION}'
    if now not in (None, AUDIT_MODE):
        fix = f"write {AUDIT_MODE}, or leave the annotation out"
        return Decision(f"{attempt}: unknown mode {now}; {fix}", Denial.INVALID)
    if _trusted(config, review.requester, controller):
        return None
    why = f"only admins of {config.file} may change whether a namespace is audited only"
    return Decision(f"{attempt} is refused: {why}; ask an admin", Denial.FORBIDDEN)


def _grants(config: TenantConfig, review: Review) -> Decision | None:
    """What a tenant consents to by itself is the word of its members, and of admins."""
    was = annotations_of(review.old_object).get(GRANTS_ANNOTATION, "")
    now = annotations_of(review.object).get(GRANTS_ANNOTATION, "")
    if review.operation not in (Operation.CREATE, Operation.UPDATE) or was == now:
        return None
    attempt = f'namespace "{review.name}": annotation {GRANTS_ANNOTATION}'
    try:
        said = set(parse_consents(now))
    except UnclearConsent as error:
        return Decision(f"{attempt}: {error}", Denial.INVALID)
    try:
        former = set(parse_consents(was))
    except UnclearConsent:
        former = set()
    for consent in sorted(said - former, key=str):
        if wrong := unusable(config, consent):
            return Decision(f'{attempt} is refused: "{consent}": {wrong}', Denial.FORBIDDEN)
    if is_admin(config, review.requester):
        return None
    requester = review.requester
    member_of = {m.tenant for m in config.memberships(requester.username, requester.groups)}
    for consent in sorted(said ^ former, key=str):
        if consent.tenant not in member_of:
            why = f'"{consent}" is the word of tenant {consent.tenant}'
            fix = f"only its members in {config.file} and admins may give or take it back; ask one"
            return Decision(f"{attempt} is refused: {why}; {fix}", Denial.FORBIDDEN)
    return None


def _retired(config: TenantConfig, before: Labels, after: Labels) -> Decision | None:
    """Former keys of the tenant label: users' policies may still select them."""
    for key in sorted(config.retired_label_keys):
        if key in after and after[key] != before.get(key):
            what = f"label {key}={after[key]} is refused: {config.file} has retired that key"
            fix = f"the tenant label is {config.label_key}; leave {key} out"
            return Decision(f"{what}; {fix}", Denial.FORBIDDEN)
    return None


def _trusted(config: TenantConfig, requester: Requester, controller: str) -> bool:
    return is_admin(config, requester) or requester.username == controller


def _create(config: TenantConfig, review: Review, labels: Labels) -> Decision:
    """Assigns again, on the final object: with generateName the name was not known to /mutate.

    `assign` refuses a label that is not the tenant's. The controller sets a missing one where the
    name decides; where the requester does, only the label can tell.
    """
    if not review.name:
        return Decision(
            "the namespace has no name, so its tenant is unknown; give it one", Denial.INVALID
        )
    assignment = assign(config, review.name, labels, review.requester)
    if not assignment.allowed:
        return Decision(assignment.reason, Denial.FORBIDDEN, assignment.tenant)
    late = sorted(k for k, v in assignment.labels.items() if labels.get(k) != v)
    named = assign_by_name(config, review.name).tenant
    if config.label_key in late and assignment.tenant != named:
        missing = f"{config.label_key}={assignment.tenant}"
        fix = "set it or try again"
        why = f"{assignment.reason}, but label {missing} is missing; {fix}"
        return Decision(why, Denial.NOT_YET, assignment.tenant)
    warnings = (f"not labelled yet: {', '.join(late)}; the controller will do it",) if late else ()
    return Decision(assignment.reason, tenant=assignment.tenant, warnings=warnings)


def _update(
    config: TenantConfig, review: Review, before: Labels, after: Labels, trusted: bool
) -> Decision:
    was, now = before.get(config.label_key), after.get(config.label_key)
    if was != now:
        return _move(config, review.name, was, now, trusted)
    if now is None:
        return Decision("the namespace belongs to no tenant before and after")
    if owner := reserved(config, review.name):
        stray = f"{owner}; an admin should remove label {config.label_key}"
        return Decision("unchanged", warnings=(stray,))
    tenant = config.tenants.get(now)
    if tenant is None:
        unknown = f"label {config.label_key}={now} names no tenant of {config.file}"
        return Decision("unchanged", warnings=(f"{unknown}; an admin should correct it",))
    return _further_labels(config, review.name, tenant, before, after, trusted)


def _move(
    config: TenantConfig, name: str, was: str | None, now: str | None, trusted: bool
) -> Decision:
    """The request adds, changes or removes the tenant label."""
    attempt = f'namespace "{name}": {_attempt(config.label_key, was, now)}'
    if now is not None and (owner := reserved(config, name)):
        said = f"{_attempt(config.label_key, was, now)} is refused: {owner}"
        fix = f"it belongs to no tenant of {config.file}; leave the label out"
        return Decision(f"{said}; {fix}", Denial.FORBIDDEN)
    if not trusted:
        why = f"{_owner(config, was)}, and only admins of {config.file} may change that"
        fix = "undo this change of the label or ask an admin"
        return Decision(f"{attempt} is refused: {why}; {fix}", Denial.FORBIDDEN, was)
    if now is not None and now not in config.tenants:
        known = ", ".join(list(config.tenants)[:NAMED_TENANTS])
        why = f"{config.file} has no tenant {now}"
        fix = f"add it there first or take one of: {known}"
        return Decision(f"{attempt} is refused: {why}; {fix}", Denial.FORBIDDEN, was)
    audit = {"tenant-before": was or "", "tenant-after": now or ""}
    return Decision(f"{attempt} by an admin or the controller", tenant=now, audit=audit)


def _attempt(key: str, was: str | None, now: str | None) -> str:
    if was is None:
        return f"adding label {key}={now}"
    if now is None:
        return f"removing label {key}={was}"
    return f"changing label {key} from {was} to {now}"


def _owner(config: TenantConfig, was: str | None) -> str:
    """The namespace's tenant and the line that says so."""
    if was is None:
        return "it belongs to no tenant"
    tenant = config.tenants.get(was)
    where = f" ({config.place(tenant.line)})" if tenant is not None else ""
    return f"it belongs to tenant {was}{where}"


def _further_labels(
    config: TenantConfig,
    name: str,
    tenant: Tenant,
    before: Labels,
    after: Labels,
    trusted: bool,
) -> Decision:
    """Labels that the tenant file sets beside the tenant label may be set right, not changed."""
    changed = sorted(
        key
        for key, value in tenant.labels.items()
        if after.get(key) != before.get(key) and after.get(key) != value
    )
    if not changed:
        return Decision("the tenant stays as it was", tenant=tenant.name)
    set_by = f"set by {config.place(tenant.line)} for tenant {tenant.name}"
    listed = ", ".join(f"{key}={tenant.labels[key]}" for key in changed)
    if trusted:
        warning = f"{listed} is {set_by} and will be set back"
        return Decision("an admin changes labels of the tenant", None, tenant.name, (), (warning,))
    message = f'namespace "{name}": {listed} is {set_by}; undo the change or ask an admin'
    return Decision(message, Denial.FORBIDDEN, tenant.name)


def _network_policy(
    config: TenantConfig, review: Review, controller: str, before: Labels, after: Labels
) -> Decision:
    """Generated NetworkPolicies, known by their label on the old or the new object, are
    Ringfence's."""
    if MANAGER not in (before.get(MANAGED_BY), after.get(MANAGED_BY)):
        return Decision("not a generated NetworkPolicy")
    user = review.requester.username
    if review.operation is Operation.DELETE and user in CLEANERS:
        return Decision("cleaned up with its namespace")
    policy = f"NetworkPolicy {review.namespace}/{review.name}"
    if user == controller:
        return Decision("written by the controller")
    if is_admin(config, review.requester):
        return Decision("an admin may", warnings=(f"{policy} is generated and will be set back",))
    if before.get(MANAGED_BY) == MANAGER:
        why = f"{policy} is generated from {config.file} and must not be changed or deleted"
        fix = "add a NetworkPolicy of your own beside it, or ask an admin to change the tenant file"
    else:
        why = f"{policy}: label {MANAGED_BY}={MANAGER} marks generated policies"
        fix = "leave that label out"
    return Decision(f"{why}; {fix}", Denial.FORBIDDEN)
