"""Flow events of the agent -> who judged a connection, and by which rule.

The prober knows the addresses and ports of every packet it sent, so an event is matched exactly.
Events reach the agent a moment after the packets; `witness` waits for them, within limits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from enforcer.answers import control
from generators.errors import RingfenceError
from generators.reachability.verdicts import WORST_FIRST, Judgement, Reason, Verdict

FLOWS = 4096
WAIT_SECONDS = 1.0
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection by its packets' addresses and ports."""

    protocol: str
    source: str
    source_port: int
    destination: str
    port: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """The programs' verdict in each direction; None without an event."""

    egress: Judgement | None = None
    ingress: Judgement | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing more can come: ingress is not asked where egress dropped."""
        dropped = self.egress is not None and self.egress.verdict is Verdict.DROPPED
        return self.egress is not None and (dropped or self.ingress is not None)


Witness = Callable[[Sequence[Connection]], Mapping[Connection, Evidence]]
"""The evidence about these connections."""


def flow_witness(run_dirs: Sequence[Path]) -> Witness:
    """A witness that asks the nodes' agents; of one that does not run, nothing is known."""

    def witness(connections: Sequence[Connection]) -> Mapping[Connection, Evidence]:
        wanted = frozenset(connections)
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            answers = [flows for run_dir in run_dirs if (flows := _flows(run_dir)) is not None]
            found = gather(chain.from_iterable(answers), wanted)
            if not answers:
                return {}
            complete = len(found) == len(wanted) and all(e.complete for e in found.values())
            if complete or time.monotonic() > deadline:
                return found
            time.sleep(POLL_SECONDS)

    return witness


def _flows(run_dir: Path) -> list[control.Answer] | None:
    """What an agent remembers; None where none answers."""
    try:
        return list(control.stream(run_dir, {"command": "flows", "last": FLOWS}))
    except RingfenceError:
        return None


def gather(
    flows: Iterable[Mapping[str, object]], wanted: Collection[Connection]
) -> dict[Connection, Evidence]:
    """The evidence in these flows about the wanted connections; a repeated packet adds nothing."""
    found: dict[Connection, Evidence] = {}
    for answer in flows:
        flow, judged = answer.get("flow"), answer.get("judgement")
        if not isinstance(flow, dict) or not isinstance(judged, dict):
            continue
        if "l7" in flow:
            continue  # about a request, not about the connection
        connection = _connection(flow)
        if connection is None or connection not in wanted:
            continue
        known, judgement = found.get(connection, Evidence()), _judgement(judged)
        if judgement is None:
            continue
        if flow.get("traffic_direction") == "EGRESS":
            found[connection] = replace(known, egress=_worse(known.egress, judgement))
        else:
            found[connection] = replace(known, ingress=_worse(known.ingress, judgement))
    return found


def _connection(flow: Mapping[str, object]) -> Connection | None:
    """The connection whose opening packet a flow is about."""
    addresses, l4 = flow.get("IP"), flow.get("l4")
    if not isinstance(addresses, dict) or not isinstance(l4, dict) or len(l4) != 1:
        return None
    ((protocol, ports),) = l4.items()
    if "destination_port" not in ports:
        return None
    return Connection(
        str(protocol),
        str(addresses["source"]),
        int(ports["source_port"]),
        str(addresses["destination"]),
        int(ports["destination_port"]),
    )


def _judgement(judged: Mapping[str, object]) -> Judgement | None:
    """None for reasons that are no answer to a question of the matrix (a malformed packet, ...)."""
    reason, rule, policies = judged.get("reason"), judged.get("rule"), judged.get("policies")
    if reason not in Reason.__members__:
        return None
    return Judgement(
        Verdict(str(judged["verdict"])),
        Reason(str(reason)),
        None if rule is None else str(rule),
        tuple(str(policy) for policy in policies) if isinstance(policies, list) else (),
    )


def _worse(known: Judgement | None, new: Judgement) -> Judgement:
    """An audited packet goes on to NetworkPolicy and may be dropped there: two events, one
    answer.
    """
    if known is None:
        return new
    return min(known, new, key=lambda judgement: WORST_FIRST.index(judgement.verdict))
