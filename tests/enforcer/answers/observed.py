"""An agent's state in which every metric has a value, for tests of names and dashboards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from prometheus_client import CollectorRegistry

from enforcer.agent.delays import Bootstrap, WorkKind
from enforcer.agent.state import Board, NodeState
from enforcer.answers.counts import Counts
from enforcer.answers.metrics import AgentCollector, Observed
from enforcer.datapath.flows import DropReason, EventFlag, FlowRecord, ForwardReason
from enforcer.datapath.maps import Collected, Lost, Statistic
from enforcer.observe.feed import Feed
from enforcer.observe.requests import HttpRecord
from enforcer.policy.tables import CAPACITY, Dir, EndpointEntry, EndpointFlag, Table, Tables
from enforcer.sources.supply import InputState
from enforcer.writes.budgets import Refusal, RoomUsage
from generators.objects import Direction, Pod
from generators.reachability.verdicts import Verdict


class Kernel:
    """Maps that say something of everything."""

    collected = Collected(3, 2)

    def lost(self) -> Lost:
        return Lost(4, 0)

    def memory(self) -> int:
        return 1 << 20

    def capacity(self) -> Mapping[Table, int]:
        return CAPACITY

    def statistics(self) -> tuple[Statistic, ...]:
        outcomes = ((0, ForwardReason.POLICY_ALLOWED), (1, DropReason.TENANT_WALL))
        audited = (2, DropReason.TENANT_WALL)
        return tuple(
            Statistic(1, Dir.INGRESS, verdict, int(reason), 0, 0, 5, 300)
            for verdict, reason in (*outcomes, audited)
        )

    def forget(self, endpoints: object) -> None:
        """Nothing goes."""


RECORD = FlowRecord(
    time=0,
    endpoint=1,
    ifindex=7,
    direction=Dir.INGRESS,
    verdict=Verdict.DROPPED,
    reason=DropReason.TENANT_WALL,
    rule=0,
    group=0,
    identity=300,
    tenant=0,
    length=60,
    family=4,
    protocol=6,
    source="10.0.0.9",
    destination="10.0.0.1",
    source_port=40000,
    destination_port=80,
    ethertype=0x0800,
    tcp_flags=2,
    icmp_type=0,
    icmp_code=0,
    flags=EventFlag(0),
)


REQUEST = HttpRecord(
    time=0,
    direction=Dir.INGRESS,
    source="10.0.0.9",
    source_port=40000,
    destination="10.0.0.1",
    destination_port=80,
    method="GET",
    path="/",
    host="api",
    protocol="HTTP/1.1",
    code=200,
    latency=1_000_000,
    rule="blue-dev/cnp:web#ingress[0].toPorts[0].rules.http[0]",
)
REFUSAL = Refusal("blue-dev/big", Direction.INGRESS, "blue", Table.CIDRS, 11, 12, 5, 10)


def state() -> NodeState:
    pod = Pod("blue-dev", "api", ips=("10.0.0.1",))
    flags = EndpointFlag.READY | EndpointFlag.WALL
    source = InputState(
        "networkpolicies",
        synced=True,
        connected=True,
        last_event=0.0,
        events={"update": 3},
        failures={"Forbidden": 1},
    )
    found = NodeState(
        revision=2,
        tables=Tables(endpoints={7: EndpointEntry(1, 0, 0, 0, 1, flags, ("10.0.0.1",))}),
        pods={7: pod},
        owners={"10.0.0.1": pod},
        tenants={"blue-dev": "blue"},
        sources={"networkpolicies": source},
        refused=(REFUSAL,),
        excess={"blue-dev/big Ingress": str(REFUSAL)},
        usage={"cidr_map": RoomUsage(10, {"blue": 9}, {"blue": 5}, {"blue": 1})},
    )
    for name in ("k8s", "write", "gc"):
        found.delays.observe(name, 0.003)
    for work in (
        WorkKind("regeneration"),
        WorkKind("gc", "ct_map"),
        WorkKind("map", "addr_map", "update"),
        WorkKind("map", "addr_map", "update", "fail"),
        WorkKind("map", "pol_map", "update", "refused"),
    ):
        found.tally.add(work)
    return found


def registry() -> CollectorRegistry:
    """The agent's metrics, each with a sample."""
    board, kernel = Board(), Kernel()
    board.publish(state())
    feed = Feed(board, "node1")
    feed.add((RECORD, replace(RECORD, verdict=Verdict.FORWARDED, reason=ForwardReason.HOST)))
    feed.add_requests([REQUEST])
    bootstrap = Bootstrap()
    bootstrap.reached("programs")
    counts = Counts(kernel, lambda endpoint: "blue")
    found = CollectorRegistry()
    found.register(AgentCollector(Observed(board, kernel, counts, feed, bootstrap)))
    return found
