"""Whether a ClusterPolicy or Policy may be stored: the answer of /validate-policies.

Pure. What could never be taken into force is refused where its author sees it; the book of policies
refuses it in any case, so nothing depends on this answer. So is what upstream's admission refuses.
Rules of types that are not carried out get a warning, and so does a change that collects what was
generated. Changes of a policy's metadata or status only are allowed, and so is everything while a
Kyverno executes the policies: its limits are not ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from generators.documents.json import items, mapping, mappings, text, value_of
from generators.errors import InputError
from generators.kyverno.admissible import advice, objections
from generators.kyverno.limits import Limits
from generators.kyverno.model import Document, Policy, Unsupported
from generators.kyverno.offline.loading import policy_from
from generators.kyverno.vetting import vetted
from generators.objects import Origin
from webhook.policies.book import Policies
from webhook.review import Decision, Denial, Review

GROUP = "kyverno.io"
PARTS = ("apiVersion", "kind", "metadata", "spec")


def decide(policies: Policies, limits: Limits, review: Review) -> Decision:
    """Refused, or allowed with warnings."""
    sent, old = review.object, review.old_object
    if review.resource.group != GROUP or review.resource.subresource or sent is None:
        return Decision("the request writes no policy")
    if policies.standing_back:
        return Decision("Kyverno validates its own policies", warnings=(policies.standing_back,))
    if old is not None and old.get("spec") == sent.get("spec"):
        return Decision("the rules do not change")
    name = f"{review.namespace}/{review.name}" if review.namespace else review.name
    try:
        policy = policy_from(_named(review, sent), Origin(f"{review.kind} {name}", 1))
    except InputError as error:
        return Decision(str(error), Denial.INVALID)
    spec = mapping(value_of(sent), "spec")
    refused = [*_given_twice(spec), *map(str, objections(policy))]
    if refused:
        return Decision(f"policy {policy.key}: {'; '.join(refused)}", Denial.INVALID)
    changes = tuple(_collecting(mapping(value_of(old if old is not None else {}), "spec"), spec))
    return _judged(policy, limits, (*changes, *(str(each) for each in advice(policy))))


_SECONDS = range(1, 31)


def _given_twice(spec: Document) -> Iterator[str]:
    """Deprecated fields beside their successors, as upstream refuses them."""
    webhook = mapping(spec, "webhookConfiguration")
    for older, newer in (("webhookTimeoutSeconds", "timeoutSeconds"), ("failurePolicy",) * 2):
        if older in spec and newer in webhook:
            yield f"spec.{older}: remove it and use spec.webhookConfiguration.{newer}"
    if "generateExistingOnPolicyUpdate" in spec:
        yield "spec.generateExistingOnPolicyUpdate: remove it and use generate.generateExisting"
    for seconds in (spec.get("webhookTimeoutSeconds"), webhook.get("timeoutSeconds")):
        if isinstance(seconds, int) and seconds not in _SECONDS:
            yield "the timeout of a webhook is between 1 and 30 seconds"
    for rule in mappings(spec, "rules"):
        mutate = mapping(rule, "mutate")
        if spec.get("mutateExistingOnPolicyUpdate") and mutate and not items(mutate, "targets"):
            name = text(rule, "name")
            yield f"rule {name}: mutateExistingOnPolicyUpdate needs mutate.targets"


_PATTERN = ("apiVersion", "kind", "name", "namespace", "clone", "cloneList")


def _collecting(before: Document, after: Document) -> Iterator[str]:
    """Warnings of changes after which objects that were generated go, or are left behind.

    Upstream refuses changes of match and preconditions and leaves the objects: here they follow.
    """
    kept = {text(rule, "name"): rule for rule in mappings(after, "rules")}
    for rule in mappings(before, "rules"):
        old, name = mapping(rule, "generate"), text(rule, "name")
        new = mapping(kept.get(name, {}), "generate")
        if not old or not new:
            continue
        fate = "is deleted" if old.get("synchronize") is True and "clone" not in old else "stays"
        if [old.get(key) for key in _PATTERN] != [new.get(key) for key in _PATTERN]:
            yield f"rule {name} generates something else now; what it generated before {fate}"
        elif _but_generate(rule) != _but_generate(kept[name]) and old.get("synchronize") is True:
            yield (
                f"rule {name} is for other triggers now; what it made for those that no longer "
                "fit is deleted"
            )


def _but_generate(rule: Document) -> Document:
    return {key: value for key, value in rule.items() if key != "generate"}


def _named(review: Review, sent: Mapping[str, object]) -> dict[str, object]:
    kept = {key: sent[key] for key in PARTS if key in sent}
    return {"apiVersion": review.resource.api_version, "kind": review.kind} | kept


def _judged(policy: Policy, limits: Limits, warnings: tuple[str, ...]) -> Decision:
    found = vetted(policy, limits)
    if found.refused:
        told = "; ".join(
            f"rule {rule.name}: {reason}" for rule, reasons in found.refused for reason in reasons
        )
        return Decision(f"policy {policy.key}: {told}", Denial.FORBIDDEN)
    left = tuple(
        f"rule {rule.name} is not carried out by Ringfence: {reason.what}"
        for rule in policy.rules
        if isinstance(rule.action, Unsupported)
        for reason in rule.action.reasons
    )
    return Decision("the policy can be carried out", warnings=(*warnings, *left))
