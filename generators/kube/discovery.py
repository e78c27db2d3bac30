"""Which kinds an API server serves, and under which plural: asked once, kept for a while.

For kinds that users name, as in policies. Only the groups asked about are read. What is not served
now may be served after the next `forget`: a CRD comes and goes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from generators.documents.json import mapping, mappings, text
from generators.kube.client import Client
from generators.kube.errors import NotFound
from generators.kube.resources import Resource

KEEP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Served:
    """One version of an API group; `preferred` is the one that clients should use."""

    group: str
    version: str
    preferred: bool

    @property
    def path(self) -> str:
        """Where the API server lists its resources."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


class Discovery:
    """Safe to share between threads. Raises KubeError when the API server cannot be asked."""

    def __init__(self, client: Client, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._lock = threading.Lock()
        self._groups: tuple[Served, ...] | None = None
        self._resources: dict[Served, tuple[Resource, ...]] = {}
        self._read_at = 0.0

    def forget(self) -> None:
        """Ask again from now on."""
        with self._lock:
            self._groups = None
            self._resources.clear()

    def find(self, group: str, version: str, kind: str) -> Resource | None:
        """The resource of exactly this kind; None when it is not served."""
        wanted = Served(group, version, preferred=True)
        return next((r for r in self._of(wanted) if r.kind == kind), None)

    def matching(
        self,
        group: Callable[[str], bool],
        version: Callable[[str], bool],
        kind: Callable[[str], bool],
    ) -> list[Resource]:
        """Every resource that fits, once a group: in the preferred version where that one fits."""
        found: dict[tuple[str, str], Resource] = {}
        for served in self._served():
            if not group(served.group) or not version(served.version):
                continue
            for resource in self._of(served):
                if kind(resource.kind):
                    found.setdefault((resource.group, resource.plural), resource)
        return [found[key] for key in sorted(found)]

    def _served(self) -> Iterable[Served]:
        with self._lock:
            self._age()
            if self._groups is None:
                self._groups = tuple(sorted(self._ask_groups(), key=lambda s: not s.preferred))
            return self._groups

    def _ask_groups(self) -> Iterable[Served]:
        yield Served("", "v1", preferred=True)
        for group in mappings(self._client.read("/apis"), "groups"):
            preferred = text(mapping(group, "preferredVersion"), "version")
            for version in mappings(group, "versions"):
                named = text(version, "version")
                yield Served(text(group, "name"), named, preferred=named == preferred)

    def _of(self, served: Served) -> tuple[Resource, ...]:
        with self._lock:
            self._age()
            wanted = Served(served.group, served.version, preferred=True)
            if wanted not in self._resources:
                self._resources[wanted] = self._ask_resources(wanted)
            return self._resources[wanted]

    def _ask_resources(self, served: Served) -> tuple[Resource, ...]:
        try:
            document = self._client.read(served.path)
        except NotFound:
            return ()
        return tuple(
            Resource(
                served.group,
                served.version,
                text(item, "name"),
                text(item, "kind"),
                item.get("namespaced") is True,
            )
            for item in mappings(document, "resources")
            if "/" not in text(item, "name") and _can_be_followed(item)
        )

    def _age(self) -> None:
        now = self._clock()
        if now - self._read_at > KEEP_SECONDS:
            self._read_at = now
            self._groups = None
            self._resources.clear()


def _can_be_followed(item: object) -> bool:
    """Reviews and the like are only created; they cannot be listed."""
    verbs = item.get("verbs") if isinstance(item, dict) else None
    return isinstance(verbs, list) and "list" in verbs and "watch" in verbs
