"""Where the agent reads the record: ConfigMaps of the controller's namespace.

The API supply knows `WatchedShards` only; a second place to keep the record is a second class here,
beside the one of `webhook/controller/shards.py` that writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from enforcer.sources.readers import ManifestReader, Unreadable
from generators.documents.json import Document
from generators.isolation.record import is_shard_name
from generators.kube.client import WatchScope
from generators.kube.resources import CONFIG_MAPS, Resource
from generators.labels import OURS

Entries = Mapping[str, str]
"""A shard: UID -> `entry_text`."""


class WatchedShards(Protocol):
    """Which objects are followed, and what they say."""

    @property
    def resource(self) -> Resource:
        """Their kind."""

    def scope(self, namespace: str) -> WatchScope:
        """Which of them, in the controller's namespace; others among them are left alone."""

    def is_shard(self, name: str) -> bool:
        """Whether the object of that name is a shard."""

    def reader(self, problems: Unreadable) -> Callable[[Document], Entries | None]:
        """Reads one; None, with its problem, for one that makes no sense."""


class WatchedConfigMaps:
    """One ConfigMap a shard."""

    resource = CONFIG_MAPS

    def scope(self, namespace: str) -> WatchScope:
        """What Ringfence keeps there."""
        return WatchScope(namespace=namespace, labels=OURS)

    def is_shard(self, name: str) -> bool:
        """By its name."""
        return is_shard_name(name)

    def reader(self, problems: Unreadable) -> Callable[[Document], Entries | None]:
        """Reads its data."""
        read = ManifestReader(problems).config_map

        def entries(document: Document) -> Entries | None:
            found = read(document)
            return found.data if found is not None else None

        return entries


SHARDS: WatchedShards = WatchedConfigMaps()
"""Where the record is kept today."""
