"""Where the record's shards are kept: ConfigMaps of the controller's own namespace.

The ledger knows `Shards` only; a second place to keep them is a second class here, beside the one
of `enforcer/sources/shards.py` that reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from generators.documents.json import Key
from generators.isolation.record import RECORD_PREFIX, SHARDS
from generators.kube.client import Client
from generators.kube.resources import CONFIG_MAPS, Resource
from webhook.kept import Content, KeptObject


class Shards(Protocol):
    """Reads and writes one shard at a time, each as UID -> `entry_text`."""

    @property
    def resource(self) -> Resource:
        """The kind of what holds them, which the controller follows."""

    def read(self, shard: str) -> Content:
        """As it is now."""

    def write(self, shard: str, data: Mapping[str, str], over: Content) -> Content:
        """Have it hold `data`; Conflict where somebody wrote it after `over` was read."""

    def versions(self, watched: Mapping[Key, str]) -> Mapping[str, str]:
        """Shard -> version, from the versions of objects as a watch has them."""


class ConfigMapShards:
    """One ConfigMap a shard."""

    resource = CONFIG_MAPS

    def __init__(self, client: Client, namespace: str) -> None:
        self._objects = {
            name: KeptObject(client, CONFIG_MAPS, namespace, RECORD_PREFIX + name)
            for name in SHARDS
        }

    def read(self, shard: str) -> Content:
        """As it is now."""
        return self._objects[shard].read()

    def write(self, shard: str, data: Mapping[str, str], over: Content) -> Content:
        """Have it hold `data`; Conflict where somebody wrote it after `over` was read."""
        return self._objects[shard].write(data, over)

    def versions(self, watched: Mapping[Key, str]) -> Mapping[str, str]:
        """Shard -> version, from the versions of ConfigMaps."""
        by_name = {key.name: version for key, version in watched.items()}
        return {name: by_name.get(RECORD_PREFIX + name, "") for name in SHARDS}


def kept_shards(client: Client, namespace: str) -> Shards:
    """Where the record is kept today."""
    return ConfigMapShards(client, namespace)
