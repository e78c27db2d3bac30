"""What the policies in force make of a request's object while it is being admitted.

Pure but for what lookups read. Each policy sees what the one before left; the answer is a minimal
JSON Patch. Policies see the tenancy that Ringfence has set and may not touch it: a change of a
tenant's labels or of anything under ringfence.io is undone before the next policy runs, and
reported. No policy changes what Ringfence generates or what lives in a protected namespace.

A rule that fails decides by its policy's failurePolicy: Fail refuses the request and names policy,
rule and place; Ignore lets it pass with a warning. Mutate rules with targets run in the controller;
where the target is the very Namespace that is being admitted, its labels are put on here already,
so that no moment passes without them. If that fails, the controller does it later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import jsonpatch

from generators.documents.json import (
    ObjectKey,
    ObjectKind,
    Value,
    annotations_of,
    kind_of,
    labels_of,
    mapping,
    object_key_of,
    value_of,
)
from generators.kyverno import engine
from generators.kyverno.creators import ANNOTATION, written
from generators.kyverno.engine import Environment
from generators.kyverno.failures import LookupFailed, RuleFailure
from generators.kyverno.matching import kind_matches
from generators.kyverno.model import Document, FailurePolicy, KindPattern, Operation, Policy
from generators.kyverno.requests import Asker, Lookups, PolicyRequest
from generators.kyverno.results import RuleOutcome, RuleResult
from generators.kyverno.usage import usage
from generators.labels import MANAGED_BY, MANAGER
from generators.tenants.model import TenantConfig
from webhook.policies.book import Policies
from webhook.policies.roles import Roles
from webhook.review import Decision, Denial, Review

OWN_DOMAIN = "ringfence.io"
REQUEST_SECONDS = 3.0
"""What all policies together may take of a request; the API server waits five."""
MOST_TOLD = 5
"""Failures that one message lists."""
_NAMESPACE = ObjectKind("", "v1", "Namespace")


@dataclass(frozen=True, slots=True)
class AdmissionDeps:
    """Everything that stays the same from request to request."""

    config: TenantConfig
    policies: Policies
    environment: Environment
    controller: str
    """Username of Ringfence's own controller."""
    roles: Callable[[Review], Roles]
    told: Callable[[RuleResult], None] = lambda result: None
    clock: Callable[[], float] = time.monotonic


@dataclass(slots=True)
class _Run:
    """One request on its way through the policies."""

    bench: AdmissionDeps
    document: Document
    until: float
    environment: Environment
    """The clock that stops a rule the request cannot wait for."""
    failures: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    withheld: list[str] = field(default_factory=list)

    def take(self, policy: Policy, results: Iterable[RuleResult], after: Document) -> None:
        """What a policy made of the object, as far as that is a policy's to change."""
        before, self.document = self.document, _kept(self, policy, self.document, after)
        self.note(results, withheld=after != before and self.document == before)

    def note(self, results: Iterable[RuleResult], *, withheld: bool = False) -> None:
        """Report results; a withheld change does not count as applied."""
        for result in results:
            self.bench.told(result)
            name = f"policy {result.policy}, rule {result.rule}"
            if result.outcome is RuleOutcome.ERROR:
                self.failures.append(f"{name}: {result.message}")
            elif result.outcome is RuleOutcome.PASS:
                said = self.withheld if withheld else self.applied
                said.append(f"{result.policy}/{result.rule}")


def decide(bench: AdmissionDeps, review: Review, failure: FailurePolicy) -> Decision:
    """The answer of /mutate-policies/fail and /mutate-policies/ignore."""
    if review.operation.value not in ("CREATE", "UPDATE") or review.object is None:
        return Decision(f"policies change nothing on {review.operation}")
    try:
        before, old = _document(review, review.object), _document(review, review.old_object)
    except TypeError as error:
        return Decision(f"the object cannot be read: {error}", Denial.INVALID)
    home = review.name if review.is_namespace else review.namespace
    if home in bench.environment.limits.protected:
        return Decision(f"namespace {home} is protected from policies")
    key = object_key_of(before)
    asked = bench.policies.asking_who(key.kind)
    # Also where no rule asks, or none yet: nobody else's word may be found there later.
    noting = asked or any(ANNOTATION in annotations_of(each) for each in (before, old))
    ours = MANAGER in (labels_of(before).get(MANAGED_BY), labels_of(old).get(MANAGED_BY))
    if ours and not noting:
        return Decision("policies may not change objects that Ringfence generates")
    operation = review.operation
    sub = review.resource.subresource
    policies = () if ours else bench.policies.admitting(key.kind, operation, sub, failure)
    until = bench.clock() + REQUEST_SECONDS
    environment = replace(bench.environment, overdue=lambda: bench.clock() > until)
    run = _Run(bench, before, until, environment)
    own = () if ours else _for_itself(bench, key.kind, operation, sub, failure)
    if not policies and not own and not noting:
        return Decision("no policy concerns it")
    wanted = asked or bench.policies.wanting_roles(key.kind, operation, sub, failure)
    roles, unknown = _roles(bench, review) if wanted else (Roles(), "")
    if unknown:
        policies = _without_roles(run, policies, unknown)
        own = tuple(policy for policy in own if not usage((policy,)).roles)
    request = _request(bench, review, before, old, roles)
    _admit(run, policies, request)
    try:
        _note_creator(run, request, asked, unknown)
    except RuleFailure as error:
        run.failures.append(str(error))
    _label_itself(run, own, request)
    return _answer(run, before, failure)


def _document(review: Review, sent: Mapping[str, object] | None) -> Document:
    """The object as engines read it; the API server omits what the request says anyway."""
    if sent is None:
        return {}
    document = value_of(sent)
    if not isinstance(document, dict):
        return {}
    document.setdefault("apiVersion", review.resource.api_version)
    document.setdefault("kind", review.kind)
    if review.namespace and not review.is_namespace:
        metadata = mapping(document, "metadata")
        document["metadata"] = {"namespace": review.namespace, **metadata}
    return document


def _roles(bench: AdmissionDeps, review: Review) -> tuple[Roles, str]:
    """The requester's roles, or why they are not known."""
    try:
        return bench.roles(review), ""
    except LookupFailed as error:
        return Roles(), str(error)


def _without_roles(run: _Run, policies: Sequence[Policy], why: str) -> tuple[Policy, ...]:
    """The policies that can do without; the others fail."""
    asking = [policy for policy in policies if usage((policy,)).roles]
    run.failures += [f"policy {policy.key}: {why}" for policy in asking]
    return tuple(policy for policy in policies if policy not in asking)


def _request(
    bench: AdmissionDeps, review: Review, document: Document, old: Document, roles: Roles
) -> PolicyRequest:
    info = value_of(review.user_info)
    who = review.requester
    asker = Asker(
        who.username,
        tuple(sorted(who.groups)),
        roles.roles,
        roles.cluster_roles,
        info if isinstance(info, dict) else {},
    )
    return PolicyRequest(
        review.operation,
        document,
        old,
        asker,
        review.resource.subresource,
        review.dry_run,
        who.username == bench.controller,
    )


# --- the rules ----------------------------------------------------------------------------------


def _admit(run: _Run, policies: Sequence[Policy], request: PolicyRequest) -> None:
    for policy in policies:
        if run.bench.clock() > run.until:
            run.failures.append(
                f"policy {policy.key}: the policies before it took longer than "
                f"{REQUEST_SECONDS:g} s; it was not applied"
            )
            return
        request = _about(request, run.document)
        mutated = engine.mutate((policy,), request, run.environment)
        run.take(policy, mutated.results, mutated.document)


def _about(request: PolicyRequest, document: Document) -> PolicyRequest:
    """The same request about a changed object."""
    return request if document is request.resource else request.about(document)


def _kept(run: _Run, policy: Policy, before: Document, after: Document) -> Document:
    """The object after a policy, with everything that is not a policy's as it was before."""
    if after is before or kind_of(after) != _NAMESPACE:
        return after
    for part in ("labels", "annotations"):
        was, now = mapping(before, "metadata", part), mapping(after, "metadata", part)
        if was == now:
            continue
        taken_back = sorted(
            key
            for key in was.keys() | now.keys()
            if was.get(key) != now.get(key) and _protected(run.bench.config, before, part, key)
        )
        if taken_back:
            after = _with_former(after, before, part, taken_back)
            keys = ", ".join(taken_back)
            run.warnings.append(
                f"policy {policy.key} may not change {part} {keys}: they are the tenant file's"
            )
    return after


def _with_former(after: Document, before: Document, part: str, keys: Sequence[str]) -> Document:
    """The object with some labels or annotations as they were."""
    was, now = mapping(before, "metadata", part), mapping(after, "metadata", part)
    held: Document = {key: value for key, value in now.items() if key not in keys}
    held |= {key: was[key] for key in keys if key in was}
    metadata = dict(mapping(after, "metadata"))
    metadata[part] = held
    if not held and part not in mapping(before, "metadata"):
        del metadata[part]
    return {**after, "metadata": metadata}


def _protected(config: TenantConfig, namespace: Document, part: str, key: str) -> bool:
    """Our own domain; of labels that of the tenant, and what its entry in the tenant file sets."""
    domain, slash, _ = key.partition("/")
    if slash and (domain == OWN_DOMAIN or domain.endswith(f".{OWN_DOMAIN}")):
        return True
    tenant = config.tenants.get(labels_of(namespace).get(config.label_key, ""))
    return part == "labels" and (
        key == config.label_key or (tenant is not None and key in tenant.labels)
    )


@dataclass(frozen=True, slots=True)
class _Itself:
    """Lookups in which the object that is being admitted is the only one of its kind."""

    inner: Lookups
    document: Document

    def namespace_labels(self, namespace: str) -> Mapping[str, str]:
        return self.inner.namespace_labels(namespace)

    def find(self, key: ObjectKey) -> Document | None:
        return self.inner.find(key)

    def list(self, kind: ObjectKind, namespace: str) -> Sequence[Document]:
        own = object_key_of(self.document).kind
        pattern = KindPattern(kind.group, kind.version, kind.kind)
        return [self.document] if kind_matches(pattern, own) else []

    def get(self, path: str) -> Value:
        return self.inner.get(path)


def _for_itself(
    bench: AdmissionDeps, kind: ObjectKind, operation: Operation, sub: str, failure: FailurePolicy
) -> tuple[Policy, ...]:
    """Only where a failure refuses nothing: the controller carries these rules out."""
    if failure is not FailurePolicy.IGNORE or kind != _NAMESPACE:
        return ()
    return bench.policies.reaching_itself(kind, operation, sub)


def _label_itself(run: _Run, policies: Sequence[Policy], request: PolicyRequest) -> None:
    for policy in policies:
        if run.bench.clock() > run.until:
            return
        request = _about(request, run.document)
        lookups = _Itself(run.bench.environment.lookups, run.document)
        environment = replace(run.environment, lookups=lookups)
        for change in engine.mutate_existing((policy,), request, environment):
            if change.after is not None and object_key_of(change.after) == request.key:
                run.take(policy, [change.result], change.after)


def _note_creator(run: _Run, request: PolicyRequest, asked: bool, unknown: str) -> None:
    """Who creates an object is noted on it; what others write in that place is taken away."""
    if asked and unknown and request.operation is Operation.CREATE:
        raise LookupFailed(f"who creates {request.key} cannot be noted: {unknown}")
    known = annotations_of(request.old).get(ANNOTATION)
    if request.operation is Operation.CREATE and not request.subresource:
        known = written(request.requester) if asked and request.requester is not None else None
    metadata = dict(mapping(run.document, "metadata"))
    given = dict(mapping(metadata, "annotations"))
    if given.get(ANNOTATION) == known:
        return
    if known is None:
        del given[ANNOTATION]
    else:
        given[ANNOTATION] = known
    metadata["annotations"] = given
    run.document = {**run.document, "metadata": metadata}


# --- the answer ---------------------------------------------------------------------------------


def _answer(run: _Run, before: Document, failure: FailurePolicy) -> Decision:
    told = run.failures[:MOST_TOLD]
    if len(run.failures) > MOST_TOLD:
        told.append(f"and {len(run.failures) - MOST_TOLD} more")
    if run.failures and failure is FailurePolicy.FAIL:
        fix = "correct the policy, or set its failurePolicy to Ignore"
        return Decision(f"{'; '.join(told)}; {fix}", Denial.FORBIDDEN, warnings=tuple(run.warnings))
    patch = tuple(_operations(before, run.document))
    said = f"applied: {', '.join(run.applied)}" if run.applied else "no rule applied"
    if run.withheld:
        said += f"; withheld: {', '.join(run.withheld)}"
    audit = {"policies": ", ".join(run.applied)} if patch and run.applied else {}
    return Decision(said, patch=patch, warnings=(*told, *run.warnings), audit=audit)


def _operations(before: Document, after: Document) -> list[dict[str, object]]:
    """The JSON Patch between two objects; empty when they are equal."""
    if before == after:
        return []
    made: list[dict[str, object]] = jsonpatch.make_patch(before, after).patch
    return made
