"""The controller: keeps every namespace as the tenant file wants it, and admission in force.

Called by `ringfence controller run`. Threads: reflectors (followed.py), workers that take
namespaces from one queue (reconcile.py), the ledger's writer, the lease, and the registrar, which
runs this class's `_turn`: leading begins and ends, the tenant file, admission, status. Every
replica follows the cluster; only the leader writes, and each write asks again whether it leads.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping

from generators.checks import Check, bridged, failed, good
from generators.documents.json import Key
from generators.errors import MachineLacks, RingfenceError
from generators.isolation.tenancy import Finding
from generators.kube.client import Client
from generators.kube.errors import Fenced
from generators.kube.events import Recorder
from generators.kube.lease import Leadership
from generators.kube.queue import WorkQueue
from generators.kube.reflector import ReflectorStats
from generators.kube.workers import Workers
from generators.objects import Namespace
from generators.process.logs import event
from webhook import rbac
from webhook.background.writer import Protection
from webhook.controller import permissions
from webhook.controller.agreed import AgreedTenants
from webhook.controller.cilium import CiliumParts
from webhook.controller.followed import ChangeListeners, Followed
from webhook.controller.handover import Handover
from webhook.controller.keeper import AdmissionKeeper, Where
from webhook.controller.metrics import ControllerMetrics, Moment
from webhook.controller.policies import PolicyDeps, PolicyParts
from webhook.controller.reconcile import Reconciler, ReconcilerDeps
from webhook.controller.record import RecordWriter
from webhook.controller.settings import ControllerSettings
from webhook.controller.shards import kept_shards
from webhook.controller.status import ClusterStatus, StatusPage, count
from webhook.controller.walls import WallKeeper
from webhook.controller.workers import NamespaceWork
from webhook.policies.book import limits_for
from webhook.registration.configuration import (
    SERVICE_ACCOUNT,
    Found,
    Registrar,
    WantedRegistration,
    WebhookTarget,
    exempt_person,
)
from webhook.registration.guard import AdmissionGuard, GuardState, Vouched, problem
from webhook.registration.probing import Prober
from webhook.reload import TenantFile
from webhook.settings import LEASE_NAME

LOG = logging.getLogger("ringfence.controller")
TURN_SECONDS = 0.5


class Controller:
    """`run` until `stop`."""

    def __init__(self, settings: ControllerSettings, client: Client) -> None:
        self._settings = settings
        self.tenants = TenantFile(settings.tenant_file, settings.last_good)
        self.metrics = ControllerMetrics(self.tenants, self._moment)
        self._client = client
        self._fenced = client.fenced(self._leads)
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._prepared = False
        self._nodes_changed = False
        self._step_due = 0.0
        self._starting = "starting"
        self._person = ""
        self._queue: WorkQueue[str] = WorkQueue()
        self._shards = kept_shards(self._fenced, settings.namespace)
        self._ledger = RecordWriter(
            self._shards, self._queue.add, self._leads, self._record_written
        )
        self._assertion = Registrar(self._fenced, self._reasserted)
        self._guard = AdmissionGuard(
            self._fenced, settings.namespace, self._assertion, settings.timing
        )
        self._handover = self._new_handover()
        self._agreed = AgreedTenants(lambda: self._handover.config, self._ledger)
        self._keeper: AdmissionKeeper | None = None
        self._prober = Prober(self._fenced, self._key_to_probe)
        self._status = StatusPage(self._fenced, settings.namespace)
        self._leadership = Leadership(
            client,
            settings.namespace,
            LEASE_NAME,
            settings.identity,
            changed=lambda _: self._wake.set(),
            timing=settings.lease,
        )
        self._followed = Followed(
            client,
            settings.namespace,
            self._shards.resource,
            settings.target is not None,
            ChangeListeners(self._queue.add, self._node, self._wake.set, self._admission),
        )
        self._policies = self._new_policies()
        self._cilium = CiliumParts(
            client,
            self._fenced,
            self._leads,
            self._count_write,
            judge=settings.cilium_policies,
            install=settings.install_cilium_kinds,
        )
        self._walls = WallKeeper(self._fenced, self._count_write) if settings.walls else None
        work = NamespaceWork(
            lambda: self._prepared and self._leads() and not self._handover.paused,
            lambda name: self._reconciler.reconcile(self._agreed.config, name),
            lambda error: self.metrics.failures.labels(type(error).__name__).inc(),
        )
        self._workers = Workers(self._queue, self._stopping, work, "worker")

    def _new_handover(self) -> Handover:
        return Handover(
            self.tenants.config,
            self._fenced,
            self._guard,
            self._ledger,
            self._queue,
            self._proven,
            lambda namespace: self._reconciler.bring(self._agreed.config, namespace),
            self._taken,
        )

    def _count_write(self, kind: str, action: str) -> None:
        self.metrics.writes.labels(kind, action).inc()

    def _new_policies(self) -> PolicyParts:
        settings = self._settings
        return PolicyParts(
            PolicyDeps(
                self._client,
                self._fenced,
                settings.namespace,
                self._tenancy,
                self._leads,
                self._wake.set,
                self.metrics.registry,
            ),
            settings.policies,
            install=settings.install_policy_kinds,
            registered=settings.target is not None,
        )

    # --- life -----------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until `stop`; MachineLacks when this identity may not do what has to be done."""
        user = self._introduce()
        if user is None:
            return
        event(LOG, "started", user=user, config=self.tenants.config.digest)
        if self._person:
            event(LOG, "exempt_person", logging.WARNING, problem=exempt_person(user))
        recorder = Recorder(self._fenced, "controller", self._settings.identity)
        desk = ReconcilerDeps(
            self._fenced,
            self._followed.namespaces.store,
            self._followed.policies.store,
            self._ledger,
            recorder,
            self._proven,
            lambda namespace, file: self._proven(namespace, file, Vouched.GRANTS),
            self._guard.corrected,
            self._guard.withdrawn,
            self._count_write,
            lambda finding: self.metrics.findings.labels(finding.value).inc(),
            self._queue.add_after,
            self._followed.nodes.store,
        )
        self._reconciler = Reconciler(desk)
        if self._settings.target is not None:
            self._keeper = self._new_keeper(self._settings.target, user)
        self._policies.begin(recorder, self._home)
        self._followed.start()
        self._ledger.start()
        self._workers.start()
        self._leadership.start()
        self._prober.start()
        self._policies.start()
        self._cilium.start(recorder)
        self._starting = ""
        self._loop()
        self._end()

    def stop(self) -> None:
        """End `run` after work in progress is finished; releases the lease."""
        self._stopping.set()
        self._wake.set()

    def _home(self) -> Namespace | None:
        """The controller's own namespace."""
        return self._followed.namespaces.store.get(Key("", self._settings.namespace))

    def _tenancy(self) -> Protection:
        config = self._handover.config
        further = {key for tenant in config.tenants.values() for key in tenant.labels}
        limits = limits_for(config, self._settings.allowed_kinds, self._settings.namespace)
        return Protection(limits, frozenset({config.label_key, *further}))

    def _new_keeper(self, target: WebhookTarget, user: str) -> AdmissionKeeper:
        settings = self._settings
        return AdmissionKeeper(
            self._fenced,
            self._guard,
            self._assertion,
            Where(
                target,
                settings.namespace,
                settings.certificate_directory,
                settings.lifetimes,
                settings.issued_secret,
            ),
            user,
            lambda why: self.metrics.renewals.labels(why).inc(),
            self._policies.registrar,
        )

    def _introduce(self) -> str | None:
        """Who we are and whether that is enough; waits for an API server that is away."""
        while not self._stopping.is_set():
            try:
                walls = rbac.WALLS if self._walls is not None else ()
                more = (*self._policies.rights, *self._cilium.rights, *walls)
                rights = rbac.controller(self._settings.issued_secret, more)
                permissions.check(self._client, self._settings.namespace, rights)
                permissions.home(self._client, self._settings.namespace)
                user = permissions.username(self._client)
                self._person = "" if user.startswith(SERVICE_ACCOUNT) else user
                return user
            except MachineLacks:
                raise
            except RingfenceError as error:
                self._starting = str(error)
                event(LOG, "api_server_away", logging.WARNING, problem=str(error))
                self._stopping.wait(1.0)
        return None

    def _end(self) -> None:
        self._queue.close()
        self._prober.stop()
        self._workers.join(5)
        self._policies.stop()
        self._cilium.stop()
        self._ledger.close()
        self._leadership.stop()
        self._followed.stop()
        event(LOG, "stopped")

    # --- the registrar --------------------------------------------------------------------------

    def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                self._turn()
            except Fenced:
                self._unprepare()
            except RingfenceError as error:
                self._step_due = time.monotonic() + 1.0
                event(LOG, "turn_failed", logging.WARNING, problem=str(error))
            self._wake.wait(TURN_SECONDS)
            self._wake.clear()

    def _turn(self) -> None:
        changed = self.tenants.check()
        if changed is not None:
            level = logging.ERROR if changed.refused else logging.INFO
            event(LOG, changed.event, level, file=changed.file, detail=changed.detail)
            if not changed.refused:
                self._step_due = 0.0
                if self._keeper is None or not self._prepared:
                    self._handover.take(self.tenants.config)
        if not self._leads():
            self._unprepare()
        elif not self._prepared and self._followed.synced:
            self._prepare()
        if self._nodes_changed:
            self._nodes_changed = False
            self._everything()
        if self._prepared:
            self._ledger.follow(self._shards.versions(self._followed.kept.store.snapshot()))
        if self._prepared:
            self._look_again(self._agreed.moved())
        if self._prepared and self._walls is not None:
            self._walls.step(self._agreed.config)
        if self._prepared:
            self._cilium.step()
        if self._prepared and self._policies.step():
            self._step_due = 0.0
        now = time.monotonic()
        if now >= self._step_due and self._keeper is not None:
            self._step_due = now + self._step(self._keeper)
        if self._prepared:
            self._say()
        self._policies.turn()

    def _unprepare(self) -> None:
        self._prepared = False
        self._policies.follow()

    def _prepare(self) -> None:
        """Leading has begun: take over where the last leader stopped, then look at everything."""
        self._ledger.load()
        epoch = None if self._keeper is None else self._keeper.resume()
        self._handover.resume(epoch, self.tenants.config)
        self._policies.lead()
        self._reconciler.forget_seen()
        self._status.forget()
        self._step_due = 0.0
        self._prepared = True
        self._taken()

    def _step(self, keeper: AdmissionKeeper) -> float:
        if self._prepared:
            return keeper.step(self.tenants, self._handover)
        keeper.files()
        return 5.0

    def _taken(self) -> None:
        """Another tenant file is in force, or work goes on as before."""
        self._policies.limit()
        self._everything()

    def _everything(self) -> None:
        self._status.begin_anew()
        known = {key.name for key in self._followed.namespaces.store.snapshot()}
        for name in sorted(known | {e.namespace for e in self._ledger.snapshot().values()}):
            self._queue.add(name)

    def _look_again(self, tenants: frozenset[str]) -> None:
        """At the namespaces of tenants whose grants changed."""
        if tenants:
            for entry in self._ledger.snapshot().values():
                if entry.tenant in tenants:
                    self._queue.add(entry.namespace)

    def _say(self) -> None:
        digest = self._handover.config.digest
        idle = self._queue.idle and self._ledger.idle and not self._queue.stats().delayed
        if not self._status.due(digest, idle):
            return
        self._status.say(
            ClusterStatus(
                digest=digest,
                synchronized=self._status.synchronized(digest),
                tenants=count(self._ledger.snapshot().values()),
                namespaces=len(self._followed.namespaces.store),
                problem=self.tenants.problem or self._waiting(),
                policies=self._policies.summary(),
                allowed_kinds=tuple(sorted(set(self._settings.allowed_kinds))),
                webhook=self._prober.problem or "",
                undecided={n: why for n, (_, why) in self._reconciler.undecided().items()},
            )
        )

    def _waiting(self) -> str:
        """Why the newest tenant file is not in force yet."""
        newest = self.tenants.config.digest
        return problem(self._guard) if self._handover.config.digest != newest else ""

    # --- told by others -------------------------------------------------------------------------

    def _leads(self) -> bool:
        return self._leadership.leading

    def _proven(self, namespace: Namespace, file: str, what: Vouched = Vouched.LABEL) -> bool:
        keeper = self._keeper
        if keeper is None:
            return False
        return self._guard.proven(keeper.validating, namespace, file, what)

    def _key_to_probe(self) -> str | None:
        """The tenant label, while the webhook has to answer for it."""
        in_force = self._prepared and self._guard.state is GuardState.IN_FORCE
        return self._handover.config.label_key if in_force and self._leads() else None

    def _record_written(self) -> None:
        self.metrics.writes.labels("ConfigMap", "Update").inc()

    def _reasserted(self, want: WantedRegistration, found: Found) -> None:
        self.metrics.reasserted.labels(want.resource.kind, found).inc()
        event(LOG, "admission_asserted", kind=want.resource.kind, object=want.name, was=found)

    def _node(self) -> None:
        self._nodes_changed = True
        self._wake.set()

    def _admission(self) -> None:
        self._step_due = 0.0
        self._wake.set()

    # --- what others may know -------------------------------------------------------------------

    def _moment(self) -> Moment:
        kept = self._keeper.kept if self._keeper is not None else None
        return Moment(
            leading=self._leads(),
            reflectors=self._copies(),
            queue=self._queue.stats(),
            guard=self._guard.state,
            unproven=self._guard.unproven,
            behind=len(self._guard.behind),
            recorded=count(self._ledger.snapshot().values()),
            undecided=self._undecided(),
            webhook=self._prober.problem,
            certificate_expiry=kept.certificate.not_valid_after_utc.timestamp() if kept else None,
            authority_expiry=kept.authorities[0].not_valid_after_utc.timestamp() if kept else None,
        )

    def _undecided(self) -> Mapping[Finding, int]:
        if self._starting or not self._leads():
            return {}
        return Counter(finding for finding, _ in self._reconciler.undecided().values())

    def _copies(self) -> tuple[ReflectorStats, ...]:
        """One a resource; of those that are followed twice, the one that tenancy rests on."""
        found = {stats.resource: stats for stats in self._followed.stats()}
        for stats in (*self._policies.stats(), *self._cilium.stats()):
            found.setdefault(stats.resource, stats)
        return tuple(found.values())

    def live(self) -> list[Check]:
        """Of /livez: threads that must not end."""
        if self._starting:
            return [good("starting", self._starting)]
        dead = self._workers.dead()
        if not self._ledger.alive:
            dead.append("ledger")
        if not self._policies.alive:
            dead.append("policies")
        if not self._cilium.alive:
            dead.append("cilium-status")
        return [failed("ended", ", ".join(dead))] if dead else [good("workers")]

    def ready(self) -> list[Check]:
        """Of /readyz."""
        if self._starting:
            return [failed("starting", self._starting)]
        checks = [self.tenants.health, *self._followed.checks(), *self._policies.checks()]
        if self._walls is not None and self._leads():
            checks.append(self._walls.check())
        return [*checks, self._leader_check(), *self._admission_checks()]

    def _leader_check(self) -> Check:
        if self._leads():
            unread = failed("leader, but the record is not read yet")
            return good("leader") if self._prepared else unread
        return self._leadership.standing.check()

    def _admission_checks(self) -> list[Check]:
        if self._keeper is None:
            return [good("admission", "not registered by this controller")]
        kept = self._keeper.kept
        checks = [kept.check(time.time()) if kept else failed("certificate", "there is none yet")]
        if self._person:
            checks.append(bridged(exempt_person(self._person)))
        if self._leads() and (why := problem(self._guard)):
            checks.append(bridged(why))
        if dead := self._prober.problem:
            checks.append(bridged("webhook", f"the API server refuses namespaces: {dead}"))
        return checks
