"""A record of the kernel becomes one flow as Hubble's tools read it."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from enforcer.flows import (
    DropReason,
    EventFlag,
    Flow,
    FlowRecord,
    ForwardReason,
    Party,
    to_flow,
)
from enforcer.tables import Dir
from generators.verdicts import Verdict

DROP = FlowRecord(
    time=1_767_607_200_123_456_789,
    endpoint=211,
    ifindex=9,
    direction=Dir.INGRESS,
    verdict=Verdict.DROPPED,
    reason=DropReason.POLICY_DENIED,
    rule=0,
    group=20,
    identity=15194,
    tenant=7,
    length=74,
    family=4,
    protocol=6,
    source="10.0.1.7",
    destination="10.0.1.185",
    source_port=60556,
    destination_port=8082,
    ethertype=0x0800,
    tcp_flags=2,
    icmp_type=0,
    icmp_code=0,
    flags=EventFlag(0),
)


class Names:
    """Two pods, one rule, two policies."""

    def party(self, address: str) -> Party | None:
        return {
            "10.0.1.7": Party(12, 15194, "red-dev", "web-0", "red", ("k8s:app=web",)),
            "10.0.1.185": Party(211, 15435, "blue-dev", "api-7c9", "blue", ("k8s:app=api",)),
            "10.0.0.1": Party(identity=1),
        }.get(address)

    def rule(self, rule: int) -> str | None:
        return {1: "blue-dev/allow-web#ingress[0]", 2: "tenant/blue#own"}.get(rule)

    def isolating(self, group: int, direction: Dir) -> tuple[str, ...]:
        return {20: ("blue-dev/a", "blue-dev/b"), 30: ("tenant/blue#wall",)}.get(group, ())


def flow_of(record: FlowRecord) -> Flow:
    return cast(Flow, to_flow(record, Names(), "node1")["flow"])


def test_drop_is_the_flow_of_the_reference() -> None:
    whole = to_flow(DROP, Names(), "node1")
    assert (whole["node_name"], whole["time"]) == ("node1", "2026-01-05T10:00:00.123456789Z")
    flow = cast(Flow, whole["flow"])
    assert flow == {
        "time": "2026-01-05T10:00:00.123456789Z",
        "uuid": flow["uuid"],
        "verdict": "DROPPED",
        "drop_reason_desc": "POLICY_DENIED",
        "IP": {"source": "10.0.1.7", "destination": "10.0.1.185", "ipVersion": "IPv4"},
        "l4": {"TCP": {"source_port": 60556, "destination_port": 8082, "flags": {"SYN": True}}},
        "source": {
            "ID": 12,
            "identity": 15194,
            "namespace": "red-dev",
            "labels": ["k8s:app=web", "tenant:name=red"],
            "pod_name": "web-0",
        },
        "destination": {
            "ID": 211,
            "identity": 15435,
            "namespace": "blue-dev",
            "labels": ["k8s:app=api", "tenant:name=blue"],
            "pod_name": "api-7c9",
        },
        "Type": "L3_L4",
        "node_name": "node1",
        "event_type": {"type": 1, "sub_type": 133},
        "traffic_direction": "INGRESS",
        "is_reply": False,
        "ingress_denied_by": [
            {"name": "a", "namespace": "blue-dev", "kind": "NetworkPolicy"},
            {"name": "b", "namespace": "blue-dev", "kind": "NetworkPolicy"},
        ],
        "Summary": "TCP Flags: SYN",
    }


def test_rule_that_allowed_is_named() -> None:
    allowed = replace(DROP, verdict=Verdict.FORWARDED, reason=ForwardReason.POLICY_ALLOWED, rule=1)
    flow = flow_of(allowed)
    assert flow["ingress_allowed_by"] == [
        {
            "name": "allow-web",
            "namespace": "blue-dev",
            "kind": "NetworkPolicy",
            "labels": ["ringfence:rule=blue-dev/allow-web#ingress[0]"],
        }
    ]
    assert "drop_reason_desc" not in flow


def test_wall_is_named_as_its_tenant() -> None:
    walled = replace(DROP, reason=DropReason.TENANT_WALL, group=30)
    assert flow_of(walled)["ingress_denied_by"] == [
        {"name": "blue", "kind": "Tenant", "labels": ["ringfence:rule=tenant/blue#wall"]}
    ]


@pytest.mark.parametrize(
    ("address", "identity", "expected"),
    [
        ("10.0.0.1", 1, {"identity": 1, "labels": ["reserved:host"]}),
        ("192.0.2.1", 0, {"identity": 2, "labels": ["reserved:world"]}),
        ("10.0.0.9", 6, {"identity": 6, "labels": ["reserved:remote-node"]}),
    ],
    ids=["node", "world", "remote node"],
)
def test_who_is_no_pod_has_a_reserved_name(address: str, identity: int, expected: Flow) -> None:
    assert flow_of(replace(DROP, source=address, identity=identity))["source"] == expected


@pytest.mark.parametrize(
    ("protocol", "l4"),
    [
        (17, {"UDP": {"source_port": 60556, "destination_port": 8082}}),
        (132, {"SCTP": {"source_port": 60556, "destination_port": 8082}}),
        (1, {"ICMPv4": {"type": 8, "code": 0}}),
        (58, {"ICMPv6": {"type": 8, "code": 0}}),
        (47, {}),
    ],
)
def test_each_protocol_has_its_l4(protocol: int, l4: Flow) -> None:
    assert flow_of(replace(DROP, protocol=protocol, icmp_type=8))["l4"] == l4


def test_egress_is_the_pods_own_side() -> None:
    out = replace(DROP, direction=Dir.EGRESS, source="10.0.1.185", destination="10.0.1.7")
    flow = flow_of(out)
    assert flow["traffic_direction"] == "EGRESS"
    assert "egress_denied_by" in flow


def test_same_record_is_the_same_flow() -> None:
    assert flow_of(DROP) == flow_of(DROP)
    assert flow_of(DROP)["uuid"] != flow_of(replace(DROP, time=DROP.time + 1))["uuid"]


def test_frame_that_is_not_ip_has_no_addresses() -> None:
    frame = replace(DROP, family=0, ethertype=0x88CC, source="", destination="", protocol=0)
    flow = flow_of(frame)
    assert "IP" not in flow
    assert flow["Summary"] == "EtherType 0x88cc"
