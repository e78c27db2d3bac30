"""Random policies of Cilium's kinds as people write them, over one small cluster.

Few labels, ports and blocks, so that rules meet. Some of what is drawn is invalid: the engine and
we have to agree on that as well. Fields that Ringfence refuses are not drawn.
"""

from __future__ import annotations

from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

Document = dict[str, Any]

PORTS = ("80/TCP", "81/TCP", "8080/TCP", "53/UDP", "ICMP")
EXTERNALS = ("198.51.100.7", "203.0.113.9", "2001:db8::7")
_PODS: tuple[tuple[str, str, dict[str, str], str, str, list[tuple[str, int, str]]], ...] = (
    ("a", "web", {"app": "web"}, "one", "default", [("http", 80, "TCP"), ("dns", 53, "UDP")]),
    ("a", "api", {"app": "api", "tier": "x"}, "two", "robot", [("http", 8080, "TCP")]),
    ("b", "web", {"app": "web", "tier": "x"}, "one", "default", [("http", 81, "TCP")]),
    ("b", "job", {}, "two", "default", []),
)
_BLOCKS = (
    *("0.0.0.0/0", "198.51.100.0/24", "198.51.100.7/32", "203.0.113.0/24", "10.0.0.0/8"),
    *("::/0", "2001:db8::/32", "198.51.0.0/16"),
)
_ENTITIES = ("all", "world", "cluster", "host", "remote-node", "kube-apiserver", "none", "init")


def world() -> list[Document]:
    """Namespaces, nodes, pods and Services that every policy meets."""
    found: list[Document] = [
        _object("v1", "Namespace", {"name": "a", "labels": {"team": "red"}}),
        _object("v1", "Namespace", {"name": "b", "labels": {"team": "blue"}}),
        _object("v1", "Namespace", {"name": "default"}),
    ]
    for index, name in enumerate(("one", "two"), start=1):
        addresses = [{"type": "InternalIP", "address": f"172.18.0.{index}"}]
        found.append(_object("v1", "Node", {"name": name}) | {"status": {"addresses": addresses}})
    for index, (home, name, labels, node, account, ports) in enumerate(_PODS, start=1):
        declared = [{"name": n, "containerPort": p, "protocol": proto} for n, p, proto in ports]
        spec = {
            "nodeName": node,
            "serviceAccountName": account,
            "containers": [{"name": "c", "image": "c", "ports": declared}],
        }
        ips = (f"10.244.0.{index}", f"fd00:10:244::{index}")
        status = {"phase": "Running", "podIP": ips[0], "podIPs": [{"ip": ip} for ip in ips]}
        meta = {"name": name, "namespace": home, "labels": labels}
        found.append(_object("v1", "Pod", meta) | {"spec": spec, "status": status})
    meta = {"name": "web", "namespace": "a", "labels": {"kind": "own"}}
    found.append(
        _object("v1", "Service", meta)
        | {"spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}
    )
    meta = {"name": "legacy", "namespace": "b", "labels": {"kind": "outside"}}
    found.append(_object("v1", "Service", meta) | {"spec": {"ports": [{"port": 80}]}})
    found.append(_slice("b", "legacy", "203.0.113.9"))
    found.append(_slice("default", "kubernetes", "198.51.100.7"))
    return found


def _slice(namespace: str, service: str, address: str) -> Document:
    labels = {"kubernetes.io/service-name": service}
    meta = {"name": service, "namespace": namespace, "labels": labels}
    return _object("discovery.k8s.io/v1", "EndpointSlice", meta) | {
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address]}],
        "ports": [{"port": 80, "protocol": "TCP"}],
    }


def _object(api_version: str, kind: str, meta: Document) -> Document:
    return {"apiVersion": api_version, "kind": kind, "metadata": meta}


_label_keys = st.sampled_from(("app", "k8s:app", "any:tier", "k8s:tier", "container:app"))
_pod_labels = st.dictionaries(_label_keys, st.sampled_from(("web", "api", "x", "")), max_size=2)
_home_labels = st.sampled_from(
    (
        {},
        {},
        {"io.kubernetes.pod.namespace": "b"},
        {"k8s:io.kubernetes.pod.namespace": "a"},
        {"io.cilium.k8s.namespace.labels.team": "blue"},
        {"io.cilium.k8s.policy.serviceaccount": "robot"},
        {"io.cilium.k8s.policy.cluster": "default"},
    )
)
_expressions = st.sampled_from(
    (
        {"key": "app", "operator": "In", "values": ["web", "api"]},
        {"key": "tier", "operator": "NotIn", "values": ["x"]},
        {"key": "tier", "operator": "DoesNotExist"},
        {"key": "k8s:app", "operator": "Exists"},
        {"key": "io.kubernetes.pod.namespace", "operator": "NotIn", "values": ["a"]},
        {"key": "io.kubernetes.pod.namespace", "operator": "Exists"},
        {"key": "io.cilium.k8s.namespace.labels.team", "operator": "Exists"},
    )
)


@st.composite
def _selectors(draw: st.DrawFn) -> Document:
    labels = {**draw(_pod_labels), **draw(_home_labels)}
    found: Document = {"matchLabels": labels} if labels else {}
    expressions = draw(st.lists(_expressions, max_size=1))
    return found | ({"matchExpressions": expressions} if expressions else {})


_cidr_sets = st.builds(
    lambda cidr, holes: {"cidr": cidr, **({"except": holes} if holes else {})},
    st.sampled_from(_BLOCKS),
    st.lists(st.sampled_from(("198.51.100.7/32", "203.0.113.0/24", "10.0.0.0/8")), max_size=1),
)
_services = st.sampled_from(
    (
        {"k8sService": {"serviceName": "web", "namespace": "a"}},
        {"k8sService": {"serviceName": "legacy", "namespace": "b"}},
        {"k8sServiceSelector": {"selector": {"matchLabels": {"kind": "own"}}, "namespace": "a"}},
        {
            "k8sServiceSelector": {
                "selector": {"matchExpressions": [{"key": "kind", "operator": "Exists"}]}
            }
        },
    )
)
_port_entries = st.sampled_from(
    (
        {"port": "80", "protocol": "TCP"},
        {"port": "80"},
        {"port": "81", "protocol": "ANY"},
        {"port": "53", "protocol": "UDP"},
        {"port": "0", "protocol": "TCP"},
        {"port": "0"},
        {"port": "79", "endPort": 8079, "protocol": "TCP"},
        {"port": "81", "endPort": 80, "protocol": "TCP"},
        {"port": "http", "protocol": "TCP"},
        {"port": "HTTP"},
        {"port": "http", "endPort": 8080, "protocol": "TCP"},
        {"port": "dns", "protocol": "UDP"},
    )
)
_to_ports = st.lists(
    st.builds(lambda ports: {"ports": ports}, st.lists(_port_entries, max_size=2)), max_size=2
)
_icmps = st.lists(
    st.builds(
        lambda fields: {"fields": fields},
        st.lists(
            st.sampled_from(
                (
                    {"type": 8},
                    {"type": "EchoRequest", "family": "IPv4"},
                    {"type": 128, "family": "IPv6"},
                    {"type": "EchoRequest", "family": "IPv6"},
                    {"type": 3},
                    {"type": 13, "family": "IPv6"},
                )
            ),
            max_size=2,
        ),
    ),
    max_size=1,
)


@st.composite
def _rules(draw: st.DrawFn, side: str, *, deny: bool) -> Document:
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "Endpoints": st.lists(_selectors(), max_size=2),
        "Entities": st.lists(st.sampled_from(_ENTITIES), max_size=2),
        "CIDR": st.lists(st.sampled_from(_BLOCKS), max_size=2),
        "CIDRSet": st.lists(_cidr_sets, max_size=2),
    }
    if side == "to" and not deny:
        kinds["Services"] = st.lists(_services, min_size=1, max_size=2)
    chosen = draw(st.lists(st.sampled_from(sorted(kinds)), max_size=1))
    found: Document = {f"{side}{kind}": draw(kinds[kind]) for kind in chosen}
    if chosen != ["Services"] and draw(st.sampled_from((*[False] * 8, True))):
        found |= draw(st.sampled_from(({f"{side}CIDR": []}, {f"{side}Entities": ["world"]})))
    if draw(st.booleans()):
        found["toPorts"] = draw(_to_ports)
    elif draw(st.sampled_from((True, False, False))):
        found["icmps"] = draw(_icmps)
    return found


@st.composite
def _specs(draw: st.DrawFn) -> Document:
    spec: Document = {"endpointSelector": draw(_selectors())}
    lists = {"ingress": "from", "ingressDeny": "from", "egress": "to", "egressDeny": "to"}
    chosen = draw(st.lists(st.sampled_from(sorted(lists)), min_size=1, max_size=3, unique=True))
    for key in chosen:
        spec[key] = draw(
            st.lists(_rules(lists[key], deny=key.endswith("Deny")), min_size=1, max_size=2)
        )
    spec |= draw(st.sampled_from(({}, {}, {"ingress": []} if "ingress" not in spec else {})))
    switches = st.sampled_from(({"ingress": False}, {"egress": False}, {"ingress": True}))
    if draw(st.sampled_from((True, False, False))):
        spec["enableDefaultDeny"] = draw(switches)
    return spec


@st.composite
def cilium_documents(draw: st.DrawFn, name: str) -> Document:
    """One policy of either kind."""
    namespace = draw(st.sampled_from(("a", "a", "b", "")))
    kind = "CiliumNetworkPolicy" if namespace else "CiliumClusterwideNetworkPolicy"
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    found = _object("cilium.io/v2", kind, meta)
    if draw(st.sampled_from((True, True, True, False))):
        return found | {"spec": draw(_specs())}
    return found | {"specs": draw(st.lists(_specs(), max_size=2))}


_MISTAKES = st.sampled_from(
    (
        {"endpointSelector": {}},
        {"ingress": [{}]},
        {"endpointSelector": {}, "ingress": [{"fromEntities": ["World"]}]},
        {"endpointSelector": {}, "egress": [{"toPorts": [{"ports": [{"port": "tcp_1"}]}]}]},
        {"endpointSelector": {}, "ingress": [{"fromCIDR": ["10.0.0.0/8"], "fromEndpoints": [{}]}]},
        {
            "endpointSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]},
            "egress": [{}],
        },
        {"endpointSelector": {}, "ingress": [{"icmps": [{"fields": [{"type": "Hello"}]}]}]},
    )
)


@st.composite
def network_policy_documents(draw: st.DrawFn, name: str) -> Document:
    """A NetworkPolicy beside them, of pods alone: blocks are another matter in Cilium."""
    found = _object(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        {"name": name, "namespace": draw(st.sampled_from(("a", "b")))},
    )
    peer: st.SearchStrategy[Document] = st.sampled_from(
        ({"podSelector": {}}, {"namespaceSelector": {}})
    )
    rule = st.builds(lambda peers: {"from": peers} if peers else {}, st.lists(peer, max_size=1))
    spec = {
        "podSelector": {},
        "policyTypes": ["Ingress"],
        "ingress": draw(st.lists(rule, max_size=1)),
    }
    return found | {"spec": spec}


def _is_decided_by_chance(case: Document | list[Document]) -> bool:
    """Whether a port's name stands with a range behind it and without: Cilium keeps the one that
    comes first, whatever the policies' order means.
    """
    named: set[tuple[str, bool]] = set()

    def look(value: object) -> None:
        if isinstance(value, list):
            for item in value:
                look(item)
        elif isinstance(value, dict):
            port = value.get("port", "")
            if isinstance(port, str) and port.isalpha():
                named.add((port.lower(), "endPort" in value))
            look(list(value.values()))

    look(case)
    return any((name, not ranged) in named for name, ranged in named)


@st.composite
def policies(draw: st.DrawFn) -> list[Document]:
    """One to three policies."""
    count = draw(st.integers(1, 3))
    found = [draw(cilium_documents(f"p{index}")) for index in range(count)]
    if draw(st.sampled_from((True, False, False))):
        found.append(draw(network_policy_documents("plain")))
    if draw(st.sampled_from((*[False] * 11, True))):
        found[0] = {key: found[0][key] for key in ("apiVersion", "kind", "metadata")}
        found[0]["spec"] = draw(_MISTAKES)
    assume(not _is_decided_by_chance(found))
    return found
