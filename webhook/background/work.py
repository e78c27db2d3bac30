"""Carries out the background rules of the policies in force, and says what came of it.

Made and driven by the controller: `start`, `turn` from its loop, `lead` when it begins to lead.
A worker looks at everything about one trigger (`queue.py`). Every replica follows the cluster; only
the leader takes from the queue, and begins with every trigger there is (`lead.py`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from generators.checks import Check, bridged
from generators.documents.json import Key
from generators.errors import RingfenceError
from generators.kube.client import Client
from generators.kube.copies import check_of
from generators.kube.discovery import Discovery
from generators.kube.errors import Fenced
from generators.kube.events import Recorder, Severity
from generators.kube.reflector import ReflectorStats
from generators.kube.resources import Resource
from generators.kyverno.engine import Environment
from generators.process.logs import event
from webhook.background import rights
from webhook.background.caches import CacheListeners, Caches
from webhook.background.index import GeneratedIndex, TriggerName, name_of, object_key
from webhook.background.lead import LOOK_AGAIN_SECONDS, RuleProgress
from webhook.background.memory import Memory
from webhook.background.metrics import Measures, Now
from webhook.background.needs import RuleName
from webhook.background.planning import Delete
from webhook.background.queue import LONGEST_WAIT, Item, Sweep, TriggerQueue
from webhook.background.reconcile import TriggerReconciler, TriggerReport
from webhook.background.rules import RuleTable, table_of
from webhook.background.status import (
    PolicyStatus,
    ProblemTarget,
    RuleProblems,
    standings,
    subject_of,
)
from webhook.background.stored import StoredObject
from webhook.background.targets import Targets
from webhook.background.writer import Done, ObjectWriter, Protection, Wrote
from webhook.policies.book import HeldPolicy, PolicyBook

LOG = logging.getLogger("ringfence.controller")


@dataclass(frozen=True, slots=True)
class BackgroundDeps:
    """What the controller brings along."""

    client: Client
    fenced: Client
    namespace: str
    book: PolicyBook
    tenancy: Callable[[], Protection]
    recorder: Recorder
    leads: Callable[[], bool]
    admission: Callable[[], str]
    """Why the webhook does not answer for the policies yet; empty when it does."""


class PolicyWork:
    """One for each controller with `--policies`."""

    def __init__(self, around: BackgroundDeps, registry: CollectorRegistry) -> None:
        self._around = around
        self._measures = Measures(registry, self._now)
        self._queue = TriggerQueue(self._deal, self._may_work, self._measures)
        self._table = RuleTable()
        self._discovery = Discovery(around.client)
        self._made = GeneratedIndex()
        self._caches = Caches(
            around.client,
            self._discovery,
            CacheListeners(self._trigger, self._made_changed, self._source),
        )
        self._memory = Memory(around.fenced, around.namespace)
        self._writer = ObjectWriter(around.fenced, self._discovery, around.tenancy)
        self._targets = Targets(self._caches, self._writer)
        self._problems = RuleProblems(around.recorder)
        self._status = PolicyStatus(around.fenced)
        self._carrier = TriggerReconciler(
            self._caches, self._made, self._memory, self._writer, self._targets
        )
        self._progress = RuleProgress(around.client, self._memory, self._caches)
        self._lock = threading.Lock()
        self._former: dict[TriggerName, StoredObject] = {}
        self._asked: dict[RuleName, TriggerName] = {}
        self._problems_due = 0.0
        self._prepared = False
        self._carried_out: RuleTable | None = None
        """What workers go by: a table whose rules the memory knows. One is taken over before."""
        self._looked_at = 0.0
        self._forbidden: Mapping[str, str] = {}

    # --- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to follow the cluster."""
        self._around.book.start()
        self._queue.start()

    def stop(self) -> None:
        """End all threads after they finish what they are doing."""
        self._queue.stop()
        self._around.book.stop()
        self._caches.stop()

    def lead(self) -> None:
        """Leading begins: take over where the last leader stopped."""
        self._memory.load()
        self._status.forget()
        self._targets.forget()
        self._carried_out = None
        self._prepared = True
        self._looked_at = 0.0

    def follow(self) -> None:
        """Leading has ended."""
        self._prepared = False
        self._carried_out = None

    @property
    def _running(self) -> bool:
        return self._carried_out is not None

    @property
    def alive(self) -> bool:
        """Whether no worker has died."""
        return self._queue.alive

    # --- the controller's loop ------------------------------------------------------------------

    def turn(self) -> None:
        """Take over changed policies, start once everything is known, report what is in force."""
        if (changed := self._around.book.check()) is not None:
            level = logging.ERROR if changed.refused else logging.INFO
            event(LOG, changed.event, level, file=changed.file, detail=changed.detail)
        current = self._around.book.current
        again = time.monotonic() - self._looked_at > LOOK_AGAIN_SECONDS
        unsettled = self._table.needs.problems or self._forbidden
        if current is not self._table.policies or (unsettled and again) or not self._looked_at:
            self._take()
        if not self._prepared or not self._around.leads():
            return
        if not self._running and self._known():
            self._begin()
        admission = self._around.admission()
        if self._running:
            self._look_at_problems()
            self._progress.advance(self._table, self._queue, self._problems, self._carrier)
            if not admission and self._progress.note_creators(self._table.noting):
                self._problems_due = 0.0
            self._memory.save()
        self._say(admission)

    def _take(self) -> None:
        """Take over the policies in force."""
        policies = self._around.book.current
        if self._table.needs.problems:
            self._discovery.forget()
        table = table_of(policies, self._discovery)
        self._looked_at = time.monotonic()
        kinds = table.needs.downstreams | self._memory.kinds
        self._forbidden = rights.forbidden(self._around.client, table)
        same = table == self._table
        self._table = table
        self._caches.follow(table.needs, kinds)
        self._made.keep_only(kinds)
        if same:
            return
        self._carried_out = None
        self._writer.forget()
        self._targets.forget()
        self._problems.forget()
        event(LOG, "policies_taken", policies=len(policies.held), rules=len(table.rules))

    def _known(self) -> bool:
        """Whether everything is known that the rules look at."""
        return self._around.book.ready and self._caches.synced

    def _begin(self) -> None:
        """Look at every trigger, and at everything that was ever made."""
        table = self._table
        self._progress.begin(table)
        self._problems_due = time.monotonic() + LONGEST_WAIT
        self._carried_out = table
        names = self._made.triggers()
        for resource in table.generating.keys() | table.changing.keys():
            for key in self._caches.triggers(resource):
                names.add(name_of(object_key(resource, key)))
        for name in sorted(names):
            self._queue.add(name)

    def _look_at_problems(self) -> None:
        """What kept a rule from a trigger may have gone without any event."""
        now = time.monotonic()
        if now >= self._problems_due:
            self._problems_due = now + LONGEST_WAIT
            for name in self._problems.triggers():
                self._queue.add(name)

    def _say(self, admission: str) -> None:
        waiting = "" if self._running else "what its rules look at is not all known yet"
        waiting = waiting or admission
        if self._progress.waits:
            waiting = waiting or "the creators of its triggers are noted in a second"
        self._status.say(
            standings(self._table.policies, self._table.needs.problems, waiting, self._forbidden)
        )

    # --- told by the watch threads --------------------------------------------------------------

    def _trigger(self, resource: Resource, key: Key) -> None:
        name = name_of(object_key(resource, key))
        if resource in self._table.deletions:
            kept = self._caches.trigger(resource, key)
            if kept is not None:
                with self._lock:
                    self._former[name] = kept
        if self._running:
            self._queue.add(name)
            for waiting in self._carrier.waiting_for(object_key(resource, key)):
                self._queue.add(waiting)

    def _made_changed(self, resource: Resource, key: Key) -> None:
        concerned = self._made.note(resource, key, self._caches.made(resource, key))
        concerned |= self._carrier.waiting_for(object_key(resource, key))
        for name in concerned:
            if self._running:
                self._queue.add(name)

    def _source(self, resource: Resource, key: Key) -> None:
        table = self._table
        sources = table.needs.sources
        if not self._running or not {(resource, key.namespace), (resource, "")} & sources:
            return
        concerned = self._made.copies_of(name_of(object_key(resource, key)))
        concerned |= self._problems.triggers()
        for kind in table.listing(resource, key.namespace):
            for trigger in self._caches.triggers(kind):
                concerned.add(name_of(object_key(kind, trigger)))
        for name in concerned:
            self._queue.add(name)

    # --- the workers ----------------------------------------------------------------------------

    def _may_work(self) -> bool:
        """Whether triggers may be dealt with now: whoever leads next looks at everything."""
        return self._running and self._around.leads()

    def _deal(self, item: Item) -> bool:
        table = self._carried_out
        if table is None:
            return False
        environment = Environment(self._caches, self._around.tenancy().limits)
        if isinstance(item, Sweep):
            self._run_sweep(table, environment, item)
        else:
            self._run_trigger(table, environment, item)
        return True

    def _run_trigger(self, table: RuleTable, environment: Environment, name: TriggerName) -> None:
        with self._lock:
            former = self._former.get(name)
        self._take_over(self._carrier.carry_out(table, environment, name, former))
        resource = self._caches.followed(name.kind.group, name.kind.kind)
        gone = resource is None or (
            self._caches.trigger(resource, Key(name.namespace, name.name)) is None
        )
        if former is not None and gone:
            with self._lock:
                self._former.pop(name, None)

    def _run_sweep(self, table: RuleTable, environment: Environment, item: Sweep) -> None:
        with self._lock:
            trigger = self._asked.get(item.name)
        found = [e for each in table.changing.values() for e in each if e.name == item.name]
        if trigger is not None and found:
            self._take_over(self._carrier.sweep(table, environment, found[0], trigger))

    # --- what came of it ------------------------------------------------------------------------

    def _take_over(self, report: TriggerReport) -> None:
        """Tell what was done, also by what failed half-way; then raise its failure."""
        held = {each.policy.key: each for each in self._table.policies.held}
        for wrote in report.wrote:
            self._tell_written(wrote, held.get(wrote.rule[0]))
        for step in report.deleted:
            self._tell_deleted(step)
        for rule, key, message in report.targets:
            found = {rule: message} if message else {}
            self._problems.take(ProblemTarget(key), found, held, only=rule)
        for rule in report.sweeps:
            with self._lock:
                self._asked[rule] = report.trigger
            self._queue.add(Sweep(rule))
        if report.problems is not None:
            self._problems.take(report.trigger, report.problems, held)
        if report.failure is not None:
            raise report.failure

    def _tell_written(self, wrote: Wrote, held: HeldPolicy | None) -> None:
        policy, rule = wrote.rule
        self._measures.wrote(wrote.key.kind.kind, wrote.done)
        event(
            LOG,
            "policy_wrote",
            policy=policy,
            rule=rule,
            object=str(wrote.key),
            action=wrote.done.value,
        )
        if wrote.done is Done.TAKEN_OVER and held is not None and held.uid:
            note = f"{wrote.key} was written by someone else and is replaced by rule {rule}"
            self._around.recorder.tell_about(
                subject_of(held), "ObjectTakenOver", Severity.WARNING, note
            )

    def _tell_deleted(self, step: Delete) -> None:
        owner, key = step.found.item.mark.owner, object_key(step.found.resource, step.found.key)
        self._measures.wrote(key.kind.kind, Done.DELETED)
        event(
            LOG,
            "policy_deleted",
            policy=owner.policy,
            rule=owner.rule,
            object=str(key),
            because=step.because,
        )

    # --- what others may know -------------------------------------------------------------------

    def _now(self) -> Now:
        return Now(self._queue.stats(), len(self._made), self._problems.counts(), self._running)

    def reflector_stats(self) -> tuple[ReflectorStats, ...]:
        """Of everything that is followed for policies."""
        return (*self._around.book.stats(), *self._caches.stats())

    def checks(self) -> list[Check]:
        """For /readyz."""
        checks = self._around.book.checks()
        for name, why in sorted(self._table.needs.problems.items()):
            checks.append(bridged(f"policy {'/'.join(name)}", why))
        checks += [bridged(f"policy {n}", why) for n, why in sorted(self._forbidden.items())]
        if self._memory.problem:
            checks.append(bridged(self._memory.problem))
        missing = (stats for stats in self._caches.stats() if not stats.synced)
        checks += [check for stats in missing if (check := check_of(stats)) is not None]
        return checks + self._problems.checks()

    def catch_errors(self) -> None:
        """`turn`, for a loop that other work shares: a failure is logged and tried again."""
        try:
            self.turn()
        except Fenced:
            self.follow()
        except RingfenceError as error:
            event(LOG, "policies_turn_failed", logging.WARNING, problem=str(error))
