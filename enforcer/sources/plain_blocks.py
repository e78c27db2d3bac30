"""Long lists of blocks, taken out of a policy's JSON before the general reader sees it.

That one looks at every field of every item and takes fifty times as long; a policy with thousands
of blocks would keep the agent's loop from its turn meanwhile. Only items with nothing but a `cidr`,
in canonical spelling, are taken: the rest is the general reader's, and so are all errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from generators.addresses import is_canonical
from generators.documents.json import Document
from generators.objects import IPBlock, NetworkPolicy, Peer, Rule

SIDES = (("ingress", "from"), ("egress", "to"))
MANY = 16
"""Peers of a rule that are worth a look."""
Taken = Mapping[tuple[str, int], tuple[Peer, ...]]
"""By side and place of the rule."""


def take(spec: Mapping[str, object]) -> tuple[Document, Taken]:
    """A policy's spec without them, and what was taken."""
    rest, taken = dict(spec), dict[tuple[str, int], tuple[Peer, ...]]()
    for side, peers in SIDES:
        rules = spec.get(side)
        if not isinstance(rules, list):
            continue
        kept = list(rules)
        for index, rule in enumerate(rules):
            items = rule.get(peers) if isinstance(rule, dict) else None
            if not isinstance(items, list) or len(items) < MANY:
                continue
            cidrs = [_plain(item) for item in items]
            others = [item for item, cidr in zip(items, cidrs, strict=True) if not cidr]
            first, *more = [cidr for cidr in cidrs if cidr] or [""]
            if more:
                # One stays: a rule without peers would mean everybody.
                kept[index] = {**rule, peers: [*others, {"ipBlock": {"cidr": first}}]}
                taken[side, index] = tuple(Peer(ip_block=IPBlock(cidr)) for cidr in more)
        rest[side] = kept
    return rest, taken


def put_back(policy: NetworkPolicy, taken: Taken) -> NetworkPolicy:
    """The policy that was read without them."""
    return replace(
        policy,
        ingress=_with(policy.ingress, "ingress", taken),
        egress=_with(policy.egress, "egress", taken),
    )


def _with(rules: tuple[Rule, ...], side: str, taken: Taken) -> tuple[Rule, ...]:
    return tuple(
        replace(rule, peers=(*rule.peers, *taken.get((side, index), ())))
        for index, rule in enumerate(rules)
    )


def _plain(item: object) -> str:
    """The block of an item with nothing else."""
    if not isinstance(item, dict) or len(item) != 1:
        return ""
    block = item.get("ipBlock")
    if not isinstance(block, dict) or len(block) != 1:
        return ""
    cidr = block.get("cidr")
    return cidr if isinstance(cidr, str) and is_canonical(cidr) else ""
