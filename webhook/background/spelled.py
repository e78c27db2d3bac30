"""Kinds as they are usually spelled, for commands that ask no API server: see `needs.Kinds`.

Right for every kind of Kubernetes itself and for most others; a plural that is irregular has to be
corrected in the printed role.
"""

from __future__ import annotations

from collections.abc import Callable

from generators.kube.resources import NAMESPACES, PODS, SECRETS, SERVICES, Resource
from generators.kyverno.limits import DEFAULT_KINDS, plural_of
from generators.kyverno.values import CLUSTER_SCOPED

_VERSIONS = {"cilium.io": "v2"}
_WELL_KNOWN = (("apps", "Deployment"), ("apps", "StatefulSet"), ("apps", "DaemonSet"))


def spelled(group: str, version: str, kind: str) -> Resource:
    """The resource that a kind most likely has."""
    return Resource(group, version, plural_of(kind), kind, kind not in CLUSTER_SCOPED)


class GuessedKinds:
    """Answers as discovery would, if the API server served whatever is asked for."""

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
