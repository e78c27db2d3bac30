"""Kinds that policies name: which they may write besides the usual ones, and how they are spelled.

Only controllers get `--allow-kind`; the leader writes it into its status, which the webhook reads.
Until a controller has written it, only the usual kinds are allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from generators.checks import Check, bridged
from generators.documents.json import Document, Key, meta_of, strings
from generators.kube.client import Client, WatchScope
from generators.kube.copies import Copies
from generators.kube.reflector import Reflector
from generators.kube.resources import CONFIG_MAPS, NAMESPACES, PODS, SECRETS, SERVICES, Resource
from generators.kyverno.limits import DEFAULT_KINDS
from generators.labels import MANAGED_BY, MANAGER
from generators.manifests.kinds import CLUSTER_SCOPED, plural_of
from webhook.kept import ALLOWED_KINDS, STATUS_NAME

_VERSIONS = {"cilium.io": "v2"}
_WELL_KNOWN = (("apps", "Deployment"), ("apps", "StatefulSet"), ("apps", "DaemonSet"))


class Kinds(Protocol):
    """What discovery answers; see `generators.kube.discovery`."""

    def find(self, group: str, version: str, kind: str) -> Resource | None:
        """Exactly this kind."""

    def matching(
        self,
        group: Callable[[str], bool],
        version: Callable[[str], bool],
        kind: Callable[[str], bool],
    ) -> list[Resource]:
        """Every kind that fits."""


class AllowedKinds(Copies):
    """`start`, read `current`, `stop`; `changed` is called from the watch's thread."""

    def __init__(self, client: Client, home: str, changed: Callable[[], None]) -> None:
        self._place = Key(home, STATUS_NAME)
        scope = WatchScope(namespace=home, fields=f"metadata.name={STATUS_NAME}")
        self._status = Reflector(client, CONFIG_MAPS, _said, lambda _: changed(), scope=scope)

    def reflectors(self) -> tuple[Reflector[tuple[str, ...]], ...]:
        """The controller's status."""
        return (self._status,)

    @property
    def current(self) -> tuple[str, ...]:
        """As in `--allow-kind`."""
        return self._status.store.get(self._place) or ()

    def checks(self) -> list[Check]:
        """For /readyz: policies are answered for all the same."""
        if self._status.store.get(self._place) is not None:
            return []
        where = f"ConfigMap {self._place}"
        usual = f"the usual ones; no controller has listed more in {where}"
        return [bridged("kinds of policies", usual)]


def _said(document: Document) -> tuple[str, ...]:
    """Nothing from an object that is not the controller's."""
    if meta_of(document).labels.get(MANAGED_BY) != MANAGER:
        return ()
    return tuple(strings(document, "data").get(ALLOWED_KINDS, "").split())


def spelled(group: str, version: str, kind: str) -> Resource:
    """The resource that a kind most likely has, for commands that ask no API server.

    Right for every kind of Kubernetes itself and for most others; a plural that is irregular has to
    be corrected in the printed role.
    """
    return Resource(group, version, plural_of(kind), kind, kind not in CLUSTER_SCOPED)


class GuessedKinds:
    """`Kinds` if an API server served whatever is asked for."""

    def find(self, group: str, version: str, kind: str) -> Resource | None:
        """Exactly this kind."""
        return spelled(group, version, kind)

    def matching(
        self,
        group: Callable[[str], bool],
        version: Callable[[str], bool],
        kind: Callable[[str], bool],
    ) -> list[Resource]:
        """The well-known kinds that fit."""
        known = [
            NAMESPACES,
            PODS,
            SECRETS,
            SERVICES,
            *(spelled(g, _VERSIONS.get(g, "v1"), k) for g, k in sorted(DEFAULT_KINDS)),
            *(spelled(g, "v1", k) for g, k in _WELL_KNOWN),
        ]
        found = {(r.group, r.plural): r for r in known if group(r.group) and kind(r.kind)}
        return [found[key] for key in sorted(found)]
