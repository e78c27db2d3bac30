"""Whether a ClusterPolicy or Policy may be stored: the answer of /validate-policies.

Pure. What could never be taken into force is refused where its author sees it; the book of policies
refuses it in any case, so nothing depends on this answer. Rules of types that are not carried out
get a warning. Changes of a policy's metadata or status only are allowed, and so is everything while
a Kyverno executes the policies: its limits are not ours.
"""

from __future__ import annotations

from collections.abc import Mapping

from generators.errors import InputError
from generators.kyverno.limits import Limits
from generators.kyverno.model import Policy, Unsupported
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
    return _judged(policy, limits)


def _named(review: Review, sent: Mapping[str, object]) -> dict[str, object]:
    kept = {key: sent[key] for key in PARTS if key in sent}
    return {"apiVersion": review.resource.api_version, "kind": review.kind} | kept


def _judged(policy: Policy, limits: Limits) -> Decision:
    found = vetted(policy, limits)
    if found.refused:
        told = "; ".join(
            f"rule {rule.name}: {reason}" for rule, reasons in found.refused for reason in reasons
        )
        return Decision(f"policy {policy.key}: {told}", Denial.FORBIDDEN)
    warnings = tuple(
        f"rule {rule.name} is not carried out by Ringfence: {reason.what}"
        for rule in policy.rules
        if isinstance(rule.action, Unsupported)
        for reason in rule.action.reasons
    )
    return Decision("the policy can be carried out", warnings=warnings)
