"""Short generate rules for the tests of background policies."""

from __future__ import annotations

from collections.abc import Mapping

from generators.documents.json import mapping
from generators.kube.resources import NETWORK_POLICIES
from tests.controller.background.ground import Ground


def rule(name: str, mine: str, generate: str, more: str = "") -> str:
    """A rule for the namespaces that carry label `run: MINE`."""
    return (
        f"- name: {name}\n"
        "  match: {any: [{resources: {kinds: [Namespace],"
        f' selector: {{matchLabels: {{run: "{mine}"}}}}}}}}]}}\n{more}  generate: {{{generate}}}\n'
    )


def deny(name: str, *switches: str, spec: str = "podSelector: {}, policyTypes: [Ingress]") -> str:
    """Generates a NetworkPolicy of that name into the trigger."""
    more = "".join(f"{switch}, " for switch in switches)
    return (
        f"apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, name: {name}, {more}"
        f'namespace: "{{{{request.object.metadata.name}}}}", data: {{spec: {{{spec}}}}}'
    )


SYNC, EXISTING = "synchronize: true", "generateExisting: true"


def labelled(on: Ground, namespace: str, mine: str) -> None:
    on.make(namespace, labels={"run": mine})


def spec_of_policy(on: Ground, namespace: str, name: str) -> Mapping[str, object]:
    return mapping(on.find(NETWORK_POLICIES, namespace, name) or {}, "spec")
