"""Keeps the tenant wall in the API server as ClusterNetworkPolicies, for engines that enforce them.

Only with `--walls`, only by the leader, and only where the API server serves the kind. They come
from generators/isolation/walls.py; the ValidatingAdmissionPolicy of generated policies protects
them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from generators.checks import Check, bridged, good
from generators.documents.json import Document, key_of, labels_of, mapping
from generators.isolation.walls import walls
from generators.kube.client import Client, WatchScope
from generators.kube.discovery import Discovery
from generators.kube.errors import AlreadyExists, Conflict, NotFound
from generators.kube.resources import CLUSTER_NETWORK_POLICIES as WALLS
from generators.labels import WALL_LABELS
from generators.tenants.model import TenantConfig
from webhook.settings import FIELD_MANAGER

LOOK_SECONDS = 10.0
NOT_SERVED = f"the API server does not serve {WALLS.kind} {WALLS.api_version}; install its CRD"


class WallKeeper:
    """`step` brings the walls to what a tenant file wants; one thread calls it."""

    def __init__(self, client: Client, written: Callable[[str, str], None]) -> None:
        """`written`: kind and action of each write."""
        self._client = client
        self._written = written
        self._discovery = Discovery(client)
        self._due = 0.0
        self._digest = ""
        self._problem = ""
        self._kept = 0

    def step(self, config: TenantConfig) -> None:
        """At once when the file is another one, and every few seconds, as somebody may edit."""
        now = time.monotonic()
        if now < self._due and config.digest == self._digest:
            return
        self._due, self._digest = now + LOOK_SECONDS, config.digest
        if self._discovery.find(WALLS.group, WALLS.version, WALLS.kind) is None:
            self._discovery.forget()
            self._problem = NOT_SERVED
            return
        self._problem = ""
        self._bring({key_of(wall).name: wall for wall in walls(config)})

    def check(self) -> Check:
        """Of /readyz: without walls our other layers hold, so it never fails."""
        return bridged("walls", self._problem) if self._problem else good("walls", str(self._kept))

    def _bring(self, wanted: dict[str, Document]) -> None:
        found = self._client.list_all(WALLS, WatchScope(labels=WALL_LABELS))
        live = {key_of(document).name: document for document in found}
        for name, wall in steps(wanted, live):
            if wall is not None:
                self._write(wall, live.get(name))
                continue
            try:
                self._client.delete(WALLS, name)
            except NotFound:
                continue
            self._written(WALLS.kind, "Delete")
        self._kept = len(wanted)

    def _write(self, wall: Document, live: Document | None) -> None:
        if live is None:
            try:
                self._client.create(WALLS, wall, manager=FIELD_MANAGER)
            except AlreadyExists:
                name = key_of(wall).name
                self._problem = f"{WALLS.kind} {name} exists and is not ours; delete or rename it"
                return
            self._written(WALLS.kind, "Create")
            return
        labels = labels_of(wall)
        marked = labels.items() <= labels_of(live).items()
        if marked and mapping(live, "spec") == mapping(wall, "spec"):
            return
        metadata = {**mapping(live, "metadata"), "labels": labels_of(live) | labels}
        try:
            self._client.update(WALLS, {**wall, "metadata": metadata}, manager=FIELD_MANAGER)
        except Conflict:
            self._due = 0.0
            return
        self._written(WALLS.kind, "Update")


def steps(
    wanted: Mapping[str, Document], live: Iterable[str]
) -> Iterator[tuple[str, Document | None]]:
    """What to write, and None for what to delete, in an order in which no wall is ever without its
    last rule, which denies: later parts first, and what is not wanted any more at the end.

    `wanted` has the parts of a wall in their order.
    """
    for name in reversed(tuple(wanted)):
        yield name, wanted[name]
    for name in sorted(set(live) - wanted.keys()):
        yield name, None
