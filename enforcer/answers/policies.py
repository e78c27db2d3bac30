"""Policies as this node knows them: rules with their source, the selectors in use, revisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from enforcer.agent.state import Board, NodeState
from enforcer.answers.request import Json, NotHere
from enforcer.policy.identity import PeerSelector
from enforcer.policy.tables import AddressEntry
from enforcer.sources.cilium import KINDS
from generators.documents.json import Key
from generators.manifests.writing import policy_document
from generators.objects import (
    NAME_LABEL,
    NOBODY,
    Direction,
    NetworkPolicy,
    Pod,
    PolicyKind,
)
from generators.reachability.origins import origin_of
from generators.reachability.ruletexts import describe
from generators.selectors import selects, text


def policy_get(state: NodeState, name: str) -> Json:
    """All policies, or one, with the object that each rule comes from."""
    wanted = list(state.policies.values())
    if name:
        wanted = [policy for policy in wanted if name in (policy.key, policy.object_key)]
    if name and not wanted:
        raise NotHere(f"no policy {name}; `ringfence policy get` lists all of them")
    found = [_policy(state, policy) for policy in sorted(wanted, key=lambda p: p.key)]
    walls = {} if name else state.tables.walls
    return {
        "revision": state.revision,
        "policies": found,
        "tenantWalls": [_wall(state, *wall) for wall in sorted(walls.items())],
    }


def _policy(state: NodeState, policy: NetworkPolicy) -> Json:
    document = _document(policy)
    origin = origin_of(policy.key, state.policies, state.tenants, state.config)
    rules = [
        {
            "rule": policy.rule_name(direction, index),
            "source": {
                "kind": policy.kind.value,
                "namespace": policy.namespace,
                "name": policy.name,
                "uid": policy.uid or None,
                "origin": origin or None,
            },
            **({} if policy.kind is PolicyKind.NETWORK_POLICY else {"means": describe(rule)}),
        }
        for direction in Direction
        if policy.speaks(direction)
        for index, rule in enumerate(policy.rules(direction))
    ]
    subjects = sorted(pod.key for pod in _subjects(state, policy))
    return {
        **document,
        **({"invalid": why} if (why := _invalid(state, policy)) else {}),
        "rules": rules,
        "origin": origin or None,
        "endpoints": subjects,
    }


def _invalid(state: NodeState, policy: NetworkPolicy) -> str:
    """Why an agent holds a policy of Cilium's kinds as a closed one."""
    source = state.sources.get(str(KINDS.get(policy.kind, "")))
    return source.unreadable.get(str(Key(policy.namespace, policy.name)), "") if source else ""


def _document(policy: NetworkPolicy) -> Json:
    """The policy as a document; of Cilium's kinds its rules are told in words."""
    if policy.kind is PolicyKind.NETWORK_POLICY:
        return policy_document(policy)
    meta = {"name": policy.name, **({"namespace": policy.namespace} if policy.namespace else {})}
    return {"apiVersion": "cilium.io/v2", "kind": policy.kind.value, "metadata": meta}


def _subjects(state: NodeState, policy: NetworkPolicy) -> Iterator[Pod]:
    """The endpoints that a policy is about."""
    for pod in state.pods.values():
        if selects(policy, pod, _namespace_labels(state, pod.namespace)):
            yield pod


def _wall(state: NodeState, group: int, wall: str) -> Json:
    users = [i for i, entry in state.tables.endpoints.items() if entry.wall == group]
    return {
        "rule": wall,
        "origin": origin_of(wall, state.policies, state.tenants, state.config) or None,
        "mode": state.mode.value if state.mode is not None else None,
        "endpoints": sorted(pod.key for i in users if (pod := state.pods.get(i)) is not None),
    }


def policy_wait(board: Board, revision: int, seconds: float) -> Json:
    """Answers when every local endpoint has a revision, or with those that lag behind."""

    def realized(state: NodeState) -> bool:
        waiting = state.unenforced or "datapath" in state.errors
        return state.revision >= revision and not waiting

    if (state := board.wait(realized, seconds)) is not None:
        return {"revision": state.revision, "realized": True, "laggards": []}
    state = board.state
    laggards = [{"endpoint": key, "reason": why} for key, why in sorted(state.unenforced.items())]
    if "datapath" in state.errors:
        laggards.append({"endpoint": "", "reason": state.errors["datapath"]})
    if state.revision < revision and not laggards:
        reason = f"revision {state.revision} is in force, {revision} has not been seen"
        laggards = [{"endpoint": "", "reason": reason}]
    return {"revision": state.revision, "realized": False, "laggards": laggards}


def policy_selectors(state: NodeState) -> Json:
    """The selectors of policies that isolate endpoints here, and whom each of them means."""
    users: Counter[PeerSelector] = Counter()
    for policy in state.policies.values():
        here = sum(1 for _ in _subjects(state, policy))
        if here:
            for selector in dict.fromkeys(_selectors(policy)):
                users[selector] += here
    members = _members(state, users)
    return {
        "selectors": sorted(
            (
                {
                    "selector": _text(selector),
                    "users": users[selector],
                    "pods": sum(len(pods) for pods in members[selector].values()),
                    "identities": sorted(members[selector]),
                }
                for selector in users
            ),
            key=lambda item: str(item["selector"]),
        )
    }


def _selectors(policy: NetworkPolicy) -> Iterator[PeerSelector]:
    for direction in Direction:
        for rule in policy.rules(direction) if policy.speaks(direction) else ():
            for peer in rule.selecting:
                if peer.node is None and peer != NOBODY:
                    yield PeerSelector.of(peer, policy.namespace)


def _members(
    state: NodeState, selectors: Iterable[PeerSelector]
) -> Mapping[PeerSelector, Mapping[int, list[Pod]]]:
    """Selector -> identity -> pods; labels of a tenant count as the record has them."""
    listed = list(selectors)
    found: dict[PeerSelector, dict[int, list[Pod]]] = {selector: {} for selector in listed}
    for address, pod in state.owners.items():
        if pod.ips and address != pod.ips[0]:
            continue
        identity = state.tables.addresses.get(address, AddressEntry(0)).identity
        labels = _namespace_labels(state, pod.namespace)
        near = (s for s in listed if s.selects_namespace(pod.namespace, labels))
        for selector in near:
            if selector.selects_pod(pod.labels, pod.service_account):
                found[selector].setdefault(identity, []).append(pod)
    return found


def _namespace_labels(state: NodeState, name: str) -> Mapping[str, str]:
    """Labels that agree with the record."""
    namespace = state.namespaces.get(name)
    labels = {NAME_LABEL: name, **(namespace.labels if namespace is not None else {})}
    if state.config is not None:
        labels.pop(state.config.label_key, None)
        if name in state.tenants:
            labels[state.config.label_key] = state.tenants[name]
    return labels


def _text(selector: PeerSelector) -> str:
    pods = text(selector.pods) if selector.pods is not None else "<all>"
    if selector.namespaces is None:
        return f"pods {pods} of namespace {selector.namespace}"
    return f"pods {pods} in namespaces {text(selector.namespaces)}"
