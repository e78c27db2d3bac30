"""The controller's record as the agent follows it: shard by shard, namespace by namespace.

The API supply tells it of shards and namespaces and asks which namespaces have another tenant now.
What may surprise: an entry counts only for the namespace with its UID and its name; an entry that
cannot be read is none, which leaves a labelled namespace in quarantine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from generators.objects import ConfigMap, Namespace
from generators.record import RecordEntry, parse_entry


class Record:
    """Which namespace is whose."""

    def __init__(self) -> None:
        self._shards: dict[str, Mapping[str, RecordEntry]] = {}
        self._by_uid: dict[str, RecordEntry] = {}
        self._uids: dict[str, str] = {}
        """Namespace -> its UID."""
        self._names: dict[str, str] = {}
        self._told: dict[str, str] = {}
        self._touched: dict[str, None] = {}
        self.unreadable: dict[str, str] = {}
        """Shard -> which of its entries make no sense."""

    def put_shard(self, name: str, shard: ConfigMap | None) -> None:
        """A shard is there, or gone."""
        data = shard.data if shard is not None else {}
        parsed = {uid: parse_entry(text) for uid, text in data.items()}
        new = {uid: entry for uid, entry in parsed.items() if entry is not None}
        old = self._shards.pop(name, {})
        if new:
            self._shards[name] = new
        for uid in old.keys() - new.keys():
            self._by_uid.pop(uid, None)
        self._by_uid.update(new)
        for uid in old.keys() | new.keys():
            if old.get(uid) != new.get(uid) and uid in self._names:
                self._touched[self._names[uid]] = None
        bad = sorted(uid for uid, entry in parsed.items() if entry is None)
        self.unreadable.pop(name, None)
        if bad:
            self.unreadable[name] = f"no entries: {', '.join(bad)}; the controller repairs them"

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
