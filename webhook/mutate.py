"""The mutating decision: which labels a namespace gets while it is created or updated.

Pure. It adds what the tenant file says, on namespaces, on CREATE and UPDATE; where an admin moves a
namespace, it also removes what the former tenant's entry set. It never repairs what the request
itself changes: a patch would hide the attempt from validate.py, which judges the object afterwards.
"""

from __future__ import annotations

from collections.abc import Collection

from generators.labels import label_patch
from generators.tenancy import left_behind
from generators.tenants.assignment import assign, is_admin, reserved
from generators.tenants.model import TenantConfig
from webhook.review import Decision, Denial, Malformed, Operation, Review, labels_of

Labels = dict[str, str]


def decide(config: TenantConfig, review: Review) -> Decision:
    """The answer of /mutate. The same with dryRun: nothing is written here at all."""
    if not review.is_namespace or review.resource.subresource:
        return Decision("only namespaces are labelled")
    try:
        if review.operation is Operation.CREATE:
            return _create(config, review, labels_of(review.object))
        if review.operation is Operation.UPDATE:
            return _update(config, review, labels_of(review.old_object), labels_of(review.object))
    except Malformed as error:
        return Decision(str(error), Denial.INVALID)
    return Decision(f"nothing to label on {review.operation}")


def _create(config: TenantConfig, review: Review, labels: Labels) -> Decision:
    """With generateName the name comes later: only what the requester alone decides is labelled
    now."""
    assignment = assign(config, review.name, labels, review.requester, generated=not review.name)
    if not assignment.allowed:
        return Decision(assignment.reason, Denial.FORBIDDEN, assignment.tenant)
    return _patched(assignment.tenant, assignment.reason, labels, dict(assignment.labels))


def _update(config: TenantConfig, review: Review, before: Labels, after: Labels) -> Decision:
    key = config.label_key
    if before.get(key) != after.get(key):
        if is_admin(config, review.requester) and not reserved(config, review.name):
            return _move(config, before, after)
        return Decision(f"the request changes label {key}; the validating webhook judges that")
    if owner := reserved(config, review.name):
        return Decision(f"{owner}; left as it is")
    tenant = config.tenants.get(after.get(key, ""))
    if tenant is not None:
        wanted, name, why = dict(tenant.labels), tenant.name, "labels of the tenant"
    elif is_admin(config, review.requester):
        unlabelled = {k: v for k, v in after.items() if k != key}
        assignment = assign(config, review.name, unlabelled, review.requester)
        if assignment.tenant is None:
            return Decision(assignment.reason)
        wanted, name, why = dict(assignment.labels), assignment.tenant, assignment.reason
    else:
        return Decision("the namespace belongs to no tenant, and only an admin may change that")
    untouched = {k: v for k, v in wanted.items() if k == key or before.get(k) == after.get(k)}
    return _patched(name, why, after, untouched)


def _move(config: TenantConfig, before: Labels, after: Labels) -> Decision:
    """An admin's choice of another tenant. Whose a namespace without label is, the controller
    finds out."""
    former = config.tenants.get(before.get(config.label_key, ""))
    latter = config.tenants.get(after.get(config.label_key, ""))
    if latter is None:
        return Decision(f"an admin withdraws label {config.label_key} or names an unknown tenant")
    same = {k: v for k, v in after.items() if before.get(k) == v}
    wanted = {k: v for k, v in latter.labels.items() if before.get(k) == after.get(k)}
    gone = left_behind(same, former, latter)
    return _patched(latter.name, "an admin moves the namespace", after, wanted, gone)


def _patched(
    tenant: str | None, why: str, labels: Labels, wanted: Labels, gone: Collection[str] = ()
) -> Decision:
    patch = tuple(label_patch(labels, wanted, gone))
    audit = {"tenant": tenant, "because": why} if tenant is not None and patch else {}
    return Decision(why, tenant=tenant, patch=patch, audit=audit)
