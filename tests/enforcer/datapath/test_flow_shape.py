"""A record of the kernel becomes one flow as Hubble's tools read it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from enforcer.agent.state import NodeState
from enforcer.datapath import layout
from enforcer.datapath.flows import DropReason, EventFlag, FlowRecord, ForwardReason, decode
from enforcer.observe.names import Directory, MatchType
from enforcer.observe.shape import HUBBLE_NAMES, Flow, published, to_flow
from enforcer.policy.services import Serving
from enforcer.policy.tables import AddressEntry, Dir, EndpointEntry, EndpointFlag, Tables
from generators.objects import (
    NetworkPolicy,
    Origin,
    Peer,
    Pod,
    PolicyPort,
    Rule,
    Selector,
    Workload,
)
from generators.reachability.verdicts import Verdict
from generators.tenants.model import Tenant, TenantConfig

WEB_INTERFACE, API_INTERFACE = 1 << 30, (1 << 30) + 1
"""No machine has so many."""
DROP = FlowRecord(
    time=1_767_607_200_123_456_789,
    endpoint=211,
    ifindex=API_INTERFACE,
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


WEB = Pod(
    "red-dev", "web-0", {"app": "web"}, ips=("10.0.1.7",), workload=Workload("StatefulSet", "web")
)
API = Pod("blue-dev", "api-7c9", {"app": "api"}, ips=("10.0.1.185",))
ALLOW = NetworkPolicy(
    "blue-dev",
    "allow-web",
    ingress=(Rule(peers=(Peer(pod_selector=Selector()),), ports=(PolicyPort("TCP", 8082),)),),
    origin=Origin("policies.yaml", 7),
)
STATE = NodeState(
    revision=3,
    tables=Tables(
        endpoints={
            WEB_INTERFACE: EndpointEntry(12, 0, 0, 0, 1, EndpointFlag.READY, ("10.0.1.7",)),
            API_INTERFACE: EndpointEntry(211, 20, 30, 0, 1, EndpointFlag.READY, ("10.0.1.185",)),
        },
        addresses={"10.0.1.7": AddressEntry(15194), "10.0.1.185": AddressEntry(15435)},
        rules={1: "blue-dev/allow-web#ingress[0]", 2: "tenant/blue#own"},
        isolating={
            (20, Dir.INGRESS): ("blue-dev/a", "blue-dev/b"),
            (20, Dir.EGRESS): ("blue-dev/a",),
        },
        walls={30: "tenant/blue#wall"},
    ),
    pods={WEB_INTERFACE: WEB, API_INTERFACE: API},
    owners={"10.0.1.7": WEB, "10.0.1.185": API},
    tenants={"red-dev": "red", "blue-dev": "blue"},
    nodes={"10.0.0.1": "node1"},
    policies={ALLOW.key: ALLOW},
    config=TenantConfig({"blue": Tenant("blue", line=14)}, file="tenants.yaml"),
)


def line_of(record: FlowRecord) -> Flow:
    return to_flow(Directory(STATE, "node1").see(record), "node1")


def flow_of(record: FlowRecord) -> Flow:
    return cast(Flow, line_of(record)["flow"])


def test_drop_is_the_flow_of_the_reference() -> None:
    whole = line_of(DROP)
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
            "workloads": [{"name": "web", "kind": "StatefulSet"}],
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
            {"name": "a", "namespace": "blue-dev", "kind": "NetworkPolicy", "revision": 3},
            {"name": "b", "namespace": "blue-dev", "kind": "NetworkPolicy", "revision": 3},
        ],
        "interface": {"index": API_INTERFACE},
        "Summary": "TCP Flags: SYN",
    }


SERVING = {
    "10.0.1.185": (
        Serving("blue-dev/admin", frozenset({("TCP", 9000)})),
        Serving("blue-dev/api", frozenset({("TCP", 8082)})),
    ),
    "10.0.1.7": (Serving("red-dev/web", frozenset({("TCP", 80)})),),
}


@pytest.mark.parametrize(
    ("change", "source", "destination"),
    [
        pytest.param({}, "web", "api", id="a call: the caller by any port, the called by its own"),
        pytest.param({"destination_port": 9000}, "web", "admin", id="another port"),
        pytest.param({"destination_port": 22}, "web", None, id="a port of no Service"),
        pytest.param({"protocol": 17}, "web", None, id="another protocol"),
        pytest.param({"protocol": 1}, None, None, id="without ports"),
        pytest.param(
            {"flags": EventFlag.REPLY, "source_port": 80}, "web", "admin", id="a reply: backwards"
        ),
        pytest.param({"flags": EventFlag.REPLY}, None, "admin", id="a reply from no Service"),
    ],
)
def test_each_end_names_the_service_that_it_stands_behind(
    change: dict[str, Any], source: str | None, destination: str | None
) -> None:
    state = replace(STATE, serving=lambda address: SERVING.get(address, ()))
    flow = to_flow(Directory(state, "node1").see(replace(DROP, **change)), "node1")["flow"]
    for end, namespace, name in (
        ("source_service", "red-dev", source),
        ("destination_service", "blue-dev", destination),
    ):
        wanted = {"name": name, "namespace": namespace} if name else None
        assert cast(Flow, flow).get(end) == wanted


def test_the_interface_is_named_while_it_is_there() -> None:
    assert flow_of(replace(DROP, ifindex=1))["interface"] == {"index": 1, "name": "lo"}
    assert flow_of(replace(DROP, ifindex=1 << 30))["interface"] == {"index": 1 << 30}
    assert "interface" not in flow_of(replace(DROP, ifindex=0))


def test_rule_that_allowed_is_named() -> None:
    allowed = replace(DROP, verdict=Verdict.FORWARDED, reason=ForwardReason.POLICY_ALLOWED, rule=1)
    flow = flow_of(allowed)
    assert flow["ingress_allowed_by"] == [
        {
            "name": "allow-web",
            "namespace": "blue-dev",
            "kind": "NetworkPolicy",
            "labels": [
                "ringfence:rule=blue-dev/allow-web#ingress[0]",
                "ringfence:source=policies.yaml:7",
            ],
            "revision": 3,
        }
    ]
    assert flow["policy_match_type"] == MatchType.L3_L4
    assert "drop_reason_desc" not in flow


def test_wall_is_named_as_its_tenant_with_the_line_of_the_tenant_file() -> None:
    walled = replace(DROP, reason=DropReason.TENANT_WALL, group=30)
    flow = flow_of(walled)
    assert flow["ingress_denied_by"] == [
        {
            "name": "blue",
            "kind": "Tenant",
            "labels": ["ringfence:rule=tenant/blue#wall", "ringfence:source=tenants.yaml:14"],
            "revision": 3,
        }
    ]
    assert flow["drop_reason_desc"] == "POLICY_DENY", "Hubble has no word for the wall"
    assert line_of(walled)["judgement"] == {
        "verdict": "DROPPED",
        "reason": "TENANT_WALL",
        "rule": "tenant/blue#wall",
        "policies": ["blue-dev/a", "blue-dev/b"],
    }
    assert "judgement" not in published(line_of(walled))


def test_a_forged_source_is_filed_under_the_pod_that_sent_it() -> None:
    forged = replace(
        DROP,
        endpoint=12,
        ifindex=WEB_INTERFACE,
        direction=Dir.EGRESS,
        reason=DropReason.INVALID_SOURCE_IP,
        source="10.9.9.9",
        group=0,
    )
    source = cast(Flow, flow_of(forged)["source"])
    assert (source["namespace"], source["pod_name"], source["ID"]) == ("red-dev", "web-0", 12)


def test_decoding_reads_what_the_mirror_of_the_struct_wrote() -> None:
    by_hand = ("source", "destination", "direction", "verdict", "reason", "flags", "pad")
    numbered = {
        name: number
        for number, (name, _) in enumerate(layout.FlowEvent._fields_, 1)
        if name not in by_hand
    }
    event = layout.FlowEvent(
        **numbered,
        source=layout.Address(*layout.pack_address("10.0.1.7")),
        destination=layout.Address(*layout.pack_address("fd00::1")),
        direction=1,
        verdict=1,
        reason=133,
        flags=4,
    )
    found = decode(bytes(event), 1000)
    assert found == FlowRecord(
        time=1000 + 1,
        direction=Dir.EGRESS,
        verdict=Verdict.DROPPED,
        reason=DropReason.POLICY_DENIED,
        source="10.0.1.7",
        destination="fd00::1",
        flags=EventFlag.REJUDGED,
        **{k: v for k, v in numbered.items() if k not in ("time", "reserved")},
    )


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


def test_every_reason_of_our_own_has_a_name_that_hubble_knows() -> None:
    ours = {reason for reason in DropReason if reason >= 240}
    assert len(ours) > 2
    assert ours - set(HUBBLE_NAMES) == set()
