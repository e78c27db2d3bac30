"""Flow events matched to probes: by addresses and ports, and by nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from generators.reachability.verdicts import Judgement, Reason, Verdict
from lab.evidence import Connection, Evidence, gather

PROBE = Connection("TCP", "10.244.1.2", 40000, "10.244.1.3", 80)
ALLOWED: dict[str, object] = {
    "verdict": "FORWARDED",
    "reason": "NOT_ISOLATED",
    "rule": None,
    "policies": [],
}
WALL = {
    "verdict": "DROPPED",
    "reason": "TENANT_WALL",
    "rule": "tenant/test01#wall",
    "policies": ["a/p"],
}
AUDIT = {**WALL, "verdict": "AUDIT"}
MALFORMED = {**WALL, "reason": "INVALID_PACKET_DROPPED"}
NOT_ISOLATED = Judgement(Verdict.FORWARDED, Reason.NOT_ISOLATED)
KEPT_OUT = Judgement(Verdict.DROPPED, Reason.TENANT_WALL, "tenant/test01#wall", ("a/p",))


def event(
    direction: str, judgement: Mapping[str, object], port: int = 80, source_port: int = 40000
) -> dict[str, object]:
    return {
        "flow": {
            "IP": {"source": "10.244.1.2", "destination": "10.244.1.3", "ipVersion": "IPv4"},
            "l4": {"TCP": {"source_port": source_port, "destination_port": port}},
            "traffic_direction": direction,
        },
        "judgement": judgement,
    }


CASES: dict[str, tuple[list[dict[str, object]], dict[Connection, Evidence]]] = {
    "both directions": (
        [event("EGRESS", ALLOWED), event("INGRESS", WALL)],
        {PROBE: Evidence(NOT_ISOLATED, KEPT_OUT)},
    ),
    "a repeated packet": (
        [event("INGRESS", WALL), event("INGRESS", WALL)],
        {PROBE: Evidence(None, KEPT_OUT)},
    ),
    "an audited packet that a policy drops afterwards": (
        [event("INGRESS", AUDIT), event("INGRESS", WALL)],
        {PROBE: Evidence(None, KEPT_OUT)},
    ),
    "an audited packet that passes": (
        [event("INGRESS", AUDIT), event("INGRESS", ALLOWED)],
        {
            PROBE: Evidence(
                None, Judgement(Verdict.AUDIT, Reason.TENANT_WALL, "tenant/test01#wall", ("a/p",))
            )
        },
    ),
    "another connection": ([event("INGRESS", WALL, source_port=40001)], {}),
    "another port": ([event("INGRESS", WALL, port=81)], {}),
    "a reason that is no answer": ([event("INGRESS", MALFORMED)], {}),
    "no IP at all": ([{"flow": {"l4": {}, "traffic_direction": "INGRESS"}, "judgement": WALL}], {}),
    "an agent without judgements": ([{"flow": event("INGRESS", WALL)["flow"]}], {}),
    "ICMP has no ports": (
        [
            {
                "flow": {
                    "IP": {"source": "10.244.1.2", "destination": "10.244.1.3"},
                    "l4": {"ICMPv4": {"type": 3, "code": 3}},
                },
                "judgement": WALL,
            }
        ],
        {},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_events_are_evidence_about_the_connection_they_belong_to(case: str) -> None:
    events, expected = CASES[case]
    assert gather(events, [PROBE]) == expected


@pytest.mark.parametrize(
    ("evidence", "complete"),
    [
        (Evidence(), False),
        (Evidence(NOT_ISOLATED), False),
        (Evidence(None, NOT_ISOLATED), False),
        (Evidence(NOT_ISOLATED, KEPT_OUT), True),
        (Evidence(KEPT_OUT), True),
    ],
)
def test_nothing_more_is_awaited_after_a_drop_at_egress(evidence: Evidence, complete: bool) -> None:
    assert evidence.complete is complete
