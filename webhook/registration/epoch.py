"""What is known about tenant labels: an epoch of admission, and how one follows another.

Pure; guard.py keeps the epoch that is in force, controller/handover.py takes over from the one
before. An *epoch* is a time without a gap in which the same ValidatingWebhookConfiguration (UID and
generation, both the API server's own) failed closed, and the webhook behind it decided by one
tenant file: the path that is registered carries the file's digest, and a webhook that has not read
that file refuses. Labels that were there when an epoch began are unproven, by namespace UID;
whatever appears later was let through. No clock takes part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import orjson

from generators.documents.json import Document, integer, mapping, meta_of
from generators.isolation.record import RecordEntry
from generators.isolation.tenancy import ownership
from generators.labels import GRANTS_ANNOTATION
from generators.objects import Namespace
from generators.tenants.assignment import assign_by_name
from generators.tenants.model import TenantConfig
from generators.tenants.packed import DIGEST, TEXT, unpacked

Entries = Callable[[str], RecordEntry | None]
"""What is recorded of a namespace's UID."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """A stretch of time in which one webhook configuration and one tenant file were in force."""

    uid: str
    generation: int
    label_key: str
    file: str = ""
    """Digest of the tenant file that decides."""
    announced: str = ""
    """Digest of the webhooks after our edit in progress."""
    unproven: frozenset[str] = frozenset()
    former: frozenset[str] = frozenset()
    """Keys of the tenant label in the file before, retired as long as this file is in force."""
    packed: str = field(default="", repr=False)
    """The tenant file itself, for the next leader."""
    unproven_grants: frozenset[str] = frozenset()
    """UIDs of namespaces that said grants before the epoch began."""

    def data(self) -> dict[str, str]:
        """As ConfigMap data."""
        return {
            "uid": self.uid,
            "generation": str(self.generation),
            "labelKey": self.label_key,
            DIGEST: self.file,
            "announced": self.announced,
            "unproven": orjson.dumps(sorted(self.unproven)).decode(),
            "unprovenGrants": " ".join(sorted(self.unproven_grants)),
            "formerKeys": " ".join(sorted(self.former)),
            TEXT: self.packed,
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
        return Epoch(
            uid,
            generation,
            key,
            data.get(DIGEST, ""),
            data.get("announced", ""),
            frozenset(unproven),
            frozenset(data.get("formerKeys", "").split()),
            data.get(TEXT, ""),
            frozenset(data.get("unprovenGrants", "").split()),
        )

    def covers(self, live: Document | None) -> Epoch | None:
        """The epoch with its generation brought up to the live configuration; None = broken."""
        if live is None or meta_of(live).uid != self.uid:
            return None
        generation = generation_of(live)
        if generation == self.generation:
            return self
        if generation == self.generation + 1 and self.announced == digest(live):
            return replace(self, generation=generation, announced="")
        return None

    def config(self, file: str) -> TenantConfig | None:
        """The tenant file that decided, as it was written down; `file`: what messages call it."""
        found = unpacked(self.packed, self.file, file)
        return None if found is None else found.retiring(self.former)


def former_keys(before: Epoch | None, config: TenantConfig) -> frozenset[str]:
    """Keys that stop to be the tenant label when `config` comes in force after `before`."""
    return frozenset() if before is None else frozenset({before.label_key}) - {config.label_key}


def digest(document: Document) -> str:
    """Of the `webhooks` of a configuration."""
    whole = orjson.dumps(document.get("webhooks"), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(whole).hexdigest()


def generation_of(document: Document) -> int:
    """Counted by the API server: how often an object's content changed."""
    return integer(mapping(document, "metadata"), "generation") or 0


# --- one epoch after another ---------------------------------------------------------------------


def settled(
    before: TenantConfig,
    vouched: Callable[[Namespace], bool],
    namespaces: Iterable[Namespace],
    entry: Entries,
) -> dict[str, RecordEntry | None]:
    """What the record has still to say, by UID, of what was decided under the file before.

    `vouched`: the label, as it is, passed admission under that file. Once recorded, the next file
    cannot give it another meaning.
    """
    found: dict[str, RecordEntry | None] = {}
    for namespace in namespaces:
        if namespace.terminating:
            continue
        recorded = entry(namespace.uid)
        decided = ownership(before, namespace, recorded, partial(vouched, namespace))
        if not decided.held and decided.entry(namespace.name) != recorded:
            found[namespace.uid] = decided.entry(namespace.name)
    return found


@dataclass(frozen=True, slots=True)
class Unproven:
    """UIDs of namespaces with something that admission cannot vouch for."""

    labels: frozenset[str] = frozenset()
    grants: frozenset[str] = frozenset()


def unproven(
    config: TenantConfig, before: Epoch | None, namespaces: Sequence[Namespace], entry: Entries
) -> Unproven:
    """What nothing vouches for when `config` comes in force after `before`.

    The same key was guarded all the time; under another, a label is what record or name say, or it
    may be forged.
    """
    if before is not None and before.label_key == config.label_key:
        return Unproven(before.unproven, before.unproven_grants)
    labels = frozenset(n.uid for n in namespaces if contradicts(config, n, entry(n.uid)))
    if before is not None:
        return Unproven(labels, before.unproven_grants)
    return Unproven(
        labels, frozenset(n.uid for n in namespaces if GRANTS_ANNOTATION in n.annotations)
    )


def contradicts(config: TenantConfig, namespace: Namespace, recorded: RecordEntry | None) -> bool:
    """Whether a label is not what record or name say."""
    label = namespace.labels.get(config.label_key)
    if recorded is not None:
        return label != recorded.tenant
    return label is not None and label != assign_by_name(config, namespace.name).tenant
