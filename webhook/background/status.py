"""What users see of a policy: condition Ready of the object, Events on it.

Ready means that the policy is loaded, that everything its rules look at is known, that the webhook
is registered for it and that RBAC lets the controller carry it out; scripts wait for exactly this.
Problems with single triggers are Events on the policy and a log line: one for each rule and minute.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from generators.checks import Check, bridged
from generators.documents.json import Document, Key, ObjectKey, mapping, mappings, meta_of, text
from generators.errors import RingfenceError
from generators.kube.client import Client, PatchKind
from generators.kube.errors import NotFound
from generators.kube.events import EventSubject, Recorder, Severity
from generators.kube.resources import CLUSTER_POLICIES, POLICIES
from generators.process.logs import event
from webhook.background.index import TriggerName
from webhook.background.needs import RuleName
from webhook.policies.book import HeldPolicy, Policies, PolicySource
from webhook.settings import FIELD_MANAGER

LOG = logging.getLogger("ringfence.controller")
SUCCEEDED = "Succeeded"
LONGEST = 1_000
MOST_PROBLEMS = 1_000


@dataclass(frozen=True, slots=True)
class PolicyCondition:
    """What the condition of one policy says."""

    name: str
    uid: str
    generation: int
    ready: bool
    reason: str
    message: str


def standings(
    policies: Policies, problems: Mapping[RuleName, str], waiting: str, forbidden: Mapping[str, str]
) -> list[PolicyCondition]:
    """The condition of every policy of the cluster; `waiting`: why none can be Ready yet."""
    refused: dict[str, list[str]] = {}
    for each in policies.refused:
        refused.setdefault(each.policy, []).append(str(each))
    for (policy, rule), message in problems.items():
        refused.setdefault(policy, []).append(f"{policy}/{rule}: {message}")
    found = [
        _standing(held, refused.get(held.policy.key, []), waiting, forbidden)
        for held in policies.held
        if held.source is PolicySource.CLUSTER
    ]
    known = {each.uid for each in found}
    for unread in policies.refused:
        if unread.source is PolicySource.CLUSTER and unread.uid not in known and not unread.rule:
            message = unread.reason[:LONGEST]
            found.append(
                PolicyCondition(
                    unread.policy, unread.uid, unread.generation, False, "Refused", message
                )
            )
    return found


def _standing(
    held: HeldPolicy, refused: Iterable[str], waiting: str, forbidden: Mapping[str, str]
) -> PolicyCondition:
    name = held.policy.key
    if why := "; ".join(sorted(set(refused))):
        ready, reason, message = False, "Refused", why
    elif name in forbidden:
        ready, reason, message = False, "Forbidden", forbidden[name]
    elif waiting:
        ready, reason, message = False, "Pending", waiting
    else:
        ready, reason, message = True, SUCCEEDED, "Ready"
    return PolicyCondition(name, held.uid, held.generation, ready, reason, message[:LONGEST])


class PolicyStatus:
    """Writes conditions; one thread calls it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._said: dict[str, PolicyCondition] = {}

    def forget(self) -> None:
        """Another writer may have changed them."""
        self._said.clear()

    def say(self, found: Iterable[PolicyCondition]) -> None:
        """Write those that say something new."""
        kept: dict[str, PolicyCondition] = {}
        for standing in found:
            known = self._said.get(standing.uid)
            if known == standing or self._write(standing):
                kept[standing.uid] = standing
        self._said = kept

    def _write(self, standing: PolicyCondition) -> bool:
        namespace, slash, name = standing.name.rpartition("/")
        resource = POLICIES if slash else CLUSTER_POLICIES
        try:
            live = self._client.get(resource, name, namespace)
            meta = meta_of(live)
            if (meta.uid, meta.generation) != (standing.uid, standing.generation):
                return False
            condition = _condition(live, standing)
            if condition is None:
                return True
            others = [c for c in mappings(mapping(live, "status"), "conditions") if not _ready(c)]
            status: Document = {"ready": standing.ready, "conditions": [*others, condition]}
            self._client.patch(
                resource,
                name,
                namespace,
                {"metadata": {"uid": meta.uid}, "status": status},
                kind=PatchKind.MERGE,
                manager=FIELD_MANAGER,
                subresource="status",
            )
        except NotFound:
            return False
        except RingfenceError as error:
            event(LOG, "policy_status_not_written", logging.WARNING, problem=str(error))
            return False
        return True


def _ready(condition: Mapping[str, object]) -> bool:
    return condition.get("type") == "Ready"


def _condition(live: Document, standing: PolicyCondition) -> Document | None:
    """The condition to write; None when it is there already."""
    word = "True" if standing.ready else "False"
    known = [c for c in mappings(mapping(live, "status"), "conditions") if _ready(c)]
    before = known[0] if len(known) == 1 else {}
    says = (text(before, "status"), text(before, "reason"), text(before, "message"))
    if says == (word, standing.reason, standing.message):
        return None
    changed = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if text(before, "status") == word:
        changed = text(before, "lastTransitionTime") or changed
    return {
        "type": "Ready",
        "status": word,
        "reason": standing.reason,
        "message": standing.message,
        "lastTransitionTime": changed,
    }


@dataclass(frozen=True, slots=True)
class ProblemTarget:
    """An existing object that a rule changes, as what a problem is about."""

    key: ObjectKey

    def __str__(self) -> str:
        return f"target {self.key}"


About = TriggerName | ProblemTarget


class RuleProblems:
    """Problems of triggers and targets, by rule; reported when they are new."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._lock = threading.Lock()
        self._rules: dict[RuleName, dict[About, str]] = {}

    def take(
        self,
        trigger: About,
        found: Mapping[RuleName, str],
        held: Mapping[str, HeldPolicy],
        only: RuleName | None = None,
    ) -> None:
        """All problems that a trigger has now; `only`: with that rule."""
        fresh = []
        with self._lock:
            for name in [n for n, about in self._rules.items() if trigger in about]:
                if name not in found and only in (None, name):
                    del self._rules[name][trigger]
                    if not self._rules[name]:
                        del self._rules[name]
            for name, message in found.items():
                about = self._rules.setdefault(name, {})
                if about.get(trigger) != message:
                    fresh.append((name, message))
                if trigger in about or len(about) < MOST_PROBLEMS:
                    about[trigger] = message
        for name, message in fresh:
            self._tell(name, trigger, message, held.get(name[0]))

    def _tell(self, name: RuleName, trigger: About, message: str, held: HeldPolicy | None) -> None:
        policy, rule = name
        event(
            LOG,
            "policy_rule_failed",
            logging.WARNING,
            policy=policy,
            rule=rule,
            trigger=str(trigger),
            problem=message,
        )
        if held is not None and held.source is PolicySource.CLUSTER:
            note = f"rule {rule} on {trigger}: {message}"
            self._recorder.tell_about(subject_of(held), "PolicyError", Severity.WARNING, note)

    def counts(self) -> dict[RuleName, int]:
        """Triggers with a problem, by rule."""
        with self._lock:
            return {name: len(about) for name, about in self._rules.items()}

    def triggers(self) -> set[TriggerName]:
        """All triggers with a problem."""
        with self._lock:
            return {
                trigger
                for about in self._rules.values()
                for trigger in about
                if isinstance(trigger, ObjectKey)
            }

    def checks(self) -> list[Check]:
        """For /readyz: one trigger of each rule that has problems."""
        with self._lock:
            found = [
                (policy, rule, len(about), *min((str(a), message) for a, message in about.items()))
                for (policy, rule), about in sorted(self._rules.items())
            ]
        return [
            bridged(
                f"policy {policy}/{rule}", f"{count} objects with problems; {trigger}: {message}"
            )
            for policy, rule, count, trigger, message in found
        ]

    def forget(self) -> None:
        """Look at everything again."""
        with self._lock:
            self._rules.clear()


def subject_of(held: HeldPolicy) -> EventSubject:
    """A policy of the cluster, as Events refer to it."""
    resource = POLICIES if held.policy.namespace else CLUSTER_POLICIES
    return EventSubject(
        resource.api_version, resource.kind, Key(held.policy.namespace, held.policy.name), held.uid
    )
