"""What the kernel's maps really hold, in words: policies, connections, addresses, counts, drift.

`ringfence bpf ...` shows it. Everything is read from the kernel at that moment, only the names are
the agent's; `diff` compares both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice

from enforcer.agent.state import NodeState
from enforcer.answers.counts import Totals
from enforcer.answers.endpoints import ISOLATED
from enforcer.answers.identities import Identities
from enforcer.answers.request import Json, endpoint_of
from enforcer.datapath.connections import ConnectionFlag, TrackedConnection
from enforcer.datapath.flows import reason_of
from enforcer.datapath.maps import Maps, Statistic
from enforcer.observe.shape import PROTOCOLS
from enforcer.policy.tables import (
    ICMP_PORT,
    PEER_ANY,
    PORT_ANY,
    PROTO_ANY,
    RULE_DENY,
    RULE_NUMBER,
    RULE_REDIRECT,
    Dir,
    EndpointFlag,
    Key,
    Table,
    Tables,
    Value,
    contents,
)
from generators.reachability.protocols import ICMP_NUMBERS
from generators.reachability.verdicts import VERDICTS

PART = 1000
"""So many connections are in one part of an answer."""
EXACT_PORT = 16
"""Length of the prefix that is a whole port."""
CONNECTION_STATES = (
    (ConnectionFlag.RST, "RST"),
    (ConnectionFlag.REFUSED, "REFUSED"),
    (ConnectionFlag.FIN_OPENER, "FIN_OPENER"),
    (ConnectionFlag.FIN_REPLY, "FIN_REPLY"),
    (ConnectionFlag.REPLIED, "REPLIED"),
    (ConnectionFlag.ADOPTED, "ADOPTED"),
    (ConnectionFlag.KEPT, "KEPT"),
)


def named(kernel: Tables, state: NodeState) -> Tables:
    """The kernel's entries with the agent's names behind their numbers."""
    known = state.tables
    return replace(
        kernel,
        rules=known.rules,
        rule_sets=known.rule_sets,
        isolating=known.isolating,
        walls=known.walls,
        tenants=known.tenants,
    )


def policy_entries(maps: Maps, state: NodeState, name: str) -> list[Json]:
    """The entries of one endpoint, or of all without a name; the wall first, as in the programs."""
    kernel, identities, counted = maps.read(), Identities(state), maps.statistics()
    chosen = [endpoint_of(state, name)[0]] if name else sorted(kernel.endpoints)
    found: list[Json] = []
    for ifindex in chosen:
        entry = kernel.endpoints.get(ifindex)
        pod = state.pods.get(ifindex)
        if entry is None:
            continue
        packets = {
            (s.rule, s.direction): s for s in counted if s.endpoint == entry.endpoint and s.rule
        }
        for group, stage in ((entry.wall, "wall"), (entry.group, "policy")):
            rows = _rows(kernel, group) if group else []
            if stage == "policy":
                rows += [
                    (direction, PEER_ANY, PROTO_ANY, PORT_ANY, 0, 0)
                    for direction, isolated in ISOLATED.items()
                    if isolated not in entry.flags
                ]
            found += [
                {
                    "endpoint": entry.endpoint,
                    "pod": pod.key if pod is not None else None,
                    "stage": stage,
                    **_entry(row, identities, state, packets),
                }
                for row in rows
            ]
    return found


Row = tuple[Dir, int, int, int, int, int]
"""Direction, peer, protocol, port, bits of the port that count, rule; 0: not isolated."""


def _rows(kernel: Tables, group: int) -> list[Row]:
    exact = [
        (k.direction, k.peer, k.protocol, k.port, EXACT_PORT if k.port != PORT_ANY else 0, rule)
        for k, rule in kernel.policy.items()
        if k.group == group
    ]
    ranged = [
        (k.direction, k.peer, k.protocol, k.port, k.length, rule)
        for k, rule in kernel.ranges.items()
        if k.group == group
    ]
    return sorted((*exact, *ranged))


def _entry(
    row: Row,
    identities: Identities,
    state: NodeState,
    packets: Mapping[tuple[int, Dir], Statistic],
) -> Json:
    direction, peer, protocol, port, length, rule = row
    act, rule = _act(rule), rule & RULE_NUMBER
    http = state.tables.rule_sets.get(rule)
    counted = packets.get((rule, direction))
    return {
        "policy": act,
        "direction": "Ingress" if direction is Dir.INGRESS else "Egress",
        "peer": peer,
        "labels": identities.peer(peer),
        "ports": port_text(port, length, protocol),
        "bytes": counted.octets if counted is not None else 0,
        "packets": counted.packets if counted is not None else 0,
        "prefix": length,
        "rule": state.tables.rules.get(rule, f"unknown ({rule})") if rule else None,
        **({"http": [name for name, _ in http.rules]} if http is not None else {}),
    }


def _act(rule: int) -> str:
    if rule & RULE_DENY:
        return "Deny"
    return "Redirect" if rule & RULE_REDIRECT else "Allow"


def port_text(port: int, length: int, protocol: int) -> str:
    """`8082/TCP`, `8000-8063/TCP`, `ANY/UDP`, `type 8/ICMP`, `ANY`."""
    if length and protocol in ICMP_NUMBERS.values():
        return f"type {port & ~ICMP_PORT}/{PROTOCOLS.get(protocol, protocol)}"
    if length and length < EXACT_PORT:
        number = f"{port}-{port + (1 << (EXACT_PORT - length)) - 1}"
    else:
        number = str(port) if length else "ANY"
    if protocol == PROTO_ANY:
        return number
    return f"{number}/{PROTOCOLS.get(protocol, protocol)}"


def connections(maps: Maps, state: NodeState, name: str, limit: int) -> Iterator[Json]:
    """Tracked connections, of one endpoint or of all, in parts of an answer each.

    No more than `limit`; the last part says how many there are beside those.
    """
    only = endpoint_of(state, name)[1].endpoint if name else None
    pods = {
        entry.endpoint: pod.key
        for ifindex, entry in state.tables.endpoints.items()
        if (pod := state.pods.get(ifindex)) is not None
    }
    wanted = maps.tracked(only)
    shown = (_connection(read(), state, pods) for read in islice(wanted, limit))
    while part := list(islice(shown, PART)):
        yield {"entries": part}
    yield {"entries": [], "more": sum(1 for _ in wanted)}


def _connection(found: TrackedConnection, state: NodeState, pods: Mapping[int, str]) -> Json:
    ingress = found.opener is Dir.INGRESS
    ends = ((found.local, found.local_port), (found.remote, found.remote_port))
    source, destination = reversed(ends) if ingress else ends
    owner = state.owners.get(found.remote)
    tenant = state.tenants.get(owner.namespace) if owner is not None else None
    return {
        "endpoint": found.endpoint,
        "pod": pods.get(found.endpoint),
        "protocol": PROTOCOLS.get(found.protocol, str(found.protocol)),
        "direction": found.opener.name,
        "source": source[0],
        "sourcePort": source[1],
        "destination": destination[0],
        "destinationPort": destination[1],
        "idleSeconds": round(found.idle, 1),
        "expiresSeconds": round(max(0.0, found.allowed - found.idle), 1),
        "flags": [text for flag, text in CONNECTION_STATES if flag in found.flags],
        "generation": found.generation,
        "rule": state.tables.rules.get(found.rule),
        "reason": reason_of(found.reason).name if found.reason else None,
        "peerTenant": tenant,
    }


def addresses(maps: Maps, state: NodeState) -> list[Json]:
    """Address -> identity."""
    kernel = maps.read()
    found: list[Json] = []
    for address, entry in sorted(kernel.addresses.items()):
        pod = state.owners.get(address)
        found.append(
            {
                "address": address,
                "identity": entry.identity,
                "pod": pod.key if pod is not None else None,
                "node": state.nodes.get(address),
                "tenant": state.tables.tenants.get(entry.tenant),
                "flags": [flag.name for flag in type(entry.flags) if flag in entry.flags],
            }
        )
    return found


def endpoints(maps: Maps, state: NodeState) -> list[Json]:
    """The endpoints as the programs see them."""
    found: list[Json] = []
    for ifindex, entry in sorted(maps.read().endpoints.items()):
        pod = state.pods.get(ifindex)
        found.append(
            {
                "ifindex": ifindex,
                "endpoint": entry.endpoint,
                "pod": pod.key if pod is not None else None,
                "tenant": state.tables.tenants.get(entry.tenant),
                "group": entry.group,
                "wall": entry.wall,
                "generation": entry.generation,
                "flags": [flag.name for flag in EndpointFlag if flag in entry.flags],
                "addresses": [*entry.ip4, *entry.ip6],
            }
        )
    return found


def metrics(totals: Totals) -> list[Json]:
    """Packets and bytes by tenant and outcome."""
    return [
        {
            "tenant": key.tenant or None,
            "reason": reason_of(key.reason).name,
            "direction": key.direction.name,
            "verdict": VERDICTS[key.verdict].value,
            "packets": totals.packets[key],
            "bytes": totals.octets[key],
        }
        for key in sorted(totals.packets)
    ]


def drift(maps: Maps, state: Callable[[], NodeState]) -> list[Json]:
    """Where the kernel differs from what the agent wants; read again when that moved meanwhile."""
    while True:
        before = state()
        kernel, wanted = maps.read(), before.tables
        found = differences(kernel, wanted)
        if not found or state() is before:
            return found


def differences(kernel: Tables, wanted: Tables) -> list[Json]:
    """What the kernel lacks or has wrong, then what it has beside."""
    have, want = contents(kernel), contents(wanted)
    lacking = [
        (table, key)
        for table in Table
        for key in sorted(k for k, v in want[table].items() if have[table].get(k) != v)
    ]
    extra = [
        (table, key)
        for table in reversed(Table)
        for key in sorted(have[table].keys() - want[table].keys())
    ]
    return [
        _difference(table, key, have[table].get(key), want[table].get(key))
        for table, key in (*lacking, *extra)
    ]


def _difference(table: Table, key: Key, present: Value | None, wanted: Value | None) -> Json:
    what = "missing" if present is None else "wrong"
    return {
        "map": table.value,
        "what": what if wanted is not None else "extra",
        "key": str(key),
        "wanted": None if wanted is None else str(wanted),
        "kernel": None if present is None else str(present),
    }
