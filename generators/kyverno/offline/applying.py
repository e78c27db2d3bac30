"""Policies on files of objects, as `ringfence policy apply` and `policy test` run them.

Each object is a request of its own, treated by all policies in turn: mutate (each seeing what the
one before left), then targets, then generate. What policies look up comes from the same files, or
from the values that stand in for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from generators.documents.json import (
    ObjectKey,
    Value,
    labels_of,
    mapping,
    mappings,
    object_key_of,
    strings,
    text,
)
from generators.errors import InputError, Problem
from generators.kyverno import engine
from generators.kyverno.context import dotted, merged
from generators.kyverno.engine import Environment
from generators.kyverno.generation import WantedObject
from generators.kyverno.limits import OFFLINE
from generators.kyverno.model import Document, Operation, Policy, PolicyRule
from generators.kyverno.offline.cluster import DocumentCluster, as_stored
from generators.kyverno.offline.loading import load_resources
from generators.kyverno.requests import Asker, PolicyRequest
from generators.kyverno.results import RuleOutcome, RuleResult
from generators.objects import NAME_LABEL


@dataclass(frozen=True, slots=True)
class Values:
    """A values file: what variables are, for all, for a rule, for a policy's object."""

    everywhere: Mapping[str, Value] = field(default_factory=dict)
    rules: Mapping[tuple[str, str], Mapping[str, Value]] = field(default_factory=dict)
    resources: Mapping[tuple[str, str], Mapping[str, Value]] = field(default_factory=dict)
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def given(self, policy: Policy, rule: PolicyRule, resource: ObjectKey) -> Mapping[str, Value]:
        """For one rule on one object; what is more particular wins."""
        result: Value = dict(self.everywhere)
        for values in (
            self.rules.get((policy.name, rule.name), {}),
            self.resources.get((policy.name, resource.name), {}),
        ):
            result = merged(result, dict(values))
        return result if isinstance(result, dict) else {}

    def operation(self, policy: Policy, resource: ObjectKey) -> Operation:
        """`request.operation` decides what kind of request an object is; CREATE if not given."""
        found = text(dict(self.everywhere), "request", "operation")
        particular = dict(self.resources.get((policy.name, resource.name), {}))
        word = text(particular, "request", "operation") or found
        return Operation(word) if word in Operation.__members__ else Operation.CREATE


def parse_values(document: Value) -> Values:
    """A `kind: Values` document, or the same fields inline in a test file."""
    rules: dict[tuple[str, str], Mapping[str, Value]] = {}
    resources: dict[tuple[str, str], Mapping[str, Value]] = {}
    for policy in mappings(document, "policies"):
        name = text(policy, "name").rpartition("/")[2]
        for rule in mappings(policy, "rules"):
            rules[name, text(rule, "name")] = dotted(mapping(rule, "values"))
        for resource in mappings(policy, "resources"):
            key = text(resource, "name").rpartition("/")[2]
            resources[name, key] = dotted(mapping(resource, "values"))
    labels = {
        text(item, "name"): strings(item.get("labels"))
        for item in mappings(document, "namespaceSelector")
    }
    return Values(dotted(mapping(document, "globalValues")), rules, resources, labels)


def load_values(path: str) -> Values:
    """A values file."""
    return parse_values(_single(path, "values file"))


def load_requester(path: str) -> Asker:
    """A `kind: UserInfo` file."""
    document = _single(path, "user info")
    info = mapping(document, "userInfo")
    return Asker(
        username=text(info, "username"),
        groups=_texts(info.get("groups")),
        roles=_texts(document.get("roles")),
        cluster_roles=_texts(document.get("clusterRoles")),
        info=info,
    )


def _texts(value: Value) -> tuple[str, ...]:
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list) else ()


def _single(path: str, what: str) -> Document:
    found, _ = load_resources([path])
    if len(found) != 1:
        fix = "write one document"
        raise InputError([Problem(path, 1, "", f"holds {len(found)} documents as {what}", fix)])
    return found[0].document


@dataclass(frozen=True, slots=True)
class ObjectChange:
    """An object as it was, and as the policies left it."""

    policy: str
    before: Document
    after: Document


@dataclass(frozen=True, slots=True)
class Applied:
    """Everything that came out."""

    results: tuple[RuleResult, ...]
    mutated: tuple[ObjectChange, ...]
    """One for each object and policy that changed it."""
    targets: tuple[ObjectChange, ...]
    generated: tuple[WantedObject, ...]
    final: Mapping[ObjectKey, Document]
    """Each object after all policies."""


@dataclass(slots=True)
class _Run:
    """What has been collected."""

    policies: Sequence[Policy]
    values: Values
    requester: Asker | None
    environment: Environment
    results: list[RuleResult] = field(default_factory=list)
    mutated: list[ObjectChange] = field(default_factory=list)
    targets: list[ObjectChange] = field(default_factory=list)
    generated: list[WantedObject] = field(default_factory=list)
    final: dict[ObjectKey, Document] = field(default_factory=dict)

    def resource(self, document: Document) -> None:
        """Treat one object by all policies."""
        for policy in self.policies:
            document = self._mutate(policy, document)
        self.final[object_key_of(document)] = document
        for policy in self.policies:
            request = self._request(policy, document)
            made = engine.generate([policy], request, self.environment)
            self.generated += made.wanted
            self.results += made.results

    def _mutate(self, policy: Policy, document: Document) -> Document:
        request = self._request(policy, document)
        self.results += engine.unsupported([policy], request, self.environment)
        done = engine.mutate([policy], request, self.environment)
        self.results += done.results
        if request.resource and done.document != document:
            self.mutated.append(ObjectChange(policy.key, document, done.document))
            document = done.document
        request = self._request(policy, document)
        for change in engine.mutate_existing([policy], request, self.environment):
            self.results.append(change.result)
            if change.after is not None:
                self.targets.append(ObjectChange(policy.key, change.before, change.after))
        return document

    def _request(self, policy: Policy, document: Document) -> PolicyRequest:
        operation = self.values.operation(policy, object_key_of(document))
        match operation:
            case Operation.DELETE:
                return PolicyRequest(operation, {}, document, self.requester)
            case Operation.UPDATE:
                return PolicyRequest(operation, document, document, self.requester)
            case _:
                return PolicyRequest(operation, document, {}, self.requester)


def apply(
    policies: Sequence[Policy],
    resources: Iterable[Document],
    others: Iterable[Document] = (),
    values: Values | None = None,
    requester: Asker | None = None,
) -> Applied:
    """Treat each object by all policies; `others` can be targets, sources and looked up."""
    given = values if values is not None else Values()
    stored = [as_stored(document) for document in resources]
    around = [as_stored(document) for document in others]
    cluster = DocumentCluster([*around, *stored], given.namespaces)
    run = _Run(policies, given, requester, Environment(cluster, OFFLINE, given=given.given))
    for document in stored:
        run.resource(document)
    return Applied(
        tuple(run.results),
        tuple(run.mutated),
        tuple(run.targets),
        tuple(run.generated),
        run.final,
    )


def shown_results(applied: Applied) -> tuple[RuleResult, ...]:
    """Results without those of rules that do not concern the object. The outcome for a target is
    reported once, not again for each trigger.
    """
    seen: set[tuple[str, str, ObjectKey, RuleOutcome, str]] = set()
    shown = []
    for result in applied.results:
        about = result.target if result.target is not None else result.resource
        told = (result.policy, result.rule, about, result.outcome, result.message)
        if result.outcome is not RuleOutcome.EXCLUDED and told not in seen:
            seen.add(told)
            shown.append(result)
    return tuple(shown)


def presented(document: Document, declared: Iterable[ObjectKey]) -> Document:
    """The object without the name label, unless its file had it: the API server writes it."""
    key = object_key_of(document)
    if key.kind.kind != "Namespace" or key in set(declared):
        return document
    labels: dict[str, Value] = {k: v for k, v in labels_of(document).items() if k != NAME_LABEL}
    metadata = {k: v for k, v in mapping(document, "metadata").items() if k != "labels"}
    if labels:
        metadata["labels"] = labels
    return {**document, "metadata": metadata}
