"""What would be dropped: kinds of flows by who, whom, port and who refused, and exact counts.

`ringfence audit report` shows it before a tenant or a namespace leaves audit mode. The kinds are
those of `observe/audited.py`, which forgets none that was read while it has room; the packets of an
endpoint are counted by the kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from enforcer.agent.state import NodeState
from enforcer.answers.request import Json
from enforcer.datapath.flows import reason_of
from enforcer.datapath.maps import Statistic
from enforcer.observe.audited import Seen, Would
from enforcer.observe.names import Directory
from enforcer.observe.shape import timestamp

AUDITED = 2
"""enum verdict of statistics."""


def report(
    state: NodeState,
    node: str,
    kinds: Iterable[tuple[Would, Seen]],
    forgotten: Mapping[str, int],
    lost: int,
    counted: Iterable[Statistic],
) -> Json:
    """The kinds of flows that are remembered, and the exact counts of each endpoint.

    `forgotten`: flows that had no room, by tenant. `lost`: events of any kind that the agent never
    read since its programs were loaded.
    """
    flows = [
        {
            "subject": would.subject,
            "subjectTenant": would.subject_tenant or None,
            "direction": would.direction,
            "peer": would.peer,
            "peerTenant": would.peer_tenant or None,
            "port": would.port or None,
            "protocol": would.protocol,
            "reason": would.reason,
            "by": list(would.by),
            "source": list(seen.source),
            "flows": seen.flows,
            "firstSeen": timestamp(seen.first),
            "lastSeen": timestamp(seen.last),
        }
        for would, seen in kinds
    ]
    totals = _totals(state, Directory(state, node), counted)
    return {"flows": flows, "totals": totals, "forgotten": dict(forgotten), "lost": lost}


def _totals(state: NodeState, directory: Directory, counted: Iterable[Statistic]) -> list[Json]:
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
