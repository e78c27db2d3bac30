"""From the tables in force to the desired ones, so that no packet meets a mixture of both.

The agent applies `between(previous, desired)` first and the desired tables second. What may
surprise: entries are added that neither side has. Writing a map is many small steps; while
addresses already have their new identities and endpoints still their old groups, the old groups
have to know the new numbers, and the new groups the blocks that are about to go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from enforcer.identity import within
from enforcer.tables import PEER_CIDR, PolicyKey, RangeKey, Tables
from generators.addresses import parse_network

Translation = Mapping[int, frozenset[int]]
"""A peer that a group does not know -> the peers it knows, all of which must agree."""


def between(previous: Tables, desired: Tables) -> Tables:
    """Everything of both, desired endpoints and addresses, and bridges for peers new to a side."""
    old_groups = {g for e in previous.endpoints.values() for g in (e.group, e.wall)}
    new_groups = {g for e in desired.endpoints.values() for g in (e.group, e.wall)}
    to_old = {**_new_identities(previous, desired), **_unknown_blocks(previous, desired)}
    to_new = _unknown_blocks(desired, previous)
    return replace(
        desired,
        policy={
            **_bridge(previous.policy, old_groups - new_groups, to_old),
            **_bridge(desired.policy, new_groups, to_new),
            **previous.policy,
            **desired.policy,
        },
        ranges={
            **_bridge_ranges(previous.ranges, old_groups - new_groups, to_old),
            **_bridge_ranges(desired.ranges, new_groups, to_new),
            **previous.ranges,
            **desired.ranges,
        },
        cidrs={**previous.cidrs, **desired.cidrs},
    )


def _new_identities(previous: Tables, desired: Tables) -> Translation:
    """New identity -> the old ones of its addresses; left out where an address is new altogether.

    What an unknown pod may do is not guessed: until its endpoints are switched it is a stranger.
    """
    known = {entry.identity for entry in previous.addresses.values()}
    origins: dict[int, set[int]] = {}
    strange: set[int] = set()
    for address, entry in desired.addresses.items():
        if entry.identity in known:
            continue
        before = previous.addresses.get(address)
        if before is None:
            strange.add(entry.identity)
        else:
            origins.setdefault(entry.identity, set()).add(before.identity)
    return {new: frozenset(old) for new, old in origins.items() if new not in strange}


def _unknown_blocks(here: Tables, there: Tables) -> Translation:
    """Blocks that only `there` knows -> the block that holds them `here`."""
    ids = {entry.cidr for entry in here.cidrs.values()}
    found: dict[int, frozenset[int]] = {}
    for prefix, entry in there.cidrs.items():
        outer = _longest(prefix, here.cidrs) if entry.cidr not in ids else None
        if outer is not None:
            found[PEER_CIDR | entry.cidr] = frozenset({PEER_CIDR | here.cidrs[outer].cidr})
    return found


def _longest(prefix: str, prefixes: Iterable[str]) -> str | None:
    network = parse_network(prefix)
    holding = (p for p in prefixes if within(network, p))
    return max(holding, key=lambda p: parse_network(p).prefixlen, default=None)


def _bridge(
    policy: Mapping[PolicyKey, int], groups: set[int], peers: Translation
) -> Mapping[PolicyKey, int]:
    return {
        replace(key, peer=peer): rule
        for key, rule in policy.items()
        if key.group in groups
        for peer, known in peers.items()
        if key.peer in known and all(replace(key, peer=k) in policy for k in known)
    }


def _bridge_ranges(
    ranges: Mapping[RangeKey, int], groups: set[int], peers: Translation
) -> Mapping[RangeKey, int]:
    return {
        replace(key, peer=peer): rule
        for key, rule in ranges.items()
        if key.group in groups
        for peer, known in peers.items()
        if key.peer in known and all(replace(key, peer=k) in ranges for k in known)
    }
