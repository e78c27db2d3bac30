"""The book of policies: which Kyverno policies are in force, wherever they come from.

Made by the webhook and by the controller from `--policies`. `current` is one immutable value,
swapped whole; take it once for a piece of work. A policy that is absent is gone only where
`complete` says so: before everything is synced, and while Ringfence stands back for a Kyverno that
executes policies, absence means nothing and nothing may be collected. A policy or rule in `refused`
is not gone either. Files win over the cluster's policy of the same name.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeVar

from generators.checks import Check, bridged, good, healthy
from generators.documents.json import Key, ObjectKind, text
from generators.kube.client import Client
from generators.kube.reflector import ReflectorStats
from generators.kyverno.limits import Limits, allowing
from generators.kyverno.matching import kind_matches
from generators.kyverno.model import (
    FailurePolicy,
    Generation,
    Mutation,
    Operation,
    Policy,
    PolicyRule,
    Unsupported,
)
from generators.kyverno.usage import asks_who, usage
from generators.kyverno.vetting import vetted
from generators.tenants.model import TenantConfig
from generators.tenants.watched import Changed
from webhook.policies.files import PolicyFiles
from webhook.policies.incumbent import Incumbent
from webhook.policies.objects import PolicyObject, PolicyObjects

CLUSTER = "cluster"
"""The word after `--policies` that means the API server's own."""
MOST_REMEMBERED = 1_000
_DEFAULT_OPERATIONS = frozenset({Operation.CREATE, Operation.UPDATE})


class PolicySource(StrEnum):
    """Where a policy is kept."""

    FILE = "file"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class HeldPolicy:
    """One policy in force. Rules that may not run are `Unsupported` in it, with the reasons."""

    policy: Policy
    source: PolicySource
    fingerprint: str
    """Changes whenever the policy may have changed; the same in every process."""
    uid: str = ""
    """Of the object in the cluster; empty for files."""
    generation: int = 0
    since: int = field(default=0, compare=False)
    """resourceVersion of the object when it was first seen like this; 0 for files."""


@dataclass(frozen=True, slots=True)
class RefusedPolicy:
    """A policy, or one rule of it, that is not carried out as it is written now."""

    policy: str
    rule: str
    """Empty = the whole policy; its last good version may be in force."""
    source: PolicySource
    reason: str
    uid: str = ""
    generation: int = 0

    def __str__(self) -> str:
        return f"{self.policy}/{self.rule}: {self.reason}" if self.rule else self.reason


_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Policies:
    """Everything in force at one moment."""

    held: tuple[HeldPolicy, ...] = ()
    refused: tuple[RefusedPolicy, ...] = ()
    complete: bool = True
    """Whether a policy that is not here does not exist."""
    standing_back: str = ""
    """Why the cluster's policies are not carried out; empty when they are."""
    digest: str = ""
    _admitting: dict[tuple[ObjectKind, Operation, str, FailurePolicy], tuple[Policy, ...]] = field(
        default_factory=dict, compare=False, repr=False
    )
    _reaching: dict[tuple[ObjectKind, Operation, str], tuple[Policy, ...]] = field(
        default_factory=dict, compare=False, repr=False
    )
    _asking: dict[ObjectKind, bool] = field(default_factory=dict, compare=False, repr=False)
    _wanting: dict[tuple[ObjectKind, Operation, str, FailurePolicy], bool] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def policies(self) -> tuple[Policy, ...]:
        """All policies, by name."""
        return tuple(each.policy for each in self.held)

    def changing_existing(self) -> tuple[Policy, ...]:
        """Policies with mutate rules that have targets."""
        return _with(
            self.policies,
            lambda rule: isinstance(rule.action, Mutation) and bool(rule.action.targets),
        )

    def changing_requests(self) -> tuple[Policy, ...]:
        """Policies with mutate rules for the object of the request itself."""
        return _with(self.policies, admits)

    def admitting(
        self, kind: ObjectKind, operation: Operation, subresource: str, failure: FailurePolicy
    ) -> tuple[Policy, ...]:
        """Policies reduced to the mutate rules that may concern such a request, in order."""
        return self._remembered(
            self._admitting,
            (kind, operation, subresource, failure),
            lambda: _with(
                (p for p in self.policies if p.admission and p.failure is failure),
                lambda rule: admits(rule) and _concerns(rule, kind, operation, subresource),
            ),
        )

    @staticmethod
    def _remembered(
        answers: dict[_Asked, _Answer], asked: _Asked, ask: Callable[[], _Answer]
    ) -> _Answer:
        """Policies do not change within one value; bounded, as any client of the port could invent
        kinds."""
        found = answers.get(asked)
        if found is None:
            if len(answers) >= MOST_REMEMBERED:
                answers.clear()
            found = answers[asked] = ask()
        return found

    def reaching_itself(
        self, kind: ObjectKind, operation: Operation, subresource: str
    ) -> tuple[Policy, ...]:
        """Policies reduced to mutate rules of which the request's own object may be a target."""
        asked = (kind, operation, subresource)
        return self._remembered(
            self._reaching,
            asked,
            lambda: _with(
                (p for p in self.policies if p.admission),
                lambda rule: targets(rule, kind) and _concerns(rule, kind, operation, subresource),
            ),
        )

    def wanting_roles(
        self, kind: ObjectKind, operation: Operation, subresource: str, failure: FailurePolicy
    ) -> bool:
        """Whether a rule that may concern such a request asks for the requester's roles."""
        return self._remembered(
            self._wanting,
            (kind, operation, subresource, failure),
            lambda: (
                usage(
                    (
                        *self.admitting(kind, operation, subresource, failure),
                        *self.reaching_itself(kind, operation, subresource),
                    )
                ).roles
            ),
        )

    def asking_who(self, kind: ObjectKind) -> bool:
        """Whether a rule that runs later wants to know who made objects of this kind."""
        return self._remembered(
            self._asking,
            kind,
            lambda: any(
                any(kind_matches(pattern, kind) for pattern in one.kinds)
                for policy in self.noting_creators()
                for rule in policy.rules
                for one in rule.match.filters
            ),
        )

    def noting_creators(self) -> tuple[Policy, ...]:
        """Policies reduced to the rules for which the creators of triggers are noted down."""
        return _with(self.policies, notes_creator)


def notes_creator(rule: PolicyRule) -> bool:
    """Whether a rule runs behind requests and asks who made them."""
    action = rule.action
    later = isinstance(action, Generation) or (isinstance(action, Mutation) and action.targets)
    return bool(later) and asks_who(rule)


def targets(rule: PolicyRule, kind: ObjectKind) -> bool:
    """Whether objects of a kind are among those that a mutate rule changes in the background."""
    if not isinstance(rule.action, Mutation):
        return False
    return any(
        text(target.fields.value, "kind") == kind.kind
        and text(target.fields.value, "apiVersion") == kind.api_version
        for target in rule.action.targets
    )


def admits(rule: PolicyRule) -> bool:
    """Whether a rule changes the object of the request itself."""
    return isinstance(rule.action, Mutation) and not rule.action.targets


def _with(policies: Iterable[Policy], keep: Callable[[PolicyRule], bool]) -> tuple[Policy, ...]:
    reduced = (replace(p, rules=tuple(r for r in p.rules if keep(r))) for p in policies)
    return tuple(policy for policy in reduced if policy.rules)


def _concerns(rule: PolicyRule, kind: ObjectKind, operation: Operation, subresource: str) -> bool:
    return any(
        operation in (one.operations or _DEFAULT_OPERATIONS)
        and any(kind_matches(pattern, kind, subresource) for pattern in one.kinds)
        for one in rule.match.filters
    )


def limits_for(config: TenantConfig, allowed: Iterable[str], system_namespace: str) -> Limits:
    """The operator's lists: `--allow-kind`, and the tenant file's protected namespaces."""
    protected = Limits().protected | config.protected_namespaces | {system_namespace}
    return replace(allowing(allowed), protected=frozenset(protected))


class PolicyBook:
    """`start`, read `current`, `check` once a second, `stop`."""

    def __init__(
        self,
        sources: Sequence[str],
        client: Client | None,
        limits: Limits,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """Read all files; InputError when a path cannot be read. Follows nothing before `start`.

        `changed` is called from any thread and must be quick. Without a client `cluster` is not
        followed.
        """
        self._limits = limits
        self._changed = changed
        self._lock = threading.Lock()
        self._stale = True
        self._followed = (False, "")
        self._current = Policies()
        self.files = PolicyFiles(path for path in sources if path != CLUSTER)
        self._objects: PolicyObjects | None = None
        self._incumbent: Incumbent | None = None
        if CLUSTER in sources and client is not None:
            self._objects = PolicyObjects(client, self._told)
            self._incumbent = Incumbent(client, self._told)

    def start(self) -> None:
        """Begin to follow the cluster, when it is a source."""
        if self._objects is not None and self._incumbent is not None:
            self._incumbent.start()
            self._objects.start()

    def stop(self) -> None:
        """End all threads."""
        if self._objects is not None and self._incumbent is not None:
            self._objects.stop()
            self._incumbent.stop()

    def check(self) -> Changed | None:
        """Read files that changed; what it brought is for the log."""
        found = self.files.check()
        if self._outdated:
            self._told()
        if found is not None:
            self._told()
        return found

    def limit(self, limits: Limits) -> None:
        """The tenant file or the command line allows something else now."""
        if limits != self._limits:
            self._limits = limits
            self._told()

    @property
    def limits(self) -> Limits:
        """What policies may read and write."""
        return self._limits

    @property
    def current(self) -> Policies:
        """The policies in force."""
        if self._outdated:
            with self._lock:
                if self._outdated:
                    # Before reading: what changes meanwhile makes it stale again.
                    self._stale = False
                    self._followed = self._following()
                    self._current = self._collected()
        return self._current

    @property
    def _outdated(self) -> bool:
        """Also when a list became complete that is empty: it has no keys to report."""
        return self._stale or self._following() != self._followed

    @property
    def ready(self) -> bool:
        """Whether all sources have been read."""
        return healthy(self.checks())

    @property
    def settled(self) -> bool:
        """Whether all policies are known, and whether they are executed."""
        return self.ready and (self._incumbent is None or self._incumbent.synced)

    @property
    def of_the_cluster(self) -> bool:
        """Whether the cluster's policies are among the sources."""
        return self._objects is not None

    def stats(self) -> tuple[ReflectorStats, ...]:
        """Of everything that is followed."""
        if self._objects is None or self._incumbent is None:
            return ()
        return (*self._objects.stats(), *self._incumbent.stats())

    def summary(self) -> str:
        """One line for ConfigMap `ringfence-status`."""
        current = self.current
        said = f"{len(current.held)} in force"
        if current.refused:
            said += f", {len(current.refused)} refused"
        if current.standing_back:
            said += f"; those of the cluster are not executed: {current.standing_back}"
        return said

    def checks(self) -> list[Check]:
        """For /readyz; the first says what is in force."""
        current = self.current
        rules = sum(
            not isinstance(rule.action, Unsupported) for p in current.policies for rule in p.rules
        )
        in_force = f"{len(current.held)} with {rules} rules: {current.digest[:12]}"
        checks = [good("policies", in_force)]
        checks += [bridged("policy refused", str(refused)) for refused in current.refused]
        checks += [bridged("policy file", str(why)) for why in self.files.in_force.problems]
        if current.standing_back:
            checks.append(bridged("ClusterPolicies are not executed", current.standing_back))
        if self._objects is not None:
            checks += self._objects.checks()
        return checks

    def _told(self, _: Key | None = None) -> None:
        self._stale = True
        self._changed()

    def _following(self) -> tuple[bool, str]:
        """Whether the cluster's policies are known, and why they are not executed."""
        if self._objects is None or self._incumbent is None:
            return True, ""
        return self._objects.synced, self._incumbent.why

    def _collected(self) -> Policies:
        synced, back = self._followed
        found = [
            HeldPolicy(each.policy, PolicySource.FILE, each.fingerprint)
            for each in self.files.in_force.policies
        ]
        refused: list[RefusedPolicy] = []
        for each in () if self._objects is None or back else self._objects.objects:
            if each.problem:
                refused.append(
                    RefusedPolicy(
                        each.name, "", PolicySource.CLUSTER, each.problem, each.uid, each.generation
                    )
                )
            if each.policy is not None:
                found.append(_held(each, each.policy))
        held, doubled = _once(found)
        checked, forbidden = self._vetted(held)
        return Policies(
            held=checked,
            refused=tuple(refused + doubled + forbidden),
            complete=synced and not back,
            standing_back=back,
            digest=_digest(checked),
        )

    def _vetted(
        self, held: Iterable[HeldPolicy]
    ) -> tuple[tuple[HeldPolicy, ...], list[RefusedPolicy]]:
        checked, refused = [], []
        for each in held:
            found = vetted(each.policy, self._limits)
            checked.append(replace(each, policy=found.policy))
            for rule in found.policy.rules:
                if isinstance(rule.action, Unsupported):
                    reason = "; ".join(str(why) for why in rule.action.reasons)
                    refused.append(_refused(each, rule.name, reason))
        return tuple(checked), refused


def _held(each: PolicyObject, policy: Policy) -> HeldPolicy:
    return HeldPolicy(
        policy, PolicySource.CLUSTER, each.fingerprint, each.uid, each.generation, each.since
    )


def _refused(held: HeldPolicy, rule: str, reason: str) -> RefusedPolicy:
    return RefusedPolicy(held.policy.key, rule, held.source, reason, held.uid, held.generation)


def _once(found: Iterable[HeldPolicy]) -> tuple[list[HeldPolicy], list[RefusedPolicy]]:
    kept: dict[str, HeldPolicy] = {}
    refused = []
    for each in found:
        first = kept.setdefault(each.policy.key, each)
        if first is not each:
            where = first.policy.origin
            reason = f"policy {each.policy.key} is already in force from {where}; keep one"
            refused.append(_refused(each, "", reason))
    return [kept[key] for key in sorted(kept)], refused


def _digest(held: Iterable[HeldPolicy]) -> str:
    whole = hashlib.sha256()
    for each in held:
        whole.update(f"{each.policy.key} {each.source} {each.fingerprint}\n".encode())
    return whole.hexdigest()
