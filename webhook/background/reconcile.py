"""One trigger brought in order: judge, plan, write, then delete. Called by the workers of work.py.

A failure does not stop what is independent of it: every write is tried, and the report names the
failure, so that the trigger is retried. Nothing of a policy is deleted while one of its writes
failed.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from generators.documents.json import Key, ObjectKey, ObjectKind
from generators.kube.errors import KubeError, NotFound
from generators.kube.resources import NAMESPACES, Resource
from generators.kyverno.creators import creator_of
from generators.kyverno.engine import Environment, applicability
from generators.kyverno.failures import NotAllowed, RuleFailure
from generators.kyverno.model import Operation
from generators.kyverno.requests import Asker, PolicyRequest
from webhook.background.caches import Caches
from webhook.background.index import (
    GeneratedEntry,
    GeneratedIndex,
    TriggerName,
    name_of,
    object_key,
)
from webhook.background.memory import Memory
from webhook.background.needs import RuleName
from webhook.background.planning import Delete, Plan, Situation, Write, plan
from webhook.background.rules import Existing, RuleTable, is_existing
from webhook.background.stored import GeneratedObject, ParsedTrigger, StoredObject, read
from webhook.background.targets import Ran, Targets
from webhook.background.verdicts import (
    Applies,
    RuleVerdict,
    judge,
    judge_deleted,
    living,
    on_deletion,
)
from webhook.background.writer import Done, ObjectWriter, Wrote

_NAMESPACE = ObjectKind("", "v1", "Namespace")


@dataclass(slots=True)
class TriggerReport:
    """What came of one trigger, as far as it came."""

    trigger: TriggerName
    wrote: list[Wrote] = field(default_factory=list)
    deleted: list[Delete] = field(default_factory=list)
    targets: list[tuple[RuleName, ObjectKey, str]] = field(default_factory=list)
    """What is wrong with an object that a rule changes; empty when nothing is."""
    sweeps: list[RuleName] = field(default_factory=list)
    """Rules that are run once for all triggers and have to run."""
    problems: dict[RuleName, str] | None = None
    """All that the trigger has now; None = that is not known."""
    failure: Exception | None = None
    """Why it has to come again."""


@dataclass(frozen=True, slots=True)
class _Case:
    """One trigger while it is dealt with."""

    table: RuleTable
    environment: Environment
    report: TriggerReport
    trigger: ParsedTrigger | None
    """None = it is gone."""
    former: ParsedTrigger | None = None
    """As it was before its deletion."""
    problems: dict[RuleName, str] = field(default_factory=dict)

    @property
    def name(self) -> TriggerName:
        return self.report.trigger


def _read(resource: Resource | None, kept: StoredObject | None) -> ParsedTrigger | None:
    return read(resource, kept) if resource is not None and kept is not None else None


class TriggerReconciler:
    """Safe for several threads on different triggers."""

    def __init__(
        self,
        caches: Caches,
        made: GeneratedIndex,
        memory: Memory,
        writer: ObjectWriter,
        targets: Targets,
    ) -> None:
        self._caches = caches
        self._made = made
        self._memory = memory
        self._writer = writer
        self._targets = targets
        self._lock = threading.Lock()
        self._handled: dict[tuple[RuleName, str], int] = {}
        """Rule and UID of a trigger whose version has had what is made once."""
        self._waiting: dict[ObjectKey, set[TriggerName]] = {}
        """Triggers that want an object which was made for another, or a namespace that comes."""

    def waiting_for(self, key: ObjectKey) -> set[TriggerName]:
        """The triggers that may get an object now that it has changed."""
        with self._lock:
            return self._waiting.pop(key, set())

    def forget_handled(self, names: frozenset[RuleName], before: int) -> None:
        """For these rules, the memory covers triggers up to this version."""
        with self._lock:
            self._handled = {
                (name, uid): version
                for (name, uid), version in self._handled.items()
                if version > before or name not in names
            }

    def _wait(self, key: ObjectKey, name: TriggerName) -> None:
        with self._lock:
            self._waiting.setdefault(key, set()).add(name)

    # --- one trigger ----------------------------------------------------------------------------

    def carry_out(
        self,
        table: RuleTable,
        environment: Environment,
        name: TriggerName,
        former: StoredObject | None,
    ) -> TriggerReport:
        """Everything that is to be done for a trigger; `former`: as it was before its deletion."""
        report = TriggerReport(name)
        try:
            report.failure = self._carry_out(table, environment, report, former)
        except Exception as error:
            report.failure = error
        return report

    def _carry_out(
        self,
        table: RuleTable,
        environment: Environment,
        report: TriggerReport,
        former: StoredObject | None,
    ) -> KubeError | None:
        resource, kept = self._followed(report.trigger)
        if kept is not None and kept.terminating:
            return None
        made = self._made.of(report.trigger)
        policies = table.generating.get(resource, ()) if resource is not None else ()
        changing = table.changing.get(resource, ()) if resource is not None else ()
        if not (made or policies or changing):
            return None
        there, was = _read(resource, kept), _read(resource, former if kept is None else None)
        case = _Case(table, environment, report, there, was)
        if there is not None:
            verdicts = self._judged(case, there)
        else:
            own = was is not None and self._is_made(case, was, gone=True)
            document = was.document if was is not None else None
            verdicts = judge_deleted(policies, document, environment, own=own)
        failure = self._generate(case, plan(self._situation(case, made, verdicts)), verdicts)
        if failure is None:
            self._remember(verdicts, kept)
        for existing in changing:
            failure = self._change(case, existing) or failure
        report.problems = case.problems
        return failure

    def _followed(self, name: TriggerName) -> tuple[Resource | None, StoredObject | None]:
        resource = self._caches.followed(name.kind.group, name.kind.kind)
        if resource is None:
            return None, None
        return resource, self._caches.trigger(resource, Key(name.namespace, name.name))

    def _trigger(self, name: TriggerName) -> ParsedTrigger | None:
        return _read(*self._followed(name))

    def _judged(self, case: _Case, trigger: ParsedTrigger) -> list[RuleVerdict]:
        policies = case.table.generating.get(trigger.resource, ())
        if not policies:
            return []
        return judge(
            policies,
            trigger.document,
            case.environment,
            own=self._is_made(case, trigger),
            creator=self._creator(case, trigger),
        )

    def _creator(self, case: _Case, trigger: ParsedTrigger) -> Asker | None:
        """Who made a trigger, where the webhook has noted it: it sees no protected namespace."""
        if trigger.home in case.environment.limits.protected:
            return None
        return creator_of(trigger.document, self._memory.noted(trigger.resource))

    def _is_made(self, case: _Case, one: ParsedTrigger, *, gone: bool = False) -> bool:
        """Whether a rule in force made it: then it triggers no other rule by default.

        Anyone may write a mark on their own objects. It counts where its rule makes such objects,
        its trigger is there, and the rule makes this very object for it. What is `gone` may have
        gone with it, and what a rule about deletions made outlives it.
        """
        if one.mark is None or not case.table.makes(one.mark, one.key.kind):
            return False
        owner = one.mark.owner
        if gone or on_deletion(case.table.rules[owner.policy, owner.rule]):
            return True
        trigger = self._trigger(name_of(owner.trigger))
        if trigger is None or trigger.kept.uid != owner.trigger_uid:
            return False
        # As if nobody had made the trigger: whether somebody did would be asked without end.
        verdicts = judge(
            case.table.generating.get(trigger.resource, ()),
            trigger.document,
            case.environment,
            own=False,
            creator=self._creator(case, trigger),
        )
        name, key = (owner.policy, owner.rule), name_of(one.key)
        return any(
            name_of(wanted.key) == key for v in verdicts if v.name == name for wanted in v.wanted
        )

    def _situation(
        self, case: _Case, made: tuple[GeneratedEntry, ...], verdicts: list[RuleVerdict]
    ) -> Situation:
        kept = case.trigger.kept if case.trigger is not None else None
        rules_that_made = {(f.item.mark.owner.policy, f.item.mark.owner.rule) for f in made}
        places = {(f.item.mark.owner.policy, object_key(f.resource, f.key)) for f in made}

        def in_scope(verdict: RuleVerdict) -> bool:
            if kept is None or is_existing(verdict.rule):
                return True
            since = self._memory.since(verdict.name).introduced
            if kept.version > since or verdict.name in rules_that_made:
                return True
            # A renamed rule goes on with what it made under its former name.
            return any((verdict.policy.key, want.key) in places for want in verdict.wanted)

        def anew(verdict: RuleVerdict) -> bool:
            if kept is None:
                return True
            with self._lock:
                handled = self._handled.get((verdict.name, kept.uid), 0)
            return kept.version > max(handled, self._memory.since(verdict.name).done)

        return Situation(
            verdicts=verdicts,
            made=made,
            trigger_gone=kept is None,
            present=self._caches.made_named,
            standing=case.table.standing,
            in_scope=in_scope,
            anew=anew,
            source_gone=self._source_gone,
            had=self._memory.had,
        )

    def _source_gone(self, source: ObjectKey) -> bool:
        try:
            return self._caches.find(source) is None
        except RuleFailure:
            return False

    def _remember(self, verdicts: list[RuleVerdict], kept: StoredObject | None) -> None:
        if kept is None:
            return
        with self._lock:
            for verdict in verdicts:
                once = any(not wanted.synchronize for wanted in verdict.wanted)
                if verdict.applies is Applies.YES and once:
                    self._handled[verdict.name, kept.uid] = kept.version

    # --- writes and deletions -------------------------------------------------------------------

    def _generate(
        self, case: _Case, planned: Plan, verdicts: list[RuleVerdict]
    ) -> KubeError | None:
        for rule, message in planned.problems:
            case.problems.setdefault(rule, message)
        by_name = {verdict.name: verdict for verdict in verdicts}
        failure: KubeError | None = None
        unfinished: set[str] = set()
        for write in planned.writes:
            owner = write.wanted.owner
            verdict = by_name[owner.policy, owner.rule]
            try:
                self._write(case, verdict, write)
            except NotAllowed as refusal:
                case.problems.setdefault(verdict.name, str(refusal))
                unfinished.add(owner.policy)
            except KubeError as error:
                case.problems.setdefault(verdict.name, str(error))
                unfinished.add(owner.policy)
                failure = error
        return self._delete(case, planned, unfinished) or failure

    def _write(self, case: _Case, verdict: RuleVerdict, write: Write) -> None:
        wanted, present = write.wanted, write.present
        home = self._caches.trigger(NAMESPACES, Key("", wanted.key.namespace))
        if home is not None and home.terminating:
            return
        if present is not None and name_of(present.mark.owner.trigger) != case.name:
            self._uncontested(case, wanted.key, present)
        try:
            done = self._writer.ensure(verdict.policy.namespace, wanted, present)
        except NotFound as error:
            if home is not None or not wanted.key.namespace:
                raise
            self._wait(ObjectKey(_NAMESPACE, "", wanted.key.namespace), case.name)
            missing = f"namespace {wanted.key.namespace}, where {wanted.key} belongs, is not there"
            raise NotAllowed(missing) from error
        if done is not Done.KEPT:
            case.report.wrote.append(Wrote(verdict.name, wanted.key, done))

    def _uncontested(self, case: _Case, key: ObjectKey, present: GeneratedObject) -> None:
        """NotAllowed when the trigger for which the object was made still wants it."""
        other = name_of(present.mark.owner.trigger)
        trigger = self._trigger(other)
        if trigger is None:
            return
        verdicts = self._judged(case, trigger)
        if any(wanted.key == key for verdict in verdicts for wanted in verdict.wanted):
            self._wait(key, case.name)
            raise NotAllowed(f"{key} is generated for {other} already")

    def _delete(self, case: _Case, planned: Plan, unfinished: set[str]) -> KubeError | None:
        """Old goes after new is there: nothing of a policy whose writes are not all done."""
        failure: KubeError | None = None
        for step in planned.deletes:
            owner = step.found.item.mark.owner
            if owner.policy in unfinished:
                continue
            namespace, slash, _ = owner.policy.partition("/")
            try:
                done = self._writer.delete(namespace if slash else "", step.found)
            except NotAllowed as refusal:
                case.problems.setdefault((owner.policy, owner.rule), str(refusal))
            except KubeError as error:
                failure = error
            else:
                if done is Done.DELETED:
                    case.report.deleted.append(step)
        return failure

    # --- existing objects -----------------------------------------------------------------------

    def _change(self, case: _Case, existing: Existing) -> KubeError | None:
        request = self._request(case, existing)
        if request is None:
            return None
        if existing.shared:
            try:
                unfit = applicability(existing.policy, existing.rule, request, case.environment)
            except RuleFailure as error:
                case.problems.setdefault(existing.name, str(error))
                return None
            if unfit is None:
                case.report.sweeps.append(existing.name)
            return None
        ran = self._targets.run(existing, request, case.environment, case.report.wrote)
        self._note_targets(case, existing, ran)
        return ran.failure

    def _note_targets(self, case: _Case, existing: Existing, ran: Ran) -> None:
        for target, message in ran.targets.items():
            if target is not None:
                case.report.targets.append((existing.name, target, message))
            elif message:
                case.problems.setdefault(existing.name, message)

    def sweep(
        self, table: RuleTable, environment: Environment, existing: Existing, name: TriggerName
    ) -> TriggerReport:
        """Run a rule that does the same for each trigger, for the one that asked last."""
        report = TriggerReport(name)
        try:
            report.failure = self._sweep(table, environment, existing, report)
        except Exception as error:
            report.failure = error
        return report

    def _sweep(
        self, table: RuleTable, environment: Environment, existing: Existing, report: TriggerReport
    ) -> KubeError | None:
        trigger = self._trigger(report.trigger)
        if trigger is None:
            return None
        case = _Case(table, environment, report, trigger)
        request = self._request(case, existing)
        if request is None:
            return None
        resources = table.needs.rules[existing.name].targets
        ran = self._targets.sweep(existing, request, environment, resources, report.wrote)
        self._note_targets(case, existing, ran)
        report.problems = case.problems or None
        return ran.failure

    def _request(self, case: _Case, existing: Existing) -> PolicyRequest | None:
        if case.trigger is None:
            if case.former is None or not on_deletion(existing.rule):
                return None
            own = self._is_made(case, case.former, gone=True)
            return PolicyRequest(Operation.DELETE, {}, case.former.document, own=own)
        since = self._memory.since(existing.name).introduced
        if not is_existing(existing.rule) and case.trigger.kept.version <= since:
            return None
        creator = self._creator(case, case.trigger)
        own = self._is_made(case, case.trigger)
        return living(existing.rule, case.trigger.document, own, creator)
