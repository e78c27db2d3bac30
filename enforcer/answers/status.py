"""How the agent is doing, on one page: what is enforced, what is not and why, drift, map fill.

`ringfence status`, `/readyz` and the sysdump show it. `ready` is false while a source has never
been read completely, although what was in force before still is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping

from enforcer.agent.settings import AgentSettings
from enforcer.agent.state import NodeState
from enforcer.answers.endpoints import adopting, not_enforced
from enforcer.answers.request import Json
from enforcer.datapath.maps import Maps
from enforcer.observe.feed import Feed
from enforcer.policy.tables import Table, Tables
from enforcer.sources.supply import InputState
from enforcer.writes.budgets import RoomUsage

FILES = ("config", "manifests")
"""Kinds of sources that are files: a bad one is not taken, and what was read before stays."""


def status(settings: AgentSettings, state: NodeState, feed: Feed, maps: Maps) -> Json:
    """All of it."""
    lost, capacity = maps.lost(), maps.capacity()
    return {
        "node": settings.node,
        "pid": os.getpid(),
        "ready": state.ready,
        "revision": state.revision,
        "mode": state.mode.value if state.mode is not None else None,
        "manifests": state.seen_manifests,
        "config": state.seen_config,
        "errors": dict(sorted(state.errors.items())),
        "endpoints": len(state.tables.endpoints),
        "notEnforced": not_enforced(state),
        "adopting": adopting(state, maps.adoption()),
        "attached": counts(state.attached.values()),
        "sources": {name: _source(source) for name, source in sorted(state.sources.items())},
        "audit": {
            "runs": state.audit.runs,
            "corrections": state.audit.corrections,
            "drift": dict(sorted(state.audit.drift.items())),
        },
        "maps": {
            table.value: {
                "entries": entries(state.tables, table),
                "capacity": capacity[table],
                **_usage(state.usage.get(table.value)),
            }
            for table in Table
        },
        "http": {
            "listeners": state.proxy.listeners,
            "proxy": state.proxy.pid or None,
            "starts": state.proxy.starts,
            "refused": state.proxy.refused,
        },
        "withoutRoom": dict(sorted(state.excess.items())),
        "flows": {"read": feed.count, "lost": lost.events, "heldBack": lost.held_back},
        "pinDir": str(settings.pin_dir),
        "neighbours": list(state.neighbours.held(state.attached)),
        "problems": problems(state),
    }


def problems(state: NodeState) -> list[str]:
    """All that is not as it should be; nothing when all is well."""
    return [
        *unready(state),
        *state.notices,
        *invalid(state),
        *(f"{key} is not enforced: {why}" for key, why in sorted(state.unenforced.items())),
        *(why for _, why in sorted(state.excess.items())),
        *([state.proxy.problem] if state.proxy.problem else []),
        *state.neighbours.problems(state.attached),
    ]


def unready(state: NodeState) -> list[str]:
    """Why the agent does not call itself ready.

    Neither a pod that cannot be enforced, nor a tenant that wants too much, nor a kind of policies
    that nobody enforces is one of the reasons: it would hold up the agents of all nodes.
    """
    found = [] if state.ready else ["this agent has put nothing in force yet"]
    for name, source in sorted(state.sources.items()):
        if not source.synced:
            found.append(f"{name}: not read completely yet")
        elif source.forbidden:
            found.append(f"{name}: the API server refuses access; the known state is getting old")
        elif not source.connected and source.kind not in FILES:
            found.append(f"{name}: no connection; changes do not arrive")
        for item, why in sorted(source.unreadable.items()) if not source.tolerant else ():
            held = source.kind in FILES and source.synced
            what = "is refused, the last good one is in force" if held else "is invalid"
            end = "" if source.kind in FILES else " and is closed"
            found.append(f"{name}: {item} {what}{end}: {why}")
    found += [f"{source}: {error}" for source, error in sorted(state.errors.items())]
    drifted = sorted(state.audit.drift.items())
    found += [f"map {name}: {number} entries had drifted" for name, number in drifted]
    return found


def invalid(state: NodeState) -> list[str]:
    """Objects that tenants wrote, the API server took and this agent refuses; they are closed."""
    return [
        f"{name}: {item} is invalid and is closed: {why}"
        for name, source in sorted(state.sources.items())
        if source.tolerant
        for item, why in sorted(source.unreadable.items())
    ]


def entries(tables: Tables, table: Table) -> int:
    """How many entries a map has."""
    held: Mapping[Table, int] = {
        Table.POLICY: len(tables.policy),
        Table.RANGES: len(tables.ranges),
        Table.CIDRS: len(tables.cidrs),
        Table.SERVICES: len(tables.services),
        Table.ADDRESSES: len(tables.addresses),
        Table.ENDPOINTS: len(tables.endpoints),
    }
    return held[table]


def _usage(usage: RoomUsage | None) -> Json:
    """Used and budget by tenant, as far as the map is shared among them."""
    if usage is None:
        return {}
    return {
        "room": usage.room,
        "tenants": {
            tenant: {
                "used": usage.used.get(tenant, 0),
                "budget": budget,
                "waiting": usage.waiting.get(tenant, 0),
            }
            for tenant, budget in sorted(usage.budget.items())
        },
    }


def counts(values: Iterable[str]) -> Mapping[str, int]:
    """How often each value is there."""
    listed = list(values)
    return {value: listed.count(value) for value in sorted(set(listed))}


def _source(source: InputState) -> Json:
    age = None if source.last_event is None else round(time.monotonic() - source.last_event, 1)
    return {
        "synced": source.synced,
        "connected": source.connected,
        "forbidden": source.forbidden,
        "objects": source.objects,
        "lastEventSeconds": age,
        "events": dict(source.events),
        "relists": dict(source.relists),
        "failures": dict(source.failures),
        "unreadable": dict(source.unreadable),
    }
