"""What `list nodes` and `list namespaces` answer: whose flows there are, and where they are kept.

Called by service.py; words and fields are those of Hubble's API. An agent has flows of its own node
only; of the others it reports only that they exist.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from enforcer.agent.state import NodeState
from enforcer.answers.request import Json
from enforcer.observe.feed import REMEMBERED, Feed, FeedLine
from generators.reachability.verdicts import Verdict

CONNECTED, UNKNOWN = "connected", "unknown"
NANOSECONDS = 1_000_000_000


def nodes(own: str, state: NodeState, feed: Feed) -> list[Json]:
    """The nodes of the cluster, by name, with the addresses that others know; flows of this one."""
    observed = {
        "state": CONNECTED,
        "uptime_ns": int(feed.uptime * NANOSECONDS),
        "seen_flows": feed.count,
        "num_flows": feed.kept,
        "max_flows": REMEMBERED,
    }
    return [
        {
            "name": name,
            "addresses": sorted(state.node_addresses.get(name, ())),
            **(observed if name == own else {"state": UNKNOWN}),
        }
        for name in sorted({own, *state.node_addresses})
    ]


def namespaces(lines: Iterable[FeedLine]) -> list[Json]:
    """The namespaces of the flows that are remembered, by name; how many flows, how many drops."""
    tenants: dict[str, str] = {}
    flows: Counter[str] = Counter()
    drops: Counter[str] = Counter()
    for seen in (line.seen for line in lines):
        if seen is None:
            continue
        ends = {end.namespace: end.tenant for end in (seen.source, seen.destination)}
        ends.pop("", None)
        tenants.update(ends)
        flows.update(ends.keys())
        if seen.record.verdict is Verdict.DROPPED:
            drops.update(ends.keys())
    return [
        {"namespace": name, "tenant": tenants[name], "flows": flows[name], "dropped": drops[name]}
        for name in sorted(tenants)
    ]
