"""What an answer takes for granted because the input does not say it.

`matrix` and `trace` print it to stderr and in their JSON, and refuse to answer under `--strict`.
Only what could change a verdict counts: a namespace without a document matters where a policy asks
for its labels, a made-up address where a policy names blocks of addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from generators.addresses import parse_network
from generators.isolation.policies import is_ours
from generators.manifests import Documents
from generators.objects import NAME_LABEL, NetworkPolicy, Peer, Pod
from generators.tenants.model import TenantConfig

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Assumption:
    """One thing that was taken for granted; it bears on answers about pods of `namespaces`."""

    namespaces: frozenset[str]
    text: str


def assumptions(
    documents: Documents, addresses: Mapping[str, tuple[str, ...]], config: TenantConfig | None
) -> tuple[Assumption, ...]:
    """What a cluster made of files assumes; `addresses` are those that its pods got, by key."""
    peers = tuple(_peers(documents.policies))
    return (*_unlabelled(documents, peers, config), *_made_up(documents.pods, addresses, peers))


def _peers(policies: Iterable[NetworkPolicy]) -> Iterator[tuple[NetworkPolicy, Peer]]:
    for policy in policies:
        for rule in (*policy.ingress, *policy.egress):
            yield from ((policy, peer) for peer in rule.peers)


def _unlabelled(
    documents: Documents,
    peers: Sequence[tuple[NetworkPolicy, Peer]],
    config: TenantConfig | None,
) -> Iterator[Assumption]:
    """Namespaces that no document declares, where a policy asks for labels that they may have."""
    known = {NAME_LABEL} | ({config.label_key} if config is not None else set())
    keys: dict[str, str] = {}
    for policy, peer in peers:
        if peer.namespace_selector is not None and not (config and is_ours(policy.labels)):
            for requirement in peer.namespace_selector.requirements:
                if requirement.key not in known:
                    keys.setdefault(requirement.key, policy.key)
    declared = {namespace.name for namespace in documents.namespaces}
    used = {pod.namespace for pod in documents.pods}
    for name in sorted(used - declared) if keys else ():
        asked = ", ".join(sorted(keys))
        yield Assumption(
            frozenset([name]),
            f"Namespace {name} is not in the input and is taken to have no labels, but policies "
            f"such as {min(keys.values())} select namespaces by {asked}; add the Namespace",
        )


def _made_up(
    pods: Iterable[Pod],
    addresses: Mapping[str, tuple[str, ...]],
    peers: Iterable[tuple[NetworkPolicy, Peer]],
) -> Iterator[Assumption]:
    """Pods that got an address here, where a policy lets in by address."""
    block = next(
        (
            (policy.key, peer.ip_block.cidr)
            for policy, peer in peers
            if peer.ip_block is not None
            and (peer.ip_block.excepts or parse_network(peer.ip_block.cidr).prefixlen)
        ),
        None,
    )
    made = sorted((pod for pod in pods if not pod.ips and addresses[pod.key]), key=_key)
    if block is None or not made:
        return
    names = ", ".join(f"{pod.key} ({' and '.join(addresses[pod.key])})" for pod in made[:_SHOWN])
    more = f" and {len(made) - _SHOWN} more" if len(made) > _SHOWN else ""
    yield Assumption(
        frozenset(pod.namespace for pod in made),
        f"pods without status got addresses here: {names}{more}; policy {block[0]} decides by "
        f"address ({block[1]}): add their status.podIPs",
    )


def _key(pod: Pod) -> str:
    return pod.key
