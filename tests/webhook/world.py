"""A cluster as pure values: two API servers, two webhooks, one controller, any order of events.

Decisions are the real ones (mutate, validate, ownership, what one epoch leaves to the next); the
order in which things happen is what a test chooses. Everything that the guard waits for is a
condition here: an API server that has not heard of a registration, a webhook that has not read a
file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from generators.isolation.plan import wanted_for
from generators.isolation.record import Basis, RecordEntry
from generators.isolation.tenancy import ownership
from generators.objects import Namespace
from generators.tenants.assignment import Requester, assign_by_name, is_admin
from generators.tenants.model import TenantConfig
from tests.webhook.reviews import create, labels, ns, patched, update
from webhook.registration.epoch import Epoch, former_keys, settled, unproven
from webhook.reload import KEPT_FILES
from webhook.serving import mutate, validate


@dataclass(frozen=True)
class Registered:
    """The path at which the webhook is asked: by which file, and whether nothing is decided."""

    file: str
    closed: bool = False


@dataclass
class Webhook:
    """One replica and the files that it has read, the newest first."""

    files: list[TenantConfig]

    def read(self, config: TenantConfig) -> None:
        others = [each for each in self.files if each.digest != config.digest]
        self.files = [config, *others][:KEPT_FILES]

    def under(self, digest: str) -> TenantConfig | None:
        return next((each for each in self.files if each.digest == digest), None)


@dataclass
class World:
    """`file` is what is on disk; `granted`: what admission gave a UID, ever."""

    file: TenantConfig
    namespaces: dict[str, Namespace] = field(default_factory=dict)
    record: dict[str, RecordEntry] = field(default_factory=dict)
    granted: dict[str, set[str]] = field(default_factory=dict)
    named: dict[str, set[str | None]] = field(default_factory=dict)
    refused: int = 0

    def __post_init__(self) -> None:
        self.webhooks = [Webhook([self.file]), Webhook([self.file])]
        self.registered = Registered(self.file.digest)
        self.servers = [self.registered, self.registered]
        self.config = self.read = self.file
        self.epoch = Epoch("uid", 1, self.file.label_key, self.file.digest)
        self.files = {self.file.digest: self.file}
        self.in_force = [self.file]

    # --- users ----------------------------------------------------------------------------------

    def create(
        self, name: str, by: Requester, wish: Mapping[str, str], server: int, webhook: int
    ) -> bool:
        if name in self.namespaces:
            return False
        subject, config = ns(name, dict(wish)), self._decides(server, webhook)
        if config is None:
            return False
        final = patched(subject, mutate.decide(config, create(subject, by)))
        decision = validate.decide(config, create(final, by))
        if not decision.allowed:
            return False
        uid = f"uid-{len(self.granted)}-{name}"
        self.namespaces[name] = Namespace(name, labels(final), uid=uid)
        self.granted[uid] = {decision.tenant} if decision.tenant else set()
        self.named[uid] = {assign_by_name(each, name).tenant for each in self.in_force}
        return True

    def relabel(
        self, name: str, by: Requester, key: str, value: str | None, server: int, webhook: int
    ) -> bool:
        live, config = self.namespaces.get(name), self._decides(server, webhook)
        if live is None or config is None:
            return False
        wanted = {k: v for k, v in live.labels.items() if k != key}
        wanted |= {} if value is None else {key: value}
        before, after = ns(name, dict(live.labels)), ns(name, wanted)
        after = patched(after, mutate.decide(config, update(before, after, by)))
        if not validate.decide(config, update(before, after, by)).allowed:
            return False
        self.namespaces[name] = replace(live, labels=labels(after))
        now = labels(after).get(config.label_key)
        if is_admin(config, by) and now is not None:
            self.granted[live.uid].add(now)
        return True

    def _decides(self, server: int, webhook: int) -> TenantConfig | None:
        """The file by which a request is judged; None: it is refused."""
        path = self.servers[server]
        config = None if path.closed else self.webhooks[webhook].under(path.file)
        self.refused += config is None
        return config

    # --- what happens by itself -----------------------------------------------------------------

    def write(self, config: TenantConfig) -> None:
        self.file = config
        self.files[config.digest] = config

    def webhook_reads(self, webhook: int) -> None:
        self.webhooks[webhook].read(self.file)

    def controller_reads(self) -> None:
        self.read = self.file

    def server_hears(self, server: int) -> None:
        self.servers[server] = self.registered

    def restart(self) -> None:
        """What the controller knows is what is written down."""
        self.read = self.file
        former = self.files[self.epoch.file]
        self.config = former.retiring(self.epoch.former)

    # --- the controller -------------------------------------------------------------------------

    def step(self, *, patient: bool = True) -> None:
        """The guard's next step; `patient` = it still waits for webhooks that lag behind."""
        wish = self.read
        if self.epoch.file == wish.digest:
            self.registered = Registered(wish.digest)
        elif patient and any(each.files[0].digest != wish.digest for each in self.webhooks):
            self.registered = Registered(self.epoch.file)
        else:
            self.registered = Registered(wish.digest, self.epoch.label_key != wish.label_key)
            if all(server == self.registered for server in self.servers):
                self._hand_over(wish)

    def _hand_over(self, wish: TenantConfig) -> None:
        before, there = self.epoch, list(self.namespaces.values())
        if before.file == self.config.digest:
            vouched = settled(
                self.config, lambda n: n.uid not in before.unproven, there, self.record.get
            )
            for uid, entry in vouched.items():
                self._enter(uid, entry)
        doubtful = unproven(wish, before, there, self.record.get)
        former = former_keys(before, wish)
        self.epoch = Epoch("uid", 1, wish.label_key, wish.digest, "", doubtful.labels, former)
        self.config = wish.retiring(former)
        self.in_force.append(wish)
        for namespace in there:
            named = assign_by_name(wish, namespace.name).tenant
            self.named.setdefault(namespace.uid, set()).add(named)
        self.registered = Registered(wish.digest)

    def reconcile(self, name: str, *, crash: bool = False) -> None:
        """One namespace as a worker brings it; `crash`: after the label, before the record."""
        namespace = self.namespaces.get(name)
        if namespace is None:
            return
        recorded = self.record.get(namespace.uid)
        proven = namespace.uid not in self.epoch.unproven
        decided = ownership(self.config, namespace, recorded, lambda: proven)
        if decided.held:
            return
        entry = decided.entry(name)
        if (
            entry is not None
            and entry != recorded
            and self.config.label_key not in namespace.labels
        ):
            self._enter(namespace.uid, entry)
            return
        wanted = wanted_for(
            self.config, namespace, decided.assignment, left_behind=decided.left_behind
        )
        if wanted and isinstance(wanted[0].item, Namespace) and wanted[0].item != namespace:
            self.namespaces[name] = wanted[0].item
            self.epoch = replace(self.epoch, unproven=self.epoch.unproven - {namespace.uid})
        if not crash:
            self._enter(namespace.uid, entry)

    def _enter(self, uid: str, entry: RecordEntry | None) -> None:
        if entry is None:
            self.record.pop(uid, None)
        else:
            self.record[uid] = entry

    def follow(self) -> None:
        """Everything comes to rest under the file on disk."""
        for webhook in (0, 1):
            self.webhook_reads(webhook)
        self.controller_reads()
        for _ in range(3):
            self.step()
            self.server_hears(0)
            self.server_hears(1)
        for _ in range(3):
            for name in self.namespaces:
                self.reconcile(name)

    # --- the claim ------------------------------------------------------------------------------

    def check(self) -> None:
        """A recorded tenant is what admission gave, or what a file in force says of the name."""
        for uid, entry in self.record.items():
            if entry.basis is Basis.ADMISSION:
                assert entry.tenant in self.granted[uid], (uid, entry, self.granted[uid])
            else:
                assert entry.tenant in self.named[uid], (uid, entry, self.named[uid])
