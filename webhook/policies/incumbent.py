"""Does a Kyverno run here that executes the cluster's policies itself? Then Ringfence must not.

Called by the policy book. Kyverno registers its webhooks itself and takes them away when it ends,
so they show that it is there; the image of its admission controller shows the release. 1.20 and
later no longer execute this kind of policy. An unknown release counts as executing: two products
that generate the same objects are worse than one that waits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from generators.documents.json import Document, Key, mapping, mappings, strings, text
from generators.kube.client import Client, WatchScope
from generators.kube.copies import Copies
from generators.kube.reflector import Reflector
from generators.kube.resources import DEPLOYMENTS, MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS

WEBHOOKS_OF_KYVERNO = "webhook.kyverno.io/managed-by=kyverno"
PARTS_OF_KYVERNO = "app.kubernetes.io/part-of=kyverno"
_COMPONENT = "app.kubernetes.io/component"
_BACKGROUND = ("background-controller", "cleanup-controller", "reports-controller")
FIRST_WITHOUT = (1, 20)
"""The first release that does not execute ClusterPolicies any more."""
_TAG = re.compile(r":v?(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Deployed:
    """A Deployment of Kyverno that admits requests."""

    name: str
    replicas: int
    release: tuple[int, int] | None
    """From the image's tag; None for a digest, `latest` and the like."""


def judge(webhooks: list[str], deployments: list[Deployed]) -> str:
    """Why Ringfence stands back; empty when it need not."""
    if not webhooks:
        return ""
    running = [each for each in deployments if each.replicas]
    if deployments and not running:
        return ""
    modern = [d for d in running if d.release is not None and d.release >= FIRST_WITHOUT]
    if running and len(modern) == len(running):
        return ""
    registered = ", ".join(sorted(webhooks)[:3])
    if not running:
        return (
            f"Kyverno's webhooks are registered ({registered}); delete them if it was uninstalled"
        )
    shown = ", ".join(f"{each.name} {_release(each)}" for each in running)
    return f"Kyverno executes them: {shown}; scale it down or upgrade it to 1.20"


def _release(deployed: Deployed) -> str:
    return "of unknown release" if deployed.release is None else "{}.{}".format(*deployed.release)


def read_deployment(document: Document) -> Deployed | None:
    """A Deployment of Kyverno; None for its controllers that admit nothing."""
    meta = mapping(document, "metadata")
    if strings(meta, "labels").get(_COMPONENT) in _BACKGROUND:
        return None
    spec = mapping(document, "spec")
    replicas = spec.get("replicas")
    pod = mapping(mapping(spec, "template"), "spec")
    releases = [
        (int(tag[1]), int(tag[2]))
        for container in mappings(pod, "containers")
        if (tag := _TAG.search(text(container, "image").rpartition("/")[2])) is not None
    ]
    return Deployed(
        f"{text(meta, 'namespace')}/{text(meta, 'name')}",
        replicas if isinstance(replicas, int) else 1,
        min(releases) if releases else None,
    )


def _read_webhooks(document: Document) -> str:
    return text(mapping(document, "metadata"), "name")


class Incumbent(Copies):
    """Follows Kyverno's webhooks and Deployments; `changed` is called from the watch threads."""

    def __init__(self, client: Client, changed: Callable[[Key], None]) -> None:
        ours = WatchScope(labels=WEBHOOKS_OF_KYVERNO)
        self._webhooks = tuple(
            Reflector(client, resource, _read_webhooks, changed, scope=ours)
            for resource in (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS)
        )
        self._deployments: Reflector[Deployed] = Reflector(
            client, DEPLOYMENTS, read_deployment, changed, scope=WatchScope(labels=PARTS_OF_KYVERNO)
        )

    def reflectors(self) -> tuple[Reflector[str] | Reflector[Deployed], ...]:
        """Until all are complete, another Kyverno may be executing policies."""
        return (*self._webhooks, self._deployments)

    @property
    def why(self) -> str:
        """Why the cluster's policies are left to Kyverno; empty when they are not."""
        if not self.synced:
            forbidden = ", ".join(each.resource for each in self.stats() if each.forbidden)
            why = f": RBAC does not allow watching {forbidden} (403)" if forbidden else ""
            return f"whether Kyverno executes them is not known yet{why}"
        names = [n for r in self._webhooks for n in r.store.snapshot().values()]
        return judge(names, list(self._deployments.store.snapshot().values()))
