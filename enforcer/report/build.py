"""The report as plain values. Two of an unchanged cluster differ in their date only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from enforcer.proof.prove import Flaw, Proof
from enforcer.proof.telling import document as proof_document
from generators.cluster import Cluster, audited, quarantined
from generators.tenants.assignment import assign_by_name
from generators.tenants.model import Mode, Port, TenantConfig

Json = Mapping[str, object]

STANDARDS: Mapping[str, tuple[str, ...]] = {
    "verdict": ("PCI DSS 11.4.5", "PCI DSS 11.4.6"),
    "matrix": ("PCI DSS 11.4.5", "PCI DSS 11.4.6"),
    "tenants": ("CIS Kubernetes Benchmark, 5.3.2",),
    "nodes": ("PCI DSS 11.4.5", "PCI DSS 11.4.6"),
}
"""Requirements that a section is evidence for; it replaces no assessor's own tests."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a report is about."""

    cluster: Cluster
    config: TenantConfig
    proof: Proof
    nodes: Mapping[str, Json]
    """What `ringfence prove --node` said on nodes, by name."""
    live: bool
    """The objects are a cluster's, not files."""
    assumptions: tuple[str, ...] = ()


def build(asked: Evidence, date: str) -> Json:
    """The whole report."""
    pairs = list(_matrix(asked))
    nodes = [_node(asked, name) for name in _node_names(asked.cluster)]
    return {
        "date": date,
        "version": version("ringfence"),
        "source": "cluster" if asked.live else "files",
        "tenantFile": {"digest": asked.config.digest, "mode": asked.config.mode.value},
        "verdict": _verdict(asked, pairs, nodes),
        "tenants": list(_tenants(asked)),
        "matrix": pairs,
        "nodes": nodes,
        "proof": proof_document(asked.proof, asked.cluster, None, {}),
        "exceptions": _exceptions(asked),
        "notChecked": list(_not_checked(asked, nodes)),
        "standards": {section: list(names) for section, names in STANDARDS.items()},
    }


def is_sound(report: Json) -> bool:
    """Whether nothing is open that the tenant file does not allow, and nobody disagrees."""
    verdict = report["verdict"]
    return isinstance(verdict, Mapping) and bool(verdict["apart"] and verdict["agrees"])


def _verdict(asked: Evidence, pairs: Sequence[Json], nodes: Sequence[Json]) -> Json:
    asked_of = [node for node in nodes if node["asked"]]
    return {
        "apart": asked.proof.apart and all(node["apart"] for node in asked_of),
        "agrees": asked.proof.agrees and all(node["agrees"] for node in asked_of),
        "tenants": len(asked.config.tenants),
        "openPairs": sum(pair["open"] is True for pair in pairs),
        "grants": sum(len(asked.config.consented(name)) for name in asked.config.tenants),
        "quarantined": len(quarantined(asked.cluster)),
        "nodes": len(nodes),
        "nodesProven": sum(node["apart"] is True and node["agrees"] is True for node in nodes),
        "classes": asked.proof.classes,
    }


def _tenants(asked: Evidence) -> Iterator[Json]:
    cluster, config = asked.cluster, asked.config
    pods: dict[str, int] = {}
    for pod in cluster.pods:
        pods[pod.namespace] = pods.get(pod.namespace, 0) + 1
    for tenant in sorted({*config.tenants, *cluster.tenants.values()}):
        names = sorted(name for name, owner in cluster.tenants.items() if owner == tenant)
        yield {
            "tenant": tenant,
            "namespaces": [
                {
                    "namespace": name,
                    "pods": pods.get(name, 0),
                    "because": assign_by_name(config, name).reason,
                }
                for name in names
            ],
        }


def _matrix(asked: Evidence) -> Iterator[Json]:
    """Each ordered pair of tenants, and who is no tenant's: what the file says, what is open."""
    config = asked.config
    found = {
        (example.source_tenant, example.destination_tenant)
        for example in asked.proof.counterexamples
        if example.kind is Flaw.OPEN
    }
    for owner in config.tenants:
        granted = {grant.tenant: grant for grant in config.consented(owner)}
        for source in (*config.tenants, None):
            if source == owner:
                continue
            grant = granted.get(source or "")
            yield {
                "source": source,
                "destination": owner,
                "permitted": _ports(grant.ports) if grant is not None else [],
                "open": (source, owner) in found,
            }


def _ports(ports: tuple[Port, ...]) -> list[str]:
    return [str(port) for port in ports] or ["all ports"]


def _node_names(cluster: Cluster) -> tuple[str, ...]:
    named = {pod.node for pod in cluster.pods if pod.node} | {node.name for node in cluster.nodes}
    return tuple(sorted(named))


def _node(asked: Evidence, name: str) -> Json:
    """What a node's kernel holds, where it was asked by the same tenant file."""
    said = asked.nodes.get(name)
    if said is None:
        return {"node": name, "asked": False, "apart": None, "agrees": None, "why": "not asked"}
    if said.get("tenantFile") != asked.config.digest:
        why = "asked under another tenant file"
        return {"node": name, "asked": True, "apart": False, "agrees": False, "why": why}
    apart, agrees = said.get("apart") is True, said.get("agrees") is True
    why = f"{said.get('classes')} classes of packets; {said.get('drifted')} entries drifted"
    return {"node": name, "asked": True, "apart": apart, "agrees": agrees, "why": why}


def _exceptions(asked: Evidence) -> Json:
    """Every word of file and cluster that opens or holds back something."""
    config, cluster = asked.config, asked.cluster
    return {
        "mode": config.mode.value if config.mode is not Mode.STRICT else None,
        "grants": [
            {"from": grant.tenant, "to": name, "ports": _ports(grant.ports)}
            for name in config.tenants
            for grant in config.consented(name)
        ],
        "shared": [
            {
                "component": part.name,
                "namespaces": list(part.namespaces),
                "ports": _ports(part.ports),
                "hostNetwork": part.host_network,
            }
            for part in config.shared
        ],
        "allowMasked": [name for name, each in config.tenants.items() if each.allow_masked],
        "auditedTenants": [name for name, each in config.tenants.items() if each.audited],
        "auditedNamespaces": sorted(audited(cluster)),
        "quarantined": sorted(quarantined(cluster)),
        "encapsulating": sorted(config.encapsulating),
        "protectedNamespaces": sorted(config.protected_namespaces),
    }


def _not_checked(asked: Evidence, nodes: Sequence[Json]) -> Iterator[str]:
    for node in nodes:
        if not node["asked"]:
            yield f"the kernel of node {node['node']}: `ringfence prove --node` was not run there"
    if not asked.live:
        yield "a live cluster: namespaces, policies and pods are those of files"
    yield "packets on the wire: nothing was sent"
    yield "what drifted and was set right"
    yield "admission: webhooks, admission policies and their certificates"
    yield from (f"assumed: {text}" for text in asked.assumptions)
