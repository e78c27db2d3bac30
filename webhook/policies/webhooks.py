"""Policies in force -> what the API server sends to the webhook for them: narrow rules, by kind.

Called by the controller; registration/configuration.py puts it into the configuration. Kinds come
from the API server's discovery, so that wildcards become the resources that exist. Some are never
sent, whatever a policy says: what a cluster needs to start and to heal (nodes, leases, certificate
requests), what is too frequent (events), and admission itself. Pods that nodes make of their own
files, and whatever lives in the exempt namespaces, is not sent either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from generators.documents.json import Document, ObjectKind
from generators.kube.resources import Resource
from generators.kyverno.language import wildcards
from generators.kyverno.matching import names_kind
from generators.kyverno.model import (
    FailurePolicy,
    Filter,
    KindPattern,
    Operation,
    Policy,
    PolicyRule,
)
from webhook.policies.book import Policies, admits, notes_creator, targets
from webhook.policies.kinds import Kinds

NEVER_SENT = frozenset(
    {
        ("", "nodes"),
        ("", "events"),
        ("", "bindings"),
        ("", "componentstatuses"),
        ("apps", "replicasets"),
        ("coordination.k8s.io", "leases"),
        ("events.k8s.io", "events"),
        ("certificates.k8s.io", "certificatesigningrequests"),
        ("apiregistration.k8s.io", "apiservices"),
    }
)
"""(group, resource)."""
NEVER_SENT_GROUPS = frozenset(
    {
        "admissionregistration.k8s.io",
        "authentication.k8s.io",
        "authorization.k8s.io",
        "kyverno.io",
    }
)
CHANGING = frozenset({Operation.CREATE, Operation.UPDATE})
_NAMESPACE = ObjectKind("", "v1", "Namespace")


@dataclass(frozen=True, slots=True, order=True)
class Sent:
    """Requests for one resource that are sent to the webhook."""

    group: str
    version: str
    resource: str
    """With its subresource."""
    namespaced: bool
    operations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PolicyWebhooks:
    """What is to be registered for policies."""

    fail: tuple[Sent, ...] = ()
    ignore: tuple[Sent, ...] = ()
    own_requests: bool = False
    """Some rule wants the requests of our own controller, too."""
    judged: bool = False
    """Policies of the cluster are checked when written."""
    problems: tuple[str, ...] = ()
    """Kinds that policies name and that are not sent, with the rule and the reason."""

    def sent(self, failure: FailurePolicy) -> tuple[Sent, ...]:
        """Of one failurePolicy."""
        return self.fail if failure is FailurePolicy.FAIL else self.ignore


NO_POLICIES = PolicyWebhooks()


def webhooks_for(policies: Policies, kinds: Kinds, *, judged: bool) -> PolicyWebhooks:
    """What the policies in force want to see; KubeError when the API server cannot be asked."""
    found: dict[FailurePolicy, list[_Wish]] = {each: [] for each in FailurePolicy}
    problems: list[str] = []
    own = False
    for policy in policies.policies:
        for rule in policy.rules if policy.admission else ():
            failure = policy.failure
            if notes_creator(rule):
                own = own or not rule.skip_background
                for one in _wishes(policy, rule, kinds, problems):
                    found[failure] += [replace(one, operation=o.value) for o in CHANGING]
                    found[FailurePolicy.IGNORE] += _beside(one)
            if targets(rule, _NAMESPACE):
                # A failure refuses nothing here: the controller carries the rule out later.
                failure = FailurePolicy.IGNORE
            elif not admits(rule):
                continue
            own = own or not rule.skip_background
            wishes = list(_wishes(policy, rule, kinds, problems))
            found[failure] += [
                wish for wish in wishes if admits(rule) or wish.resource == "namespaces"
            ]
    return PolicyWebhooks(
        _sent(found[FailurePolicy.FAIL]),
        _sent(found[FailurePolicy.IGNORE]),
        own,
        judged,
        tuple(sorted(set(problems))),
    )


@dataclass(frozen=True, slots=True)
class _Wish:
    """One operation on one resource that a rule wants to see."""

    group: str
    version: str
    resource: str
    namespaced: bool
    operation: str


def _wishes(policy: Policy, rule: PolicyRule, kinds: Kinds, problems: list[str]) -> Iterator[_Wish]:
    where = f"{policy.key}/{rule.name}"
    for one in rule.match.filters:
        for pattern in one.kinds:
            served = _served(pattern, kinds)
            if not served:
                problems.append(f"{where}: the API server does not serve kind {pattern.shown}")
            for resource in served:
                if policy.namespace and not resource.namespaced:
                    continue
                if _never(resource):
                    if not wildcards.has_wildcard(pattern.shown):
                        problems.append(f"{where}: {resource} are never sent to policies")
                    continue
                yield from _operations(one, pattern, resource)


def _beside(wish: _Wish) -> Iterator[_Wish]:
    """Other ways to write an object's annotations. They block no request while the webhook is
    away."""
    if "/" not in wish.resource:
        more = ("status", "finalize") if wish.resource == "namespaces" else ("status",)
        for subresource in more:
            name = f"{wish.resource}/{subresource}"
            yield replace(wish, resource=name, operation=Operation.UPDATE.value)


def _served(pattern: KindPattern, kinds: Kinds) -> list[Resource]:
    return kinds.matching(
        lambda group: wildcards.matches(pattern.group, group),
        lambda version: wildcards.matches(pattern.version, version),
        lambda kind: names_kind(pattern, kind),
    )


def _never(resource: Resource) -> bool:
    named = (resource.group, resource.plural)
    return resource.group in NEVER_SENT_GROUPS or named in NEVER_SENT


def _operations(one: Filter, pattern: KindPattern, resource: Resource) -> Iterator[_Wish]:
    """A patch on DELETE or CONNECT would be refused by the API server."""
    names = [f"{resource.plural}/{pattern.subresource}" if pattern.subresource else resource.plural]
    if resource.kind == "Pod" and not pattern.subresource:
        names.append("pods/ephemeralcontainers")
    for operation in (one.operations or CHANGING) & CHANGING:
        for name in names:
            yield _Wish(
                resource.group, resource.version, name, resource.namespaced, operation.value
            )


def _sent(wishes: Iterable[_Wish]) -> tuple[Sent, ...]:
    operations: dict[tuple[str, str, str, bool], set[str]] = {}
    for wish in wishes:
        key = (wish.group, wish.version, wish.resource, wish.namespaced)
        operations.setdefault(key, set()).add(wish.operation)
    return tuple(sorted(Sent(*key, tuple(sorted(found))) for key, found in operations.items()))


def rules_of(sent: Iterable[Sent]) -> list[Document]:
    """As `rules` of a webhook: resources that share everything else in one entry."""
    grouped: dict[tuple[str, str, bool, tuple[str, ...]], list[str]] = {}
    for each in sent:
        key = (each.group, each.version, each.namespaced, each.operations)
        grouped.setdefault(key, []).append(each.resource)
    return [
        {
            "apiGroups": [group],
            "apiVersions": [version],
            "resources": sorted(resources),
            "operations": list(operations),
            "scope": "Namespaced" if namespaced else "Cluster",
        }
        for (group, version, namespaced, operations), resources in sorted(grouped.items())
    ]
