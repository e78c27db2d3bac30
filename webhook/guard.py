"""Whether a tenant label passed our webhook: how the controller learns what the webhook decided.

The webhook may write nothing but the label, so the label is the decision, if it was made while the
validating webhook was in force, and a forgery otherwise. An *epoch* is a time without a gap in
which the same ValidatingWebhookConfiguration (UID and generation, both the API server's own) failed
closed. Labels that are there when an epoch begins are unproven, by namespace UID; whatever appears
later was let through. No clock takes part, and an epoch survives restarts of the controller.

    broken ──► settling: refuses for a while ──► inventory, written down ──► in force
       ▲                                                                        │
       └──────── somebody else edited or deleted the configuration ─────────────┘

Our own edits (a new CA) are announced in the written epoch before they are made.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import orjson

from generators.kube.client import Client, DryRun, PatchKind
from generators.kube.documents import Document, integer, mapping, meta_of, strings, text
from generators.kube.errors import Forbidden, NotFound, ServerFailed
from generators.kube.resources import CONFIG_MAPS, NAMESPACES
from generators.labels import MANAGED_BY, MANAGER
from generators.logs import event
from generators.objects import Namespace
from webhook import registration
from webhook.registration import Wanted
from webhook.settings import FIELD_MANAGER

LOG = logging.getLogger("ringfence.controller")
GUARD_NAME = "ringfence-guard"
PROBE = "default"
"""A namespace that every cluster has; it is only ever touched by a dry run."""
PROBE_TENANT = "Ringfence_Probe"
"""A label value that no tenant can be called."""


class GuardState(StrEnum):
    """What is known about admission."""

    OFF = "off"
    """No webhook is registered by this controller: labels prove nothing."""
    BROKEN = "broken"
    SETTLING = "settling"
    IN_FORCE = "in-force"


@dataclass(frozen=True, slots=True)
class Epoch:
    """A stretch of time in which the validating webhook was in force; as it is written down."""

    uid: str
    generation: int
    label_key: str
    announced: str = ""
    """Digest of the webhooks after an edit of ours that is under way."""
    unproven: frozenset[str] = frozenset()

    def data(self) -> dict[str, str]:
        """As ConfigMap data."""
        return {
            "uid": self.uid,
            "generation": str(self.generation),
            "labelKey": self.label_key,
            "announced": self.announced,
            "unproven": orjson.dumps(sorted(self.unproven)).decode(),
        }

    @staticmethod
    def parse(data: Mapping[str, str]) -> Epoch | None:
        """What `data` wrote; None for anything else."""
        try:
            unproven = orjson.loads(data["unproven"])
            generation = int(data["generation"])
            uid, key = data["uid"], data["labelKey"]
        except (KeyError, ValueError):
            return None
        if not isinstance(unproven, list):
            return None
        return Epoch(uid, generation, key, data.get("announced", ""), frozenset(unproven))

    def covers(self, live: Document | None) -> Epoch | None:
        """The epoch with its generation brought up to the live configuration; None = broken."""
        if live is None or meta_of(live).uid != self.uid:
            return None
        generation = _generation(live)
        if generation == self.generation:
            return self
        if generation == self.generation + 1 and self.announced == digest(live):
            return replace(self, generation=generation, announced="")
        return None


def digest(document: Document) -> str:
    """Of the `webhooks` of a configuration."""
    whole = orjson.dumps(document.get("webhooks"), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(whole).hexdigest()


class Guard:
    """Registers the validating webhook and vouches for labels. One thread steps, many ask."""

    def __init__(self, client: Client, namespace: str, settle_seconds: float) -> None:
        self._client = client
        self._namespace = namespace
        self._settle = settle_seconds
        self._lock = threading.Lock()
        self._epoch: Epoch | None = None
        self._written: Epoch | None = None
        self._candidate: tuple[str, int] | None = None
        self._refused_since = 0.0
        self._looked_at = float("-inf")
        self._covered = False
        self._exempt = frozenset(registration.exempt(namespace))
        self.state = GuardState.OFF
        self.probe = "not asked yet"
        """What the API server answered to the last attempt that must be refused."""

    # --- for workers ----------------------------------------------------------------------------

    def proven(self, want: Wanted | None, namespace: Namespace) -> bool:
        """Whether the label of a namespace, as it was seen, passed the webhook.

        Asks the API server now: who saw the label first and the configuration afterwards cannot
        miss that somebody switched admission off before setting the label.
        """
        asked = time.monotonic()
        with self._lock:
            epoch = self._epoch
            if want is None or epoch is None or namespace.name in self._exempt:
                return False
            if namespace.uid in epoch.unproven:
                return False
            # One answer serves all that wait: it was asked for after each of them had seen
            # its label.
            if self._looked_at <= asked:
                began = time.monotonic()
                live = registration.fetch(self._client, want)
                self._looked_at, self._covered = began, epoch.covers(live) is not None
            return self._covered

    def corrected(self, uid: str) -> None:
        """The label was set right: from now on it changes by admission only."""
        with self._lock:
            if self._epoch is not None and uid in self._epoch.unproven:
                self._epoch = replace(self._epoch, unproven=self._epoch.unproven - {uid})

    @property
    def unproven(self) -> int:
        """How many labels are older than the epoch and not settled yet."""
        epoch = self._epoch
        return 0 if epoch is None else len(epoch.unproven)

    # --- for the one that steps -----------------------------------------------------------------

    def resume(self, want: Wanted | None, label_key: str) -> None:
        """Leading begins: take up the epoch that is written down, if it has not been broken."""
        with self._lock:
            self._epoch = self._written = None
            self._candidate = None
            self._looked_at = float("-inf")
            self.state = GuardState.OFF if want is None else GuardState.BROKEN
            if want is None:
                return
            self._written = Epoch.parse(self._read())
            if self._written is None or self._written.label_key != label_key:
                return
            self._epoch = self._written.covers(registration.fetch(self._client, want))
            if self._epoch is not None:
                self.state = GuardState.IN_FORCE

    def step(
        self,
        want: Wanted,
        label_key: str,
        doubtful: Callable[[Iterable[Document]], frozenset[str]],
        reasserted: Callable[[Wanted, bool], None],
    ) -> float:
        """Assert the configuration and advance; seconds after which the next step is due.

        `doubtful` picks the UIDs of namespaces whose label is not what record or name say.
        """
        with self._lock:
            live = registration.fetch(self._client, want)
            covered = self._epoch.covers(live) if self._epoch is not None else None
            if covered is None or covered.label_key != label_key:
                self._break()
            else:
                self._epoch = covered
            if live is None or registration.differs(want, live):
                self._announce(want)
                before, live = live, registration.put(self._client, want, live)
                reasserted(want, before is not None)
                if self._epoch is not None:
                    self._epoch = self._epoch.covers(live)
            if self._epoch is None:
                return self._settle_down(live, label_key, doubtful)
            self._keep()
            self._write()
            return float("inf")

    def _keep(self) -> None:
        """What is written down stays so while we run: a leader after us goes by it."""
        if self._written is not None and Epoch.parse(self._read()) != self._written:
            event(LOG, "guard_put_back", logging.WARNING, name=GUARD_NAME)
            self._written = None

    def _break(self) -> None:
        self._looked_at = float("-inf")
        if self._epoch is not None:
            event(LOG, "admission_gap", logging.ERROR, uid=self._epoch.uid)
        self._epoch = None
        if self.state is not GuardState.SETTLING:
            self.state = GuardState.BROKEN

    def _announce(self, want: Wanted) -> None:
        """Write down what our own edit will look like: a crash must not look like theirs."""
        if self._epoch is not None:
            self._epoch = replace(self._epoch, announced=digest(want.document))
            self._write()

    def _settle_down(
        self,
        live: Document,
        label_key: str,
        doubtful: Callable[[Iterable[Document]], frozenset[str]],
    ) -> float:
        now = time.monotonic()
        candidate = (meta_of(live).uid, _generation(live))
        refused = self._refuses(label_key)
        if not refused or candidate != self._candidate:
            self._candidate, self._refused_since = candidate, now
            self.state = GuardState.SETTLING
        left = self._refused_since + self._settle - now
        if not refused or left > 0:
            return max(0.1, min(left, 1.0))
        pages = self._client.pages(NAMESPACES)
        unproven = frozenset(uid for page in pages for uid in doubtful(page.items))
        self._epoch = Epoch(*candidate, label_key, unproven=unproven)
        self._write()
        self.state = GuardState.IN_FORCE
        event(LOG, "admission_in_force", uid=candidate[0], unproven=len(unproven))
        return float("inf")

    def _refuses(self, label_key: str) -> bool:
        """Whether the API server refuses what it must, without changing anything."""
        labels: Document = {label_key: PROBE_TENANT}
        try:
            self._client.patch(
                NAMESPACES,
                PROBE,
                "",
                {"metadata": {"labels": labels}},
                kind=PatchKind.MERGE,
                manager=FIELD_MANAGER,
                dry_run=DryRun.ALL,
            )
        except (Forbidden, ServerFailed) as error:
            self.probe = error.status.message
            return "webhook" in error.status.message
        self.probe = "admission let a label pass that it must refuse"
        return False

    def _read(self) -> dict[str, str]:
        try:
            document = self._client.get(CONFIG_MAPS, GUARD_NAME, self._namespace)
        except NotFound:
            return {}
        return strings(document, "data")

    def _write(self) -> None:
        epoch = self._epoch
        if epoch is None or epoch == self._written:
            return
        document: Document = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": GUARD_NAME,
                "namespace": self._namespace,
                "labels": {MANAGED_BY: MANAGER},
            },
            "data": epoch.data(),
        }
        try:
            live = self._client.get(CONFIG_MAPS, GUARD_NAME, self._namespace)
        except NotFound:
            self._client.create(CONFIG_MAPS, document, manager=FIELD_MANAGER)
        else:
            version = text(mapping(live, "metadata"), "resourceVersion")
            meta = dict(mapping(document, "metadata")) | {"resourceVersion": version}
            self._client.update(CONFIG_MAPS, document | {"metadata": meta}, manager=FIELD_MANAGER)
        self._written = epoch


def _generation(document: Document) -> int:
    return integer(mapping(document, "metadata"), "generation") or 0


def problem(guard: Guard) -> str:
    """Why labels are not believed at the moment; empty when they are, or when nobody asks."""
    if guard.state in (GuardState.OFF, GuardState.IN_FORCE):
        return ""
    return f"admission is {guard.state.value}: {guard.probe}"
