"""A proof in words and as plain values: what `ringfence prove` prints, and the agent answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from enforcer.proof.prove import Counterexample, Flaw, Proof
from generators.cluster import Cluster
from generators.reachability.packets import EXTERNAL_PREFIX
from generators.reachability.protocols import port_text
from generators.reachability.verdicts import Verdict
from generators.tenants.model import Mode

Json = Mapping[str, object]
NOBODYS = "who is no tenant's"


def document(
    proof: Proof, cluster: Cluster, replayed: Verdict | None, more: Mapping[str, object]
) -> Json:
    """The answer; `more`: what else was found where it was asked, as a node's drift."""
    return {
        "apart": proof.apart,
        "agrees": proof.agrees,
        "classes": proof.classes,
        "counterexamples": [
            _example(found, cluster, replayed if index == 0 else None)
            for index, found in enumerate(proof.counterexamples)
        ],
        **more,
    }


def _example(found: Counterexample, cluster: Cluster, replayed: Verdict | None) -> Json:
    return {
        "kind": found.kind.value,
        "source": found.source,
        "destination": found.destination,
        "sourceTenant": found.source_tenant,
        "destinationTenant": found.destination_tenant,
        "protocol": found.protocol,
        "port": found.port,
        "family": found.family,
        "direction": found.direction,
        "masked": found.masked,
        "node": found.node,
        "verdicts": {layer: verdict.value for layer, verdict in found.said},
        "replayed": replayed.value if replayed is not None else None,
        "because": because(found, cluster),
    }


def because(found: Counterexample, cluster: Cluster) -> str:
    """What is wrong with a packet, in a sentence."""
    if found.kind is Flaw.DIFFERS:
        return f"not all say the same of what {_way(found)}: {_said(found)}"
    whose = _whose(found.source_tenant)
    if found.masked:
        whose = "somebody behind a node's address"
    elif found.source.startswith(EXTERNAL_PREFIX):
        whose = "an address that cannot be named"
    into = f"tenant {found.destination_tenant}" if found.destination_tenant else "quarantine"
    config = cluster.config
    why = ""
    if config is not None and all(verdict is Verdict.AUDIT for _, verdict in found.said):
        why = "; under audit it is only reported"
    elif config is not None and config.mode is Mode.OVERRIDABLE:
        why = "; in mode overridable no wall stands behind the policies"
    return (
        f"{whose} enters {into}, by no grant, shared component or other word of the tenant file"
        f"{why}"
    )


def lines(found: Json) -> Iterator[str]:
    """The verdict line, the smallest counterexample, and how many there are."""
    examples = _listed(found, "counterexamples")
    count = f"{found['classes']:,} classes of packets decided"
    if found["apart"] and found["agrees"]:
        yield f"apart: {count}, nothing enters a tenant but what the tenant file permits"
        return
    opens = [each for each in examples if each["kind"] == Flaw.OPEN.value]
    head = "apart, but not all agree" if found["apart"] else "not apart"
    yield f"{head}: {count}, {len(opens)} open and {len(examples) - len(opens)} disputed"
    yield from _node_lines(found)
    if not examples:
        return
    yield ""
    yield from _example_lines(examples[0])
    if found.get("notReplayed"):
        yield f"  not replayed: {found['notReplayed']}"
    if examples[1:]:
        yield ""
        yield f"The smallest of {len(examples) - 1} more, one for each pair of tenants:"
        yield from (f"  {each['kind']:<7} {packet_text(each)}" for each in examples[1:])


def _example_lines(first: Json) -> Iterator[str]:
    yield f"{packet_text(first)}: {first['because']}"
    verdicts = first["verdicts"]
    if isinstance(verdicts, Mapping):
        yield from (f"  {layer:<9} {verdict}" for layer, verdict in verdicts.items())
    if first["replayed"] is not None:
        yield f"  {'test run':<9} {first['replayed']}"


def _node_lines(found: Json) -> Iterator[str]:
    """What else a node's agent found."""
    for each in _listed(found, "notEnforced"):
        yield f"  not enforced: {each['namespace']}/{each['pod']}: {each['reason']}"
    for each in _listed(found, "drift"):
        yield f"  {each['map']}: {each['what']} {each['key']}"
    if found.get("drifted"):
        yield f"  {found['drifted']} entries of node {found['node']} are not as its agent wants"


def _listed(found: Json, key: str) -> Sequence[Json]:
    listed = found.get(key)
    return listed if isinstance(listed, list) else []


def packet_text(example: Json) -> str:
    """`a/b -> c/d 80/TCP (IPv4)`."""
    port, protocol = example["port"], str(example["protocol"])
    asked = port_text(port if isinstance(port, int) else 0, protocol)
    masked = " (masked)" if example["masked"] else ""
    ends = f"{example['source']}{masked} -> {example['destination']}"
    return f"{ends} {asked} ({example['family']})"


def _way(found: Counterexample) -> str:
    if found.direction == "INGRESS":
        return f"enters {found.destination}"
    return f"leaves {found.source}"


def _said(found: Counterexample) -> str:
    return ", ".join(f"{layer} {verdict.value}" for layer, verdict in found.said)


def _whose(tenant: str | None) -> str:
    return f"tenant {tenant}" if tenant else NOBODYS
