"""A flow as a line of text: the shapes of the field, and who decided in the last parenthesis."""

from __future__ import annotations

import pytest

from enforcer.observe import lines
from enforcer.observe.lines import LineStyle, TimeFormat
from tests.enforcer.answers.flowlines import WALL, WORLD, Line, line, policy

BARE = LineStyle(node=False, policies=False)


@pytest.mark.parametrize(
    ("flow", "expected"),
    [
        (
            line(source=WORLD, speakers=[policy("deny", origin="deny.yaml:3")]),
            "xx drop (Policy denied) flow 0x48357586 to endpoint 211, , identity world->15435: "
            "10.0.1.7:60556 -> 10.0.1.185:8082 tcp SYN (isolated by blue-dev/deny at deny.yaml:3)",
        ),
        (
            line(reason="POLICY_DENY", speakers=[WALL]),
            "xx drop (Tenant wall) flow 0x48357586 to endpoint 211, , identity 15194->15435: "
            "10.0.1.7:60556 -> 10.0.1.185:8082 tcp SYN (rule tenant/blue#wall at tenants.yaml:14)",
        ),
        (
            line(reason="INVALID_SOURCE_IP", direction="EGRESS"),
            "xx drop (Invalid source ip) flow 0x48357586 from endpoint 12, , identity "
            "15194->15435: 10.0.1.7:60556 -> 10.0.1.185:8082 tcp SYN "
            "(endpoint red-dev/web-0, tenant red)",
        ),
        (
            line("FORWARDED", speakers=[policy("allow", "ingress[0]")], match=2),
            "Policy verdict log: flow 0x48357586 local EP ID 211, remote ID 15194, proto 6, "
            "ingress, action allow, auth: disabled, match L3-L4, 10.0.1.7:60556 -> "
            "10.0.1.185:8082 tcp SYN (rule blue-dev/allow#ingress[0])",
        ),
        (
            line("AUDIT", "POLICY_DENY", speakers=[WALL], family=6),
            "Policy verdict log: flow 0x48357586 local EP ID 211, remote ID 15194, proto 6, "
            "ingress, action audit, auth: disabled, match none, [fd00::7]:60556 -> "
            "[fd00::185]:8082 tcp SYN (rule tenant/blue#wall at tenants.yaml:14)",
        ),
        (
            {"lost_events": {"source": "PERF_EVENT_RING_BUFFER", "num_events_lost": 12}},
            "EVENTS LOST: PERF_EVENT_RING_BUFFER 12",
        ),
    ],
    ids=["policy", "wall", "spoofed", "allowed", "audit", "lost"],
)
def test_monitor_prints_what_people_know_and_who_decided(flow: Line, expected: str) -> None:
    assert lines.monitor(flow) == expected


def test_compact_names_both_ends_tenants_and_decider() -> None:
    assert lines.compact(line(speakers=[policy("deny")])) == (
        "2026-01-05T10:00:00.123456789Z [node1]: red-dev/web-0:60556 (ID:15194, tenant red) -> "
        "blue-dev/api-7c9:8082 (ID:15435, tenant blue) Policy denied DROPPED (TCP Flags: SYN) "
        "(isolated by blue-dev/deny)"
    )


@pytest.mark.parametrize(
    ("reply", "arrow"),
    [
        (False, "web-0:60556 (ID:15194, tenant red) -> "),
        (True, "<- red-dev"),
        (None, "<> blue-dev"),
    ],
    ids=["first", "reply turns the ends round", "unknown"],
)
def test_the_arrow_says_who_answers(reply: bool | None, arrow: str) -> None:
    assert arrow in lines.compact(line("FORWARDED", reply=reply))


def test_an_address_of_a_service_is_named_by_it() -> None:
    called = line(direction="EGRESS", destination_service={"namespace": "blue-dev", "name": "api"})
    assert "-> blue-dev/api-7c9:8082 " in lines.compact(called), "the pod, where one is known"
    called["flow"]["destination"] = WORLD  # type: ignore[index]
    assert "-> blue-dev/api:8082 " in lines.compact(called)


def test_numeric_lines_hold_numbers_only() -> None:
    numeric = lines.compact(line(source=WORLD), LineStyle(numeric=True, policies=False))
    assert "10.0.1.7:60556 (ID:2) -> 10.0.1.185:8082 (ID:15435" in numeric


@pytest.mark.parametrize(
    ("form", "time"),
    [
        (TimeFormat.RFC3339_NANO, "2026-01-05T10:00:00.123456789Z"),
        (TimeFormat.RFC3339, "2026-01-05T10:00:00Z"),
        (TimeFormat.STAMP_MILLI, "Jan  5 10:00:00.123"),
    ],
)
def test_times_have_hubbles_formats(form: TimeFormat, time: str) -> None:
    cells = lines.cells(line(), LineStyle(node=False, policies=False, time=form))
    assert cells[0] == time


def test_the_block_puts_keys_under_each_other() -> None:
    assert lines.block(line("FORWARDED", match=1), BARE) == (
        "  TIMESTAMP: 2026-01-05T10:00:00.123456789Z\n"
        "     SOURCE: red-dev/web-0:60556\n"
        "DESTINATION: blue-dev/api-7c9:8082\n"
        "       TYPE: policy-verdict:L3-Only INGRESS\n"
        "    VERDICT: ALLOWED\n"
        "    SUMMARY: TCP Flags: SYN"
    )


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"flow": None},
        {"flow": {"l4": {"TCP": None}, "source": "x", "destination": {"labels": "y"}}},
        {"flow": {"IP": {"source": 5}, "event_type": {"type": "x"}, "policy_match_type": 99}},
    ],
    ids=["nothing", "null", "wrong kinds", "wrong numbers"],
)
def test_lines_of_strangers_are_printed_without_a_crash(broken: Line) -> None:
    assert lines.compact(broken)
    assert lines.monitor(broken)
    assert lines.block(broken, LineStyle())
