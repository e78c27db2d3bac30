"""What would be dropped: audited flows grouped by source, destination, port and what refused.

`ringfence audit report` shows it before a tenant or a namespace leaves audit mode. Ports and peers
are those of remembered flows, a sample; the packets of an endpoint are counted by the kernel,
exactly.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from enforcer.agent.state import State
from enforcer.answers.request import Json
from enforcer.datapath.flows import reason_of
from enforcer.datapath.maps import Statistic
from enforcer.observe.feed import Line
from enforcer.observe.names import Directory, NamedEvent, Party
from enforcer.observe.shape import PROTOCOLS
from enforcer.policy.tables import Dir
from generators.reachability.verdicts import Verdict

AUDITED = 2
"""enum verdict of statistics."""


@dataclass(frozen=True, slots=True, order=True)
class Would:
    """One kind of packet that would be dropped."""

    subject: str
    direction: str
    peer: str
    peer_tenant: str
    port: int
    protocol: str
    reason: str
    by: tuple[str, ...]
    source: tuple[str, ...]


def report(state: State, node: str, lines: Iterable[Line], counted: Iterable[Statistic]) -> Json:
    """The flows that are remembered, and the exact counts of each endpoint.

    Flows from before the agent knew the interface's pod get its names now.
    """
    found: dict[Would, list[int]] = {}
    directory = Directory(state, node)
    for line in lines:
        seen = line.seen
        if seen is not None and seen.record.verdict is Verdict.AUDIT:
            seen = seen if seen.local.pod else directory.see(seen.record)
            times = found.setdefault(_would(seen), [])
            times.append(seen.record.time)
    flows = [
        {
            "subject": would.subject,
            "direction": would.direction,
            "peer": would.peer,
            "peerTenant": would.peer_tenant or None,
            "port": would.port or None,
            "protocol": would.protocol,
            "reason": would.reason,
            "by": list(would.by),
            "source": list(would.source),
            "flows": len(times),
        }
        for would, times in sorted(found.items())
    ]
    return {"flows": flows, "totals": _totals(state, directory, counted)}


def _would(seen: NamedEvent) -> Would:
    record = seen.record
    inward = record.direction is Dir.INGRESS
    near, far = seen.local, seen.source if inward else seen.destination
    address = record.source if inward else record.destination
    return Would(
        subject=_name(near, record.destination if inward else record.source),
        direction=record.direction.name,
        peer=_name(far, address),
        peer_tenant=far.tenant,
        port=record.destination_port,
        protocol=PROTOCOLS.get(record.protocol, str(record.protocol)),
        reason=record.reason.name,
        by=tuple(speaker.name for speaker in seen.speakers),
        source=tuple(speaker.origin for speaker in seen.speakers if speaker.origin),
    )


def _name(party: Party, address: str) -> str:
    return f"{party.namespace}/{party.pod}" if party.pod else address


def _totals(state: State, directory: Directory, counted: Iterable[Statistic]) -> list[Json]:
    pods = {
        entry.endpoint: pod.key
        for ifindex, entry in state.tables.endpoints.items()
        if (pod := state.pods.get(ifindex)) is not None
    }
    rows = [
        {
            "endpoint": item.endpoint,
            "pod": pods.get(item.endpoint),
            "direction": item.direction.name,
            "reason": reason_of(item.reason).name,
            "by": list(directory.isolating(item.group, item.direction)) if item.group else [],
            "packets": item.packets,
            "bytes": item.octets,
        }
        for item in sorted(counted)
        if item.verdict == AUDITED
    ]
    return sorted(
        rows, key=lambda row: (str(row["pod"]), str(row["direction"]), str(row["reason"]))
    )
