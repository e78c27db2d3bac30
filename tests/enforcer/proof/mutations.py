"""One cluster with something of everything, and every way to change one entry of its tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from enforcer.datapath.engine import CompiledNode
from enforcer.policy.tables import (
    PEER_TENANT,
    AddressEntry,
    AddressFlag,
    CidrEntry,
    CidrFlag,
    CidrKey,
    EndpointEntry,
    EndpointFlag,
    RangeKey,
    Tables,
)
from generators.cluster import Cluster, from_objects
from generators.manifests.reading import read_bytes
from generators.tenants.load import parse_tenants

HERE = "here"
TENANTS = """\
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
shared:
  - {name: monitoring, namespaces: {names: [monitoring]}, ports: [{port: 9090}]}
tenants:
  - name: red
    namespaces: {names: [red]}
    allowFrom: [{tenant: blue, ports: [{port: 5432}]}]
  - {name: blue, namespaces: {names: [blue]}, allowTo: [{tenant: red}]}
  - {name: green, namespaces: {names: [green]}}
"""
_POD = """\
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  containers: [{{name: c, ports: [{{name: web, containerPort: 8080}}]}}]
---
"""
_OBJECTS = """\
apiVersion: v1
kind: Node
metadata: {name: here}
spec: {podCIDRs: [10.244.0.0/24, "fd00:10:244::/64"]}
status: {addresses: [{type: InternalIP, address: 172.18.0.1}]}
---
apiVersion: v1
kind: Node
metadata: {name: there}
spec: {podCIDRs: [10.244.1.0/24, "fd00:10:244:1::/64"]}
status: {addresses: [{type: InternalIP, address: 172.18.0.2}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: red}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{podSelector: {matchLabels: {app: api}}}]
      ports: [{port: 8000, endPort: 8100}, {port: web}]
    - from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/25]}}]
      ports: [{port: 443}]
  egress:
    - to: [{namespaceSelector: {}}]
      ports: [{port: 53, protocol: UDP}]
    - to: [{ipBlock: {cidr: 198.51.100.0/24}}]
---
"""


def objects() -> str:
    """Three tenants on two nodes; on one of them a policy with ranges, names and blocks."""
    pods = "".join(
        _POD.format(namespace=namespace, name=name, node=node)
        for namespace in ("red", "blue", "green", "monitoring", "stray")
        for name, node in (("web", "here"), ("api", "there"))
    )
    return _OBJECTS + pods


def cluster() -> Cluster:
    """The same under the tenant file."""
    documents = read_bytes(objects().encode(), "objects.yaml")
    return from_objects(documents, parse_tenants(TENANTS.encode(), "tenants.yaml"))


def mutated(node: CompiledNode) -> Iterator[tuple[str, CompiledNode]]:
    """The same node with one entry changed, each with a word on what was."""
    tables = node.tables
    for name, others in (
        ("policy", _policy(tables)),
        ("range", _ranges(tables)),
        ("address", _addresses(tables)),
        ("block", _blocks(tables)),
        ("endpoint", _endpoints(tables)),
    ):
        for what, changed in others:
            if changed != tables:
                yield f"{name} {what}", replace(node, tables=changed)


def _policy(of: Tables) -> Iterator[tuple[str, Tables]]:
    peers = sorted({key.peer for key in of.policy})
    for key, rule in of.policy.items():
        rest = {k: v for k, v in of.policy.items() if k != key}
        yield f"{key} gone", replace(of, policy=rest)
        yield f"{key} denies", replace(of, policy={**of.policy, key: rule ^ (1 << 31)})
        wrong = [replace(key, peer=peer) for peer in (*peers, PEER_TENANT | 3) if peer != key.peer]
        wrong += [replace(key, group=key.group + 1), replace(key, port=key.port ^ 1)]
        wrong += [replace(key, protocol=key.protocol ^ 6), replace(key, port=0)]
        for other in wrong:
            if other != key:
                yield f"{key} is {other}", replace(of, policy={**rest, other: rule})
                yield f"{other} beside", replace(of, policy={**of.policy, other: rule})


def _ranges(of: Tables) -> Iterator[tuple[str, Tables]]:
    for key, rule in of.ranges.items():
        rest: dict[RangeKey, int] = {k: v for k, v in of.ranges.items() if k != key}
        yield f"{key} gone", replace(of, ranges=rest)
        if key.length > 1:
            port = key.port >> (17 - key.length) << (17 - key.length)
            other = replace(key, length=key.length - 1, port=port)
            yield f"{key} is {other}", replace(of, ranges={**rest, other: rule})


def _addresses(of: Tables) -> Iterator[tuple[str, Tables]]:
    entries = list(dict.fromkeys(of.addresses.values()))
    for address, entry in of.addresses.items():
        rest = {k: v for k, v in of.addresses.items() if k != address}
        yield f"{address} gone", replace(of, addresses=rest)
        flagged = replace(entry, flags=entry.flags ^ AddressFlag.QUARANTINE)
        wrong: list[AddressEntry] = [*(e for e in entries if e != entry), flagged]
        for other in wrong:
            yield f"{address} {other}", replace(of, addresses={**of.addresses, address: other})


def _blocks(of: Tables) -> Iterator[tuple[str, Tables]]:
    for key, entry in of.cidrs.items():
        rest = {k: v for k, v in of.cidrs.items() if k != key}
        yield f"{key} gone", replace(of, cidrs=rest)
        moved = CidrEntry(entry.cidr, entry.flags ^ CidrFlag.IN_CLUSTER)
        yield f"{key} {moved}", replace(of, cidrs={**of.cidrs, key: moved})
        wide = CidrKey(key.tenant, "0.0.0.0/0")
        yield f"{key} wide", replace(of, cidrs={**rest, wide: entry})


def _endpoints(of: Tables) -> Iterator[tuple[str, Tables]]:
    for number, entry in of.endpoints.items():
        rest = {k: v for k, v in of.endpoints.items() if k != number}
        yield f"{number} gone", replace(of, endpoints=rest)
        wrong: list[EndpointEntry] = [
            replace(entry, flags=entry.flags ^ flag)
            for flag in EndpointFlag
            if flag not in (EndpointFlag.GRACE, EndpointFlag.SHORTCUT)
        ]
        wrong += [replace(entry, group=other.group) for other in rest.values()]
        wrong += [replace(entry, wall=other.wall) for other in rest.values()]
        wrong += [replace(entry, tenant=other.tenant) for other in rest.values()]
        for other in wrong:
            if other != entry:
                yield (
                    f"{number} {other.flags!r} {other.group} {other.wall} {other.tenant}",
                    replace(of, endpoints={**rest, number: other}),
                )
