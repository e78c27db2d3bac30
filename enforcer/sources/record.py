"""The controller's record as the agent follows it: shard by shard, namespace by namespace.

The API supply passes it shards and namespaces and asks which namespaces have another tenant now. An
entry counts only for the namespace with its UID and its name; an unreadable entry is ignored, which
leaves a labelled namespace in quarantine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from generators.documents.json import Key
from generators.isolation.record import RecordEntry, parse_entry
from generators.objects import Namespace
from generators.tenants.assignment import assign_by_name
from generators.tenants.consents import Consent
from generators.tenants.model import TenantConfig


def nobody_is_kept_apart(config: TenantConfig, namespaces: Iterable[Key]) -> str:
    """The problem when there is no record at all: every packet passes then."""
    named = {assign_by_name(config, key.name).tenant for key in namespaces} - {None}
    return (
        "no record of tenants: tenants are not isolated; by their names, "
        f"{len(named)} of {len(config.tenants)} tenants of {config.file} have a namespace; "
        "a controller must run: see `ringfence controller verify`"
    )


class Record:
    """The tenant of each namespace."""

    def __init__(self) -> None:
        self._shards: dict[str, Mapping[str, str]] = {}
        """As they last arrived."""
        self._bad: dict[str, dict[str, None]] = {}
        """Shard -> its entries that make no sense."""
        self._by_uid: dict[str, RecordEntry] = {}
        self._uids: dict[str, str] = {}
        """Namespace -> its UID."""
        self._names: dict[str, str] = {}
        self._told: dict[str, str] = {}
        self._touched: dict[str, None] = {}
        self._saying: dict[str, RecordEntry] = {}
        """Entries with consents."""
        self._said: Mapping[str, tuple[Consent, ...]] = {}

    def put_shard(self, name: str, shard: Mapping[str, str] | None) -> None:
        """A shard is there, or gone; only entries that say something else are read."""
        data = shard or {}
        before = self._shards.pop(name, {})
        if data:
            self._shards[name] = data
        bad = self._bad.setdefault(name, {})
        # Sets are compared in C: shards are long, and seldom more than one entry is new.
        for uid in sorted(before.keys() - data.keys()):
            bad.pop(uid, None)
            self._put(uid, None)
        for uid, text in sorted(data.items() - before.items()):
            entry = parse_entry(text)
            bad.pop(uid, None)
            if entry is None:
                bad[uid] = None
            self._put(uid, entry)

    def _put(self, uid: str, entry: RecordEntry | None) -> None:
        self._by_uid.pop(uid, None)
        self._saying.pop(uid, None)
        if entry is not None:
            self._by_uid[uid] = entry
        if entry is not None and entry.consents:
            self._saying[uid] = entry
        if uid in self._names:
            self._touched[self._names[uid]] = None

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Shard -> which of its entries make no sense."""
        return {
            name: f"no entries: {', '.join(sorted(bad))}; the controller repairs them"
            for name, bad in self._bad.items()
            if bad
        }

    def put_namespace(self, name: str, namespace: Namespace | None) -> None:
        """A namespace is there, or gone."""
        uid = namespace.uid if namespace is not None else ""
        old = self._uids.pop(name, "")
        if old == uid:
            if uid:
                self._uids[name] = uid
            return
        self._names.pop(old, None)
        if uid:
            self._uids[name], self._names[uid] = uid, name
        self._touched[name] = None

    @property
    def consents(self) -> Mapping[str, tuple[Consent, ...]]:
        """Namespace -> what its tenant agreed to; the same object until that changes."""
        said = {
            entry.namespace: entry.consents
            for uid, entry in self._saying.items()
            if self._names.get(uid) == entry.namespace
        }
        if said != self._said:
            self._said = said
        return self._said

    def changes(self) -> Iterator[tuple[str, str | None]]:
        """Namespaces with another tenant than when this was last asked."""
        for name in self._touched:
            entry = self._by_uid.get(self._uids.get(name, ""))
            tenant = entry.tenant if entry is not None and entry.namespace == name else None
            if self._told.get(name) == tenant:
                continue
            if tenant is None:
                del self._told[name]
            else:
                self._told[name] = tenant
            yield name, tenant
        self._touched = {}
