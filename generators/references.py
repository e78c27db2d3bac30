"""What policies name by way of a Service: its pods, or the addresses that stand behind it.

The evaluator resolves all policies of a cluster, the compiler those that name any Service. What may
surprise: a Service that does not exist is nobody, also at ports that the rule names; Cilium opens
those to everybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from generators.addresses import parse_address
from generators.objects import (
    NAME_LABEL,
    NOBODY,
    EndpointSlice,
    IPBlock,
    NetworkPolicy,
    Peer,
    Rule,
    Service,
    ServiceReference,
)
from generators.selectors import labels_selector, matches


def refers(policy: NetworkPolicy) -> bool:
    """Whether a policy names Services."""
    return any(
        peer.service is not None
        for rule in (*policy.ingress, *policy.egress)
        for peer in rule.peers
    )


def resolved(
    policy: NetworkPolicy, services: Iterable[Service], slices: Iterable[EndpointSlice]
) -> NetworkPolicy:
    """The policy with pods and addresses in the place of Services."""
    if not refers(policy):
        return policy
    services, slices = tuple(services), tuple(slices)
    return replace(
        policy,
        ingress=tuple(_rule(rule, services, slices) for rule in policy.ingress),
        egress=tuple(_rule(rule, services, slices) for rule in policy.egress),
    )


def _rule(rule: Rule, services: Sequence[Service], slices: Sequence[EndpointSlice]) -> Rule:
    peers: dict[Peer, None] = {}
    for peer in rule.peers:
        found = [peer] if peer.service is None else _behind(peer.service, services, slices)
        peers.update(dict.fromkeys(found))
    # No peers at all would mean everybody.
    return replace(rule, peers=tuple(peers) or (NOBODY,)) if rule.peers else rule


def _behind(
    wanted: ServiceReference, services: Sequence[Service], slices: Sequence[EndpointSlice]
) -> Iterable[Peer]:
    if wanted.addresses_only:
        return _addresses(wanted.namespace, wanted.name or "", slices, outside=False)
    found: list[Peer] = []
    for service in services:
        if not _is_meant(wanted, service):
            continue
        if service.selector:
            home = labels_selector({NAME_LABEL: service.namespace})
            found.append(Peer(labels_selector(service.selector), home))
        else:
            found += _addresses(service.namespace, service.name, slices, outside=True)
    return found


def _is_meant(wanted: ServiceReference, service: Service) -> bool:
    if wanted.namespace not in ("", service.namespace):
        return False
    if wanted.name is not None:
        return wanted.name == service.name
    return matches(wanted.selector, service.labels)


def _addresses(
    namespace: str, name: str, slices: Iterable[EndpointSlice], *, outside: bool
) -> list[Peer]:
    """The endpoints of a Service, ready or not, as Cilium takes them."""
    found = {
        address
        for item in slices
        if (item.namespace, item.service) == (namespace, name)
        for endpoint in item.endpoints
        for address in endpoint.addresses
    }
    return [
        Peer(ip_block=IPBlock(f"{address}/{parse_address(address).max_prefixlen}", (), outside))
        for address in sorted(found)
    ]
