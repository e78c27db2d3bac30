"""The mutating decision: which labels a namespace gets while it is created or updated.

Pure. It adds what the tenant file says, on namespaces, on CREATE and UPDATE; where an admin moves a
namespace, it also removes what the former tenant's entry set. Labels that a request merely leaves
out, and only an admin may remove, are restored with a warning: a manifest without tenant labels can
be applied and replaced again and again. It never repairs what the request sets to another value: a
patch would hide the attempt from validate.py, which judges the object afterwards.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from generators.isolation.tenancy import left_behind
from generators.kyverno.model import Operation
from generators.labels import MODE_ANNOTATION, label_patch
from generators.tenants.assignment import assign, is_admin, reserved
from generators.tenants.model import TenantConfig
from webhook.review import (
    Decision,
    Denial,
    JSONObject,
    Malformed,
    Review,
    annotations_of,
    labels_of,
)

Labels = dict[str, str]
KEPT_WARNING = "is kept: it names the namespace's tenant, and only admins may remove it"


def decide(config: TenantConfig, review: Review) -> Decision:
    """The answer of /mutate. The same with dryRun: nothing is written here at all."""
    if not review.is_namespace or review.resource.subresource:
        return Decision("only namespaces are labelled")
    try:
        if review.operation is Operation.CREATE:
            return _create(config, review, labels_of(review.object))
        if review.operation is Operation.UPDATE:
            return _mended(config, review)
    except Malformed as error:
        return Decision(str(error), Denial.INVALID)
    return Decision(f"nothing to label on {review.operation}")


def _create(config: TenantConfig, review: Review, labels: Labels) -> Decision:
    """With generateName the name comes later: only what the requester alone decides is labelled
    now."""
    assignment = assign(config, review.name, labels, review.requester, generated=not review.name)
    if not assignment.allowed:
        return Decision(assignment.reason, Denial.FORBIDDEN, assignment.tenant)
    wanted, retired = dict(assignment.labels), _retired(config, {}, labels)
    decided = _patched(assignment.tenant, assignment.reason, labels, wanted, retired)
    return replace(decided, warnings=_gone(config, retired))


def _retired(config: TenantConfig, before: Labels, after: Labels) -> Labels:
    """Labels under former keys that the request brings: they would mislead."""
    keys = config.retired_label_keys
    return {k: v for k, v in after.items() if k in keys and before.get(k) != v}


def _gone(config: TenantConfig, retired: Labels) -> tuple[str, ...]:
    said = f"is left out: the tenant label is {config.label_key}; remove it from your manifest"
    return tuple(f"{key}={value} {said}" for key, value in sorted(retired.items()))


def _mended(config: TenantConfig, review: Review) -> Decision:
    """An update, after what it left out is put back."""
    before, after = labels_of(review.old_object), labels_of(review.object)
    retired = _retired(config, before, after)
    kept: Labels = {}
    mode: tuple[JSONObject, ...] = ()
    if not is_admin(config, review.requester) and not reserved(config, review.name):
        kept, mode = _left_out(config, before, after), _mode_again(review)
    mended = {k: v for k, v in (after | kept).items() if k not in retired}
    decided = _update(config, review, before, mended)
    patch = (*label_patch(after, kept, retired), *mode, *decided.patch)
    warnings = tuple(f"{k}={v} {KEPT_WARNING}" for k, v in kept.items())
    return replace(decided, patch=patch, warnings=(*warnings, *_gone(config, retired)))


def _left_out(config: TenantConfig, before: Labels, after: Labels) -> Labels:
    """Labels that tell the tenant, and are there before the request and not after it."""
    key = config.label_key
    tenant = config.tenants.get(before.get(key, ""))
    theirs = {} if tenant is None else dict(tenant.labels)
    if key not in before or after.get(key, before[key]) != before[key]:
        return {}
    wanted = theirs | {key: before[key]}
    return {k: v for k, v in sorted(wanted.items()) if k in before and k not in after}


def _mode_again(review: Review) -> tuple[JSONObject, ...]:
    """The patch that puts back the annotation of a namespace that is only audited."""
    was = annotations_of(review.old_object).get(MODE_ANNOTATION)
    after = annotations_of(review.object)
    if was is None or MODE_ANNOTATION in after:
        return ()
    if not after:
        whole = {MODE_ANNOTATION: was}
        return ({"op": "add", "path": "/metadata/annotations", "value": whole},)
    path = "/metadata/annotations/" + MODE_ANNOTATION.replace("/", "~1")
    return ({"op": "add", "path": path, "value": was},)


def _update(config: TenantConfig, review: Review, before: Labels, after: Labels) -> Decision:
    key = config.label_key
    if before.get(key) != after.get(key):
        if is_admin(config, review.requester) and not reserved(config, review.name):
            return _move(config, before, after)
        return Decision(f"the request changes label {key}; the validating webhook decides")
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
    """An admin's choice of another tenant. The controller finds the tenant of a namespace without
    label."""
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
