"""One trigger brought in order: judge, plan, write, then delete. Called by the workers of work.py.

Failures do not stop what is independent of them: every write is tried, a failure is raised at the
end so that the trigger comes again. Nothing of a policy is deleted while one of its writes failed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from generators.documents.json import Key
from generators.kube.errors import KubeError, NotFound
from generators.kube.resources import NAMESPACES, Resource
from generators.kyverno.creators import creator_of
from generators.kyverno.engine import Environment, applicability
from generators.kyverno.failures import NotAllowed, RuleFailure
from generators.kyverno.model import Operation
from generators.kyverno.ownership import mark_of
from generators.kyverno.requests import Asker, PolicyRequest
from generators.kyverno.values import Document, ObjectKey, ObjectKind, key_of
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
from webhook.background.planning import Plan, Situation, Write, plan
from webhook.background.rules import Existing, Table, is_existing
from webhook.background.stored import GeneratedObject, StoredObject
from webhook.background.targets import Ran, Targets
from webhook.background.verdicts import Applies, Verdict, judge, judge_deleted, living, on_deletion
from webhook.background.writer import Done, Writer

_NAMESPACE = ObjectKind("", "v1", "Namespace")


@dataclass(frozen=True, slots=True)
class Telling:
    """Who hears what happened."""

    wrote: Callable[[Verdict, ObjectKey, Done], None]
    deleted: Callable[[GeneratedEntry, str], None]
    problems: Callable[[TriggerName, dict[RuleName, str]], None]
    """All problems that a trigger has now; empty when it has none."""
    target: Callable[[Existing, ObjectKey, str], None]
    """What is wrong with an object that a rule changes; empty when nothing is."""
    sweep: Callable[[Existing, TriggerName], None]
    """A rule that is run once for all triggers has to run."""


class TriggerReconciler:
    """Safe for several threads on different triggers."""

    def __init__(
        self,
        caches: Caches,
        made: GeneratedIndex,
        memory: Memory,
        writer: Writer,
        targets: Targets,
        telling: Telling,
    ) -> None:
        self._caches = caches
        self._made = made
        self._memory = memory
        self._writer = writer
        self._targets = targets
        self._telling = telling
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
        self, table: Table, environment: Environment, name: TriggerName, former: StoredObject | None
    ) -> None:
        """Everything that is to be done for a trigger; `former`: as it was before its deletion."""
        resource, kept = self._trigger(name)
        if kept is not None and kept.terminating:
            return
        made = self._made.of(name)
        policies = table.generating.get(resource, ()) if resource is not None else ()
        changing = table.changing.get(resource, ()) if resource is not None else ()
        if not (made or policies or changing):
            return
        if kept is not None:
            document = kept.document()
            verdicts = self._judged(table, resource, document, environment)
        else:
            document = former.document() if former is not None else {}
            own = self._is_made(table, document, environment, gone=True)
            verdicts = judge_deleted(policies, document or None, environment, own=own)
        planned = plan(self._situation(table, name, kept, made, verdicts))
        problems, failure = self._generate(table, environment, planned, verdicts, name)
        if failure is None:
            self._remember(verdicts, kept)
        for existing in changing:
            failure = (
                self._change(table, existing, environment, name, kept, document, problems)
                or failure
            )
        self._telling.problems(name, problems)
        if failure is not None:
            raise failure

    def _trigger(self, name: TriggerName) -> tuple[Resource | None, StoredObject | None]:
        resource = self._caches.followed(name.group, name.kind)
        if resource is None:
            return None, None
        return resource, self._caches.trigger(resource, Key(name.namespace, name.name))

    def _judged(
        self,
        table: Table,
        resource: Resource | None,
        document: Document,
        environment: Environment,
    ) -> list[Verdict]:
        policies = table.generating.get(resource, ()) if resource is not None else ()
        if resource is None or not policies:
            return []
        return judge(
            policies,
            document,
            environment,
            own=self._is_made(table, document, environment),
            creator=self._creator(resource, document, environment),
        )

    def _creator(
        self, resource: Resource, document: Document, environment: Environment
    ) -> Asker | None:
        """Who made a trigger, where the webhook has noted it: it sees no protected namespace."""
        key = key_of(document)
        home = key.name if resource == NAMESPACES else key.namespace
        if home in environment.limits.protected:
            return None
        return creator_of(document, self._memory.noted(resource))

    def _is_made(
        self, table: Table, document: Document, environment: Environment, *, gone: bool = False
    ) -> bool:
        """Whether a rule in force made it: then it triggers no other rule by default.

        Anybody may write a mark on what is theirs. It counts where its rule makes such objects, its
        trigger is there, and the rule makes this very object for it. What is `gone` may have gone
        with it, and what a rule about deletions made outlives it.
        """
        mark = mark_of(document)
        if mark is None or not table.makes(mark, key_of(document).kind):
            return False
        owner = mark.owner
        if gone or on_deletion(table.rules[owner.policy, owner.rule]):
            return True
        resource, trigger = self._trigger(name_of(owner.trigger))
        if resource is None or trigger is None or trigger.uid != owner.trigger_uid:
            return False
        # As if nobody had made the trigger: whether somebody did would be asked without end.
        from_it = trigger.document()
        verdicts = judge(
            table.generating.get(resource, ()),
            from_it,
            environment,
            own=False,
            creator=self._creator(resource, from_it, environment),
        )
        name, key = (owner.policy, owner.rule), name_of(key_of(document))
        return any(
            name_of(wanted.key) == key for v in verdicts if v.name == name for wanted in v.wanted
        )

    def _situation(
        self,
        table: Table,
        name: TriggerName,
        kept: StoredObject | None,
        made: tuple[GeneratedEntry, ...],
        verdicts: list[Verdict],
    ) -> Situation:
        rules_that_made = {(f.item.mark.owner.policy, f.item.mark.owner.rule) for f in made}
        places = {(f.item.mark.owner.policy, object_key(f.resource, f.key)) for f in made}

        def in_scope(verdict: Verdict) -> bool:
            if kept is None or is_existing(verdict.rule):
                return True
            since = self._memory.since(verdict.name).introduced
            if kept.version > since or verdict.name in rules_that_made:
                return True
            # A renamed rule goes on with what it made under its former name.
            return any((verdict.policy.key, want.key) in places for want in verdict.wanted)

        def anew(verdict: Verdict) -> bool:
            if kept is None:
                return True
            with self._lock:
                handled = self._handled.get((verdict.name, kept.uid), 0)
            return kept.version > max(handled, self._memory.since(verdict.name).done)

        return Situation(
            verdicts=verdicts,
            made=made,
            trigger_gone=kept is None,
            present=self._present,
            standing=table.standing,
            in_scope=in_scope,
            anew=anew,
            source_gone=self._source_gone,
            had=self._memory.had,
        )

    def _present(self, key: ObjectKey) -> GeneratedObject | None:
        return self._caches.made_named(key)

    def _source_gone(self, source: ObjectKey) -> bool:
        try:
            return self._caches.find(source) is None
        except RuleFailure:
            return False

    def _remember(self, verdicts: list[Verdict], kept: StoredObject | None) -> None:
        if kept is None:
            return
        with self._lock:
            for verdict in verdicts:
                once = any(not wanted.synchronize for wanted in verdict.wanted)
                if verdict.applies is Applies.YES and once:
                    self._handled[verdict.name, kept.uid] = kept.version

    # --- writes and deletions -------------------------------------------------------------------

    def _generate(
        self,
        table: Table,
        environment: Environment,
        planned: Plan,
        verdicts: list[Verdict],
        name: TriggerName,
    ) -> tuple[dict[RuleName, str], KubeError | None]:
        problems: dict[RuleName, str] = {}
        for rule, message in planned.problems:
            problems.setdefault(rule, message)
        by_name = {verdict.name: verdict for verdict in verdicts}
        failure: KubeError | None = None
        unfinished: set[str] = set()
        for write in planned.writes:
            owner = write.wanted.owner
            verdict = by_name[owner.policy, owner.rule]
            try:
                self._write(table, environment, verdict, write, name)
            except NotAllowed as refusal:
                problems.setdefault(verdict.name, str(refusal))
                unfinished.add(owner.policy)
            except KubeError as error:
                problems.setdefault(verdict.name, str(error))
                unfinished.add(owner.policy)
                failure = error
        return problems, self._delete(planned, unfinished, problems) or failure

    def _write(
        self,
        table: Table,
        environment: Environment,
        verdict: Verdict,
        write: Write,
        name: TriggerName,
    ) -> None:
        wanted, present = write.wanted, write.present
        home = self._caches.trigger(NAMESPACES, Key("", wanted.key.namespace))
        if home is not None and home.terminating:
            return
        if present is not None and name_of(present.mark.owner.trigger) != name:
            self._uncontested(table, environment, wanted.key, present, name)
        try:
            done = self._writer.ensure(verdict.policy.namespace, wanted, present)
        except NotFound as error:
            if home is not None or not wanted.key.namespace:
                raise
            self._wait(ObjectKey(_NAMESPACE, "", wanted.key.namespace), name)
            missing = f"namespace {wanted.key.namespace}, where {wanted.key} belongs, is not there"
            raise NotAllowed(missing) from error
        self._telling.wrote(verdict, wanted.key, done)

    def _uncontested(
        self,
        table: Table,
        environment: Environment,
        key: ObjectKey,
        present: GeneratedObject,
        name: TriggerName,
    ) -> None:
        """NotAllowed when the trigger for which the object was made still wants it."""
        other = name_of(present.mark.owner.trigger)
        resource, kept = self._trigger(other)
        if resource is None or kept is None:
            return
        verdicts = self._judged(table, resource, kept.document(), environment)
        if any(wanted.key == key for verdict in verdicts for wanted in verdict.wanted):
            self._wait(key, name)
            raise NotAllowed(f"{key} is generated for {other} already")

    def _delete(
        self, planned: Plan, unfinished: set[str], problems: dict[RuleName, str]
    ) -> KubeError | None:
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
                problems.setdefault((owner.policy, owner.rule), str(refusal))
            except KubeError as error:
                failure = error
            else:
                if done is Done.DELETED:
                    self._telling.deleted(step.found, step.because)
        return failure

    # --- existing objects -----------------------------------------------------------------------

    def _change(
        self,
        table: Table,
        existing: Existing,
        environment: Environment,
        name: TriggerName,
        kept: StoredObject | None,
        document: Document,
        problems: dict[RuleName, str],
    ) -> KubeError | None:
        request = self._request(table, existing, environment, name, kept, document)
        if request is None:
            return None
        if existing.shared:
            try:
                unfit = applicability(existing.policy, existing.rule, request, environment)
            except RuleFailure as error:
                problems.setdefault(existing.name, str(error))
                return None
            if unfit is None:
                self._telling.sweep(existing, name)
            return None
        ran = self._targets.run(existing, request, environment)
        self._tell_targets(existing, ran, problems)
        return ran.failure

    def _tell_targets(self, existing: Existing, ran: Ran, problems: dict[RuleName, str]) -> None:
        for target, message in ran.targets.items():
            if target is not None:
                self._telling.target(existing, target, message)
            elif message:
                problems.setdefault(existing.name, message)

    def sweep(
        self, table: Table, environment: Environment, existing: Existing, name: TriggerName
    ) -> None:
        """Run a rule that does the same for each trigger, for the one that asked last."""
        _, kept = self._trigger(name)
        if kept is None:
            return
        document = kept.document()
        request = self._request(table, existing, environment, name, kept, document)
        if request is None:
            return
        resources = table.needs.rules[existing.name].targets
        ran = self._targets.sweep(existing, request, environment, resources)
        problems: dict[RuleName, str] = {}
        self._tell_targets(existing, ran, problems)
        if problems:
            self._telling.problems(name, problems)
        if ran.failure is not None:
            raise ran.failure

    def _request(
        self,
        table: Table,
        existing: Existing,
        environment: Environment,
        name: TriggerName,
        kept: StoredObject | None,
        document: Document,
    ) -> PolicyRequest | None:
        if kept is None:
            if not document or not on_deletion(existing.rule):
                return None
            return PolicyRequest(
                Operation.DELETE,
                {},
                document,
                own=self._is_made(table, document, environment, gone=True),
            )
        since = self._memory.since(existing.name).introduced
        if not is_existing(existing.rule) and kept.version <= since:
            return None
        resource, _ = self._trigger(name)
        creator = self._creator(resource, document, environment) if resource is not None else None
        own = self._is_made(table, document, environment)
        return living(existing.rule, document, own, creator)
