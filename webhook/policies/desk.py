"""Policies in a running webhook: what is in force, what it reads, and the answers to requests.

Made by the state, used by serving/app.py. One thread follows files and cluster. New policies are
served once everything that they read is known, so that a policy with a context does not fail its
first requests; a copy that does not arrive within a few seconds is reported, and its lookups fail.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from generators.checks import Check, failed
from generators.errors import RingfenceError
from generators.kube.client import Client
from generators.kube.config import ApiServer
from generators.kyverno.engine import Environment
from generators.kyverno.limits import Limits
from generators.kyverno.model import FailurePolicy, Policy
from generators.kyverno.results import RuleOutcome, RuleResult
from generators.kyverno.usage import Usage, usage
from generators.process.logs import event
from generators.tenants.model import TenantConfig
from generators.tenants.watched import Changed
from webhook.policies import mutation
from webhook.policies import review as policy_review
from webhook.policies.book import CLUSTER, Policies, PolicyBook, limits_for
from webhook.policies.kinds import AllowedKinds
from webhook.policies.lookups import AdmissionLookups
from webhook.policies.metrics import PolicyMetrics
from webhook.policies.roles import Roles
from webhook.reload import TenantFile
from webhook.review import Decision, Review

LOG = logging.getLogger("ringfence.webhook")
LOOK_SECONDS = 1.0
PATIENCE_SECONDS = 5.0
"""How long new policies wait for what they read."""
FIRST_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """The command line's settings for policies."""

    sources: tuple[str, ...]
    kubeconfig: ApiServer = None


class PolicyDesk:
    """`start` in the process that answers; `decide` from any thread."""

    def __init__(self, settings: PolicySettings, tenants: TenantFile, controller: str) -> None:
        """Read the files; InputError when a path cannot be read. Sends nothing yet."""
        self._settings = settings
        self._tenants = tenants
        self._controller = controller
        self._home = _namespace_of(controller)
        self._client = _connected(settings)
        self._lookups = AdmissionLookups(self._client)
        self._wake = threading.Event()
        self._kinds: AllowedKinds | None = None
        if self._client is not None and self._home:
            self._kinds = AllowedKinds(self._client, self._home, self._wake.set)
        self._stopping = threading.Event()
        limits = self._limits(tenants.config)
        self.book = PolicyBook(settings.sources, self._client, limits, self._wake.set)
        self.metrics = PolicyMetrics(self.book, lambda: self.served)
        self._environment = Environment(self._lookups, limits)
        self.served: Policies | None = None
        self._awaited: tuple[Policies, float] | None = None
        self._began = 0.0
        self._thread = threading.Thread(target=self._run, name="policies", daemon=True)

    # --- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Follow files and cluster from now on."""
        self.book.start()
        if self._kinds is not None:
            self._kinds.start()
        self._thread.start()

    def stop(self) -> None:
        """End all threads."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(5)
        self.book.stop()
        if self._kinds is not None:
            self._kinds.stop()
        self._lookups.stop()

    def check(self) -> Changed | None:
        """Read the files that changed; for the process that logs this."""
        return self.book.files.check()

    def look(self) -> None:
        """Bring what is served up to date, as far as that is possible now."""
        self.book.check()
        self.book.limit(self._limits(self._tenants.config))
        if self.served is None and self._too_early():
            return
        current = self.book.current
        if current is self.served:
            return
        if self._awaited is None or self._awaited[0] is not current:
            self._awaited = (current, time.monotonic())
            self._lookups.follow(_together(self.served, current))
        waited = time.monotonic() - self._awaited[1]
        if not self._lookups.synced and waited < PATIENCE_SECONDS:
            return
        self._serve(current)

    def _too_early(self) -> bool:
        """Not to know the policies is not the same as that there are none."""
        self._began = self._began or time.monotonic()
        patient = time.monotonic() - self._began < PATIENCE_SECONDS
        settled = self.book.settled and (self._kinds is None or self._kinds.synced)
        return not self.book.ready or (not settled and patient)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.look()
            except RingfenceError as error:
                event(LOG, "policies_not_read", logging.WARNING, problem=str(error))
            except Exception:
                # A defect of ours: what was served last goes on.
                LOG.exception("policies_defect")
            waiting = self.served is not self.book.current
            self._wake.wait(FIRST_SECONDS if waiting else LOOK_SECONDS)
            self._wake.clear()

    def _serve(self, current: Policies) -> None:
        self._environment = Environment(self._lookups, self.book.limits)
        self.served, self._awaited = current, None
        self._lookups.follow(usage(_served_here(current)))
        event(
            LOG,
            "policies_in_force",
            logging.WARNING if current.refused or current.standing_back else logging.INFO,
            policies=[each.policy.key for each in current.held],
            refused=[str(each) for each in current.refused],
            standingBack=current.standing_back,
            digest=current.digest,
        )

    def _limits(self, config: TenantConfig) -> Limits:
        allowed = self._kinds.current if self._kinds is not None else ()
        return limits_for(config, allowed, self._home)

    # --- answers --------------------------------------------------------------------------------

    def mutate(self, config: TenantConfig, review: Review, failure: FailurePolicy) -> Decision:
        """What the policies of one failurePolicy make of the object."""
        served = self.served
        if served is None:
            raise NotServedYet
        bench = mutation.AdmissionDeps(
            config, served, self._environment, self._controller, self._roles, self._told
        )
        began = time.perf_counter()
        decision = mutation.decide(bench, review, failure)
        self.metrics.seconds.observe(time.perf_counter() - began)
        return decision

    def validate(self, review: Review) -> Decision:
        """Whether a policy may be stored."""
        return policy_review.decide(self.served or Policies(), self.book.limits, review)

    def _roles(self, review: Review) -> Roles:
        return self._lookups.roles(review.requester)

    def _told(self, result: RuleResult) -> None:
        if result.outcome is not RuleOutcome.EXCLUDED:
            self.metrics.results.labels(result.policy, result.rule, result.outcome.value).inc()

    def checks(self) -> list[Check]:
        """For /readyz."""
        if self.served is None:
            return [failed("policies", "not read yet"), *self.book.checks()[1:]]
        kinds = self._kinds.checks() if self._kinds is not None else []
        return [*self.book.checks(), *kinds, *self._lookups.checks()]


class NotServedYet(Exception):
    """Requests must wait: what policies would do to them is not known yet."""


def _connected(settings: PolicySettings) -> Client | None:
    """Files alone need an API server only for what they look up there."""
    try:
        return Client.connect(settings.kubeconfig, user_agent="ringfence-webhook")
    except RingfenceError:
        if CLUSTER in settings.sources or settings.kubeconfig is not None:
            raise
        return None


def _namespace_of(controller: str) -> str:
    """The namespace of `system:serviceaccount:NAMESPACE:NAME`."""
    parts = controller.split(":")
    return parts[2] if len(parts) == 4 else ""


def _served_here(policies: Policies) -> tuple[Policy, ...]:
    """Policies reduced to the rules whose lookups happen here."""
    later = (*policies.changing_existing(), *policies.noting_creators())
    return (*later, *policies.changing_requests())


def _together(before: Policies | None, after: Policies) -> Usage:
    """What old and new policies read: the old ones are served until the new ones can be."""
    return usage([*(_served_here(before) if before is not None else ()), *_served_here(after)])
