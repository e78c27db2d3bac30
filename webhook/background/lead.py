"""What a leader has to know that no object says: up to where rules have been carried out.

Driven by `PolicyWork`, while it leads. Everything is kept in the memory, for the next leader.
"""

from __future__ import annotations

import logging
import time

from generators.kube.client import Client
from generators.kube.resources import Resource
from generators.kyverno.model import Generation
from generators.process.logs import event
from webhook.background.caches import Caches
from webhook.background.memory import Memory, Newcomer
from webhook.background.queue import TriggerQueue
from webhook.background.reconcile import TriggerReconciler
from webhook.background.rules import RuleTable, is_existing, pattern_of
from webhook.background.status import RuleProblems
from webhook.registration.configuration import seen_by_the_webhook

LOG = logging.getLogger("ringfence.controller")
LOOK_AGAIN_SECONDS = 5.0
"""How often kinds that are not served, or rights that are missing, are asked about again."""
NOTED_SECONDS = 1.1
"""Creation times are whole seconds: objects made in the second in which noting began cannot be told
from older ones."""


class RuleProgress:
    """Since when rules count, up to where they are carried out, and whose makers are noted."""

    def __init__(self, client: Client, memory: Memory, caches: Caches) -> None:
        self._client = client
        self._memory = memory
        self._caches = caches
        self._noting_due = 0.0
        self._noted_at = -NOTED_SECONDS
        self._quiet_adds = -1
        self._quiet_version = 0

    def begin(self, table: RuleTable) -> None:
        """These rules are carried out from now on."""
        held = {each.policy.key: each for each in table.policies.held}
        newest = self._newest(table)
        self._memory.introduce(
            (
                Newcomer(
                    name,
                    is_existing(rule),
                    pattern_of(rule),
                    held[name[0]].since or newest,
                )
                for name, rule in table.rules.items()
            ),
            complete=table.policies.complete,
        )
        # Kinds whose rules are gone are followed until nothing is left of what they made.
        counts = self._caches.counts_of_made()
        left = {resource for resource, count in counts.items() if count}
        self._memory.follow(table.needs.downstreams | left)
        self._memory.save()
        self._quiet_adds = -1

    def _newest(self, table: RuleTable) -> int:
        resources = table.generating.keys() | table.changing.keys()
        versions = (kept.version for r in resources for kept in self._caches.triggers(r).values())
        return max(versions, default=0)

    def advance(
        self,
        table: RuleTable,
        queue: TriggerQueue,
        problems: RuleProblems,
        reconciler: TriggerReconciler,
    ) -> None:
        """All triggers up to a version have been dealt with: remember that, when it is so."""
        once = [
            name
            for name, rule in table.rules.items()
            if isinstance(rule.action, Generation) and not rule.action.synchronize
        ]
        if not once:
            return
        stats = queue.stats()
        failing = problems.counts()
        unexplained = queue.retried() - problems.triggers()
        if not queue.idle or unexplained:
            self._quiet_adds = -1
        elif self._quiet_adds == stats.adds:
            done = [name for name in once if name not in failing]
            for name in done:
                self._memory.advance(name, self._quiet_version)
            reconciler.forget_handled(frozenset(done), self._quiet_version)
        else:
            # What was in the caches before the queue was empty for a whole turn is dealt with.
            self._quiet_version = self._newest(table)
            self._quiet_adds = stats.adds

    def note_creators(self, wanted: frozenset[Resource]) -> bool:
        """The webhook answers for these kinds from now on: what it notes is believed.

        True when there are kinds of which it was not believed before.
        """
        self._memory.forget_noted(wanted)
        new = frozenset(kind for kind in wanted if not self._memory.noted(kind))
        now = time.monotonic()
        if not new or now < self._noting_due:
            return False
        self._noting_due = now + LOOK_AGAIN_SECONDS
        seen = new & seen_by_the_webhook(self._client, new)
        if seen:
            self._memory.note(seen, self._memory.clock())
            self._noted_at = time.monotonic()
            event(LOG, "creators_noted", kinds=sorted(map(str, seen)))
        return bool(seen)

    @property
    def waits(self) -> bool:
        """Whether creators are noted so lately that objects of this second are not told apart."""
        return time.monotonic() - self._noted_at < NOTED_SECONDS
