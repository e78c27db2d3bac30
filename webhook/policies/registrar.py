"""Keeps what is registered for policies in step with the policies in force.

The controller asks: `wanted` for the keeper of admission, `stale` for whether it should step at
once, `problem` for whether policies may be called ready. Discovery is asked again from time to time
where a policy names a kind that is not served: its CRD may come later.
"""

from __future__ import annotations

import logging
import time

from generators.checks import Check, bridged
from generators.errors import RingfenceError
from generators.kube.discovery import KEEP_SECONDS, Discovery
from generators.process.logs import event
from webhook.policies.book import Policies, PolicyBook
from webhook.policies.webhooks import NO_POLICIES, PolicyWebhooks, webhooks_for

HEARD_SECONDS = 1.0
"""Until every API server has seen what one of them accepted; they watch, so normally this takes
milliseconds."""
LOG = logging.getLogger("ringfence.controller")


class PolicyRegistrar:
    """One thread calls it."""

    def __init__(self, book: PolicyBook, discovery: Discovery) -> None:
        self._book = book
        self._discovery = discovery
        self._made_for: Policies | None = None
        self._made_at = 0.0
        self._known = NO_POLICIES
        self._failure = ""
        self._registered: PolicyWebhooks | None = None
        self._registered_at = 0.0

    def wanted(self) -> PolicyWebhooks | None:
        """What is to be registered; None while not all policies are known."""
        if not self._book.settled:
            return None
        current = self._book.current
        old = bool(self._known.problems or self._failure) and self._age > KEEP_SECONDS
        if current is not self._made_for or old:
            try:
                self._make(current)
            except RingfenceError as error:
                self._failure = str(error)
                event(LOG, "policies_not_registered", logging.WARNING, problem=str(error))
                return None
        return self._known

    @property
    def _age(self) -> float:
        return time.monotonic() - self._made_at

    def _make(self, current: Policies) -> None:
        if self._known.problems:
            self._discovery.forget()
        made = webhooks_for(current, self._discovery, judged=self._book.of_the_cluster)
        self._made_for, self._made_at, self._failure = current, time.monotonic(), ""
        if made != self._known:
            level = logging.WARNING if made.problems else logging.INFO
            resources = sorted({each.resource for each in (*made.fail, *made.ignore)})
            event(LOG, "policy_webhooks", level, resources=resources, problems=list(made.problems))
        self._known = made

    @property
    def judged(self) -> bool:
        """Whether policies are judged when they are written."""
        return self._book.of_the_cluster

    def registered(self, what: PolicyWebhooks) -> None:
        """The API server has the configuration."""
        if what != self._registered:
            self._registered, self._registered_at = what, time.monotonic()

    @property
    def stale(self) -> bool:
        """Whether the API server has an older configuration."""
        wanted = self.wanted()
        return wanted is not None and wanted != self._registered

    def problem(self) -> str:
        """Why requests do not reach the policies in force; empty when they do."""
        if self._failure:
            return self._failure
        if self.stale:
            return "the webhook is not registered for them yet"
        heard = time.monotonic() - self._registered_at > HEARD_SECONDS
        return "" if heard else "API servers may not know the webhook yet"

    def checks(self) -> list[Check]:
        """For /readyz."""
        problems = (*self._known.problems, *([self._failure] if self._failure else []))
        return [bridged("policy webhook", str(problem)) for problem in problems]
