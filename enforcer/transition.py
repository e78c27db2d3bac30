"""From the tables in force to the desired ones, so that no packet meets a mixture of both.

The agent applies `between(previous, desired)` first and the desired tables second. What may
surprise: the tables in between hold identities and entries that neither side has. Writing maps is
many small steps, and a pod may move from one class to another while endpoints still have their old
groups. So it first becomes a class of its own, "was A and will be B": old groups treat it as A and
new ones as B. Blocks of addresses that only one side knows are bridged to the block around them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from enforcer.tables import (
    FIRST_POD_IDENTITY,
    PEER_CIDR,
    SERVICE_BACKENDS,
    AddressEntry,
    PolicyKey,
    RangeKey,
    Tables,
)
from generators.addresses import parse_network
from generators.services import Backend

Translation = Mapping[int, int]
"""A peer that a group does not know -> the peer that it is to be treated as."""

Number = Callable[[tuple[str, int, int]], int]
"""A fresh identity for ("moving", from, to)."""


def between(previous: Tables, desired: Tables, number: Number) -> Tables:
    """Everything of both, endpoints as desired, and pods on the move under numbers of their own."""
    moving = _moving(previous, desired, number)
    old_groups = {g for e in previous.endpoints.values() for g in (e.group, e.wall)}
    new_groups = {g for e in desired.endpoints.values() for g in (e.group, e.wall)}
    to_old = {**_unknown_blocks(previous, desired), **{m: old for (old, _), m in moving.items()}}
    to_new = {**_unknown_blocks(desired, previous), **{m: new for (_, new), m in moving.items()}}
    return replace(
        desired,
        addresses={**desired.addresses, **_on_the_move(previous, desired, moving)},
        policy={
            **_bridge(previous.policy, old_groups, to_old),
            **_bridge(desired.policy, new_groups, to_new),
            **previous.policy,
            **desired.policy,
        },
        ranges={
            **_bridge_ranges(previous.ranges, old_groups, to_old),
            **_bridge_ranges(desired.ranges, new_groups, to_new),
            **previous.ranges,
            **desired.ranges,
        },
        cidrs={**previous.cidrs, **desired.cidrs},
        services={
            **previous.services,
            **{k: _both(previous.services.get(k, b), b) for k, b in desired.services.items()},
        },
    )


def _both(before: tuple[Backend, ...], after: tuple[Backend, ...]) -> tuple[Backend, ...]:
    """All must be allowed; closed where they do not fit, and where one of the two is."""
    joined = tuple(dict.fromkeys((*before, *after))) if before and after else ()
    return joined if len(joined) <= SERVICE_BACKENDS else ()


def _moving(previous: Tables, desired: Tables, number: Number) -> Mapping[tuple[int, int], int]:
    """(Identity before, identity after) of pods that change it -> their identity meanwhile."""
    pairs = {
        (before.identity, entry.identity)
        for address, entry in desired.addresses.items()
        if (before := previous.addresses.get(address)) is not None
        and before.identity != entry.identity
        and min(before.identity, entry.identity) >= FIRST_POD_IDENTITY
    }
    return {pair: number(("moving", *pair)) for pair in sorted(pairs)}


def _on_the_move(
    previous: Tables, desired: Tables, moving: Mapping[tuple[int, int], int]
) -> Mapping[str, AddressEntry]:
    found = {}
    for address, entry in desired.addresses.items():
        before = previous.addresses.get(address)
        meanwhile = moving.get((before.identity, entry.identity)) if before is not None else None
        if meanwhile is not None:
            found[address] = replace(entry, identity=meanwhile)
    return found


def _unknown_blocks(here: Tables, there: Tables) -> Translation:
    """Blocks that only `there` knows -> the block that holds them `here`."""
    ids = {entry.cidr for entry in here.cidrs.values()}
    found: dict[int, int] = {}
    for prefix, entry in there.cidrs.items():
        outer = _longest(prefix, here.cidrs) if entry.cidr not in ids else None
        if outer is not None:
            found[PEER_CIDR | entry.cidr] = PEER_CIDR | here.cidrs[outer].cidr
    return found


def _longest(prefix: str, prefixes: Mapping[str, object]) -> str | None:
    network = parse_network(prefix)
    outer = (str(network.supernet(new_prefix=n)) for n in range(network.prefixlen - 1, -1, -1))
    return next((text for text in outer if text in prefixes), None)


def _bridge(
    policy: Mapping[PolicyKey, int], groups: set[int], peers: Translation
) -> Mapping[PolicyKey, int]:
    strangers = _by_model(peers)
    return {
        replace(key, peer=peer): rule
        for key, rule in policy.items()
        if key.group in groups
        for peer in strangers.get(key.peer, ())
    }


def _bridge_ranges(
    ranges: Mapping[RangeKey, int], groups: set[int], peers: Translation
) -> Mapping[RangeKey, int]:
    strangers = _by_model(peers)
    return {
        replace(key, peer=peer): rule
        for key, rule in ranges.items()
        if key.group in groups
        for peer in strangers.get(key.peer, ())
    }


def _by_model(peers: Translation) -> Mapping[int, list[int]]:
    """Known peer -> those that are to be treated as it."""
    found: dict[int, list[int]] = {}
    for peer, model in peers.items():
        found.setdefault(model, []).append(peer)
    return found
