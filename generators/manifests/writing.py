"""Values -> documents; the same on every run.

Documents are plain dictionaries, ordered as people write them: apiVersion, kind, metadata, spec.
"""

from __future__ import annotations

from collections.abc import Mapping

from generators.objects import (
    DEFAULT_SERVICE_ACCOUNT,
    Direction,
    IPBlock,
    Namespace,
    NetworkPolicy,
    Operator,
    Peer,
    Pod,
    PolicyPort,
    Rule,
    Selector,
)

Document = dict[str, object]


def _metadata(
    name: str, namespace: str, labels: Mapping[str, str], annotations: Mapping[str, str], uid: str
) -> Document:
    fields: Document = {"name": name}
    if namespace:
        fields["namespace"] = namespace
    if uid:
        fields["uid"] = uid
    if labels:
        fields["labels"] = dict(sorted(labels.items()))
    if annotations:
        fields["annotations"] = dict(sorted(annotations.items()))
    return fields


def namespace_document(namespace: Namespace) -> Document:
    """A Namespace, with all its labels."""
    metadata = _metadata(namespace.name, "", namespace.labels, namespace.annotations, namespace.uid)
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def pod_document(pod: Pod) -> Document:
    """A Pod with what decisions depend on; its container is only there to declare ports."""
    metadata = _metadata(pod.name, pod.namespace, pod.labels, pod.annotations, pod.uid)
    if pod.created:
        metadata["creationTimestamp"] = pod.created
    container: Document = {"name": "main", "image": "main"}
    if pod.ports:
        container["ports"] = [
            {
                **({"name": port.name} if port.name else {}),
                "containerPort": port.port,
                "protocol": port.protocol,
            }
            for port in pod.ports
        ]
    spec: Document = {"containers": [container]}
    if pod.node:
        spec["nodeName"] = pod.node
    if pod.host_network:
        spec["hostNetwork"] = True
    if pod.service_account != DEFAULT_SERVICE_ACCOUNT:
        spec["serviceAccountName"] = pod.service_account
    status: Document = {"phase": pod.phase}
    if pod.host_ips:
        status["hostIP"] = pod.host_ips[0]
        status["hostIPs"] = [{"ip": ip} for ip in pod.host_ips]
    if pod.ips:
        status["podIP"] = pod.ips[0]
        status["podIPs"] = [{"ip": ip} for ip in pod.ips]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


def policy_document(policy: NetworkPolicy) -> Document:
    """A NetworkPolicy in the shape that is written by hand; every default is spelled out."""
    spec: Document = {
        "podSelector": selector_document(policy.pod_selector),
        "policyTypes": [d.value for d in Direction if d in policy.directions],
    }
    for direction, rules, peers in (
        (Direction.INGRESS, policy.ingress, "from"),
        (Direction.EGRESS, policy.egress, "to"),
    ):
        if rules:
            spec[direction.value.lower()] = [_rule_document(rule, peers) for rule in rules]
    metadata = _metadata(
        policy.name, policy.namespace, policy.labels, policy.annotations, policy.uid
    )
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": spec,
    }


def selector_document(selector: Selector) -> Document:
    """A label selector: one value of one key as `matchLabels`, all else as `matchExpressions`."""
    labels: dict[str, str] = {}
    expressions: list[Document] = []
    for need in selector.requirements:
        if need.operator is Operator.IN and len(need.values) == 1 and need.key not in labels:
            labels[need.key] = need.values[0]
        else:
            values: Document = {"values": list(need.values)} if need.values else {}
            expressions.append({"key": need.key, "operator": need.operator.value, **values})
    document: Document = {}
    if labels:
        document["matchLabels"] = labels
    if expressions:
        document["matchExpressions"] = expressions
    return document


def _rule_document(rule: Rule, peers: str) -> Document:
    document: Document = {}
    if rule.peers:
        document[peers] = [_peer_document(peer) for peer in rule.peers]
    if rule.ports:
        document["ports"] = [_port_document(port) for port in rule.ports]
    return document


def _peer_document(peer: Peer) -> Document:
    document: Document = {}
    if peer.namespace_selector is not None:
        document["namespaceSelector"] = selector_document(peer.namespace_selector)
    if peer.pod_selector is not None:
        document["podSelector"] = selector_document(peer.pod_selector)
    if peer.ip_block is not None:
        document["ipBlock"] = _block_document(peer.ip_block)
    return document


def _block_document(block: IPBlock) -> Document:
    return {"cidr": block.cidr, **({"except": list(block.excepts)} if block.excepts else {})}


def _port_document(port: PolicyPort) -> Document:
    document: Document = {"protocol": port.protocol}
    if port.port is not None:
        document["port"] = port.port
    if port.end_port is not None:
        document["endPort"] = port.end_port
    return document
