"""Filter flags: each means what Hubble's means, combines as they do, and refuses nonsense."""

from __future__ import annotations

import json
from collections.abc import Callable, Set
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from enforcer.observe.filters import FILTERS, BadFilter, condition, wanted
from enforcer.observe.ranges import BadMoment, FlowRange, cut, moment
from tests.enforcer.answers.flowlines import WALL, WORLD, Line, line, policy

Run = Callable[..., "CompletedProcess[str]"]

DROP = line(speakers=[policy("deny")])
WALLED = line(reason="POLICY_DENY", speakers=[WALL])
ALLOWED = line(
    "FORWARDED",
    speakers=[policy("allow", "ingress[0]")],
    match=2,
    source_workload={"kind": "StatefulSet", "name": "web"},
    destination_service={"namespace": "blue-dev", "name": "api"},
    interface={"index": 9, "name": "lxc1"},
)
UDP6 = line(l4={"UDP": {"source_port": 5353, "destination_port": 53}}, family=6, direction="EGRESS")
PING = line(l4={"ICMPv4": {"type": 8, "code": 0}}, source=WORLD)
FLOWS = {"drop": DROP, "walled": WALLED, "allowed": ALLOWED, "udp6": UDP6, "ping": PING}
ALL = frozenset(FLOWS)
FROM_RED = ALL - {"ping"}


TABLE: list[tuple[str, str, Set[str]]] = [
    ("pod", "web", FROM_RED),
    ("pod", "red-dev/", FROM_RED),
    ("pod", "blue-dev/web", frozenset()),
    ("from-pod", "api", frozenset()),
    ("to-pod", "blue-dev/api", ALL),
    ("namespace", "red-dev", FROM_RED),
    ("to-namespace", "red-dev", frozenset()),
    ("tenant", "blue", ALL),
    ("from-tenant", "red", FROM_RED),
    ("label", "app=web", FROM_RED),
    ("label", "k8s:app=web,tier=front", FROM_RED),
    ("from-label", "app!=web", {"ping"}),
    ("from-label", "!app", {"ping"}),
    ("from-label", "reserved:world", {"ping"}),
    ("ip", "10.0.1.7", ALL - {"udp6"}),
    ("to-ip", "10.0.1.0/24", ALL - {"udp6"}),
    ("from-ip", "fd00::/64", {"udp6"}),
    ("port", "53", {"udp6"}),
    ("to-port", "8000-9000", ALL - {"udp6", "ping"}),
    ("from-port", "8082", frozenset()),
    ("service", "blue-dev/api", {"allowed"}),
    ("service", "red-dev/api", frozenset()),
    ("to-service", "ap", {"allowed"}),
    ("from-service", "api", frozenset()),
    ("workload", "StatefulSet/web", {"allowed"}),
    ("workload", "Deployment/web", frozenset()),
    ("from-workload", "web", {"allowed"}),
    ("from-workload", "StatefulSet/", {"allowed"}),
    ("from-workload", "we", frozenset()),
    ("to-workload", "web", frozenset()),
    ("interface", "lxc1", {"allowed"}),
    ("identity", "world", {"ping"}),
    ("from-identity", "15194", FROM_RED),
    ("verdict", "forwarded", {"allowed"}),
    ("type", "drop", ALL - {"allowed"}),
    ("type", "policy-verdict:l3-l4", {"allowed"}),
    ("type", "drop:240", {"walled"}),
    ("type", "trace", frozenset()),
    ("protocol", "tcp", {"drop", "walled", "allowed"}),
    ("protocol", "icmp", {"ping"}),
    ("tcp-flags", "syn", {"drop", "walled", "allowed"}),
    ("tcp-flags", "syn,ack", frozenset()),
    ("traffic-direction", "egress", {"udp6"}),
    ("drop-reason-desc", "POLICY_DENIED", {"drop", "udp6", "ping"}),
    ("drop-reason-desc", "tenant_wall", {"walled"}),
    ("drop-reason-desc", "POLICY_DENY", {"walled"}),
    ("http-method", "GET", frozenset()),  # what they find: test_access_log.py
    ("http-path", ".*", frozenset()),
    ("http-status", "403", frozenset()),
    ("http-url", ".*", frozenset()),
    ("ip-version", "v6", {"udp6"}),
    ("policy", "blue-dev/deny", {"drop"}),
    ("policy", "blue-dev/allow", {"allowed"}),
    ("policy", "tenant/blue", {"walled"}),
    ("node-name", "node*", ALL),
    ("uuid", "48357586-0000-4000-8000-000000000000", ALL),
]


@pytest.mark.parametrize(("flag", "value", "passes"), TABLE)
def test_a_filter_passes_what_it_names_and_its_negation_the_rest(
    flag: str, value: str, passes: Set[str]
) -> None:
    plain = [condition(flag, [value], negated=False)]
    negated = [condition(flag, [value], negated=True)]
    assert {name for name, flow in FLOWS.items() if wanted(flow, plain)} == passes
    assert {name for name, flow in FLOWS.items() if wanted(flow, negated)} == ALL - passes


def test_every_filter_is_in_the_table_above() -> None:
    tried = {flag for flag, _, _ in TABLE}
    assert {flag.removeprefix("from-").removeprefix("to-") for flag in FILTERS} == {
        flag.removeprefix("from-").removeprefix("to-") for flag in tried
    }


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("port", "http"),
        ("port", "70000"),
        ("ip", "10.0.0"),
        ("identity", "nobody"),
        ("verdict", "MAYBE"),
        ("type", "debug"),
        ("type", "policy-verdict:sideways"),
        ("drop-reason-desc", "BAD_MOOD"),
        ("protocol", "quic"),
        ("tcp-flags", "SYN,XYZ"),
        ("label", "a=b=c"),
        ("label", ""),
        ("ip-version", "5"),
        ("workload", "/"),
    ],
)
def test_nonsense_is_refused_with_the_flag(flag: str, value: str) -> None:
    with pytest.raises(BadFilter, match=f"--{flag} "):
        condition(flag, [value], negated=False)


def test_losses_pass_every_filter() -> None:
    lost: Line = {"lost_events": {"source": "PERF_EVENT_RING_BUFFER", "num_events_lost": 1}}
    assert wanted(lost, [condition("pod", ["x"], negated=False)])


NOW = datetime(2026, 1, 5, 10, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("1m30s", 90), ("2026-01-05T10:00:30Z", 30), ("2026-01-05T10:00:00", 60)],
)
def test_moments_are_times_or_ages(text: str, seconds: int) -> None:
    assert moment(text, NOW) == NOW - timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "yesterday", "5", "5m ago"])
def test_other_moments_are_refused(text: str) -> None:
    with pytest.raises(BadMoment):
        moment(text, NOW)


@pytest.mark.parametrize(
    ("wanted_range", "seconds"),
    [
        (FlowRange(), [0, 1, 2, 3, 4]),
        (FlowRange(last=2), [3, 4]),
        (FlowRange(last=0), []),
        (FlowRange(first=2), [0, 1]),
        (FlowRange(since=NOW - timedelta(seconds=57)), [3, 4]),
        (FlowRange(until=NOW - timedelta(seconds=58)), [0, 1]),
        (FlowRange(since=NOW - timedelta(seconds=59), last=1), [4]),
    ],
    ids=["all", "last", "none", "first", "since", "until", "since and last"],
)
def test_ranges_cut_at_both_ends(wanted_range: FlowRange, seconds: list[int]) -> None:
    flows = [line(second=second) for second in range(5)]
    kept = list(cut(flows, wanted_range, lambda _: True))
    assert kept == [flows[second] for second in seconds]


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    path = tmp_path / "flows.json"
    path.write_text("".join(f"{json.dumps(flow)}\n" for flow in FLOWS.values()))
    return path


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ((), 5),
        (("--last", "2"), 2),
        (("--first", "1"), 1),
        (("--verdict", "FORWARDED", "--verdict", "DROPPED"), 5),
        (("--protocol", "tcp", "--verdict", "DROPPED"), 2),
        (("--not", "--protocol", "tcp"), 2),
        (("--not", "--protocol=tcp", "--not", "--ip-version", "6"), 1),
        (("--protocol", "tcp", "--not", "--drop-reason-desc", "TENANT_WALL"), 2),
    ],
)
def test_repeated_means_either_different_means_both_and_not_negates_the_next(
    ringfence: Run, recorded: Path, arguments: tuple[str, ...], count: int
) -> None:
    done = ringfence("observe", "--input-file", str(recorded), "-o", "json", *arguments)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, count), done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--fqdn", "example.com"), "flows do not carry DNS names"),
        (("--to-cluster", "other"), "there is one cluster"),
        (("--http-header", "a:b"), "no headers of requests"),
        (("--http-status", "6xx"), "wanted a status such as 404"),
        (("--http-path", "["), "is no regular expression"),
        (("--not", "--last", "3"), "--not negates the filter after it"),
        (("--not",), "--not negates the filter after it"),
        (("--first", "1", "--all"), "exclude each other"),
        (("--since", "soon"), '"soon" is not a time'),
        (("--port", "x"), "wanted a number up to 65535"),
        (("--colour", "blue"), "No such option"),
    ],
)
def test_what_flows_do_not_carry_is_refused_and_never_ignored(
    ringfence: Run, recorded: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = ringfence("observe", "--input-file", str(recorded), *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_broken_line_is_named_with_its_place(ringfence: Run, recorded: Path) -> None:
    with recorded.open("a") as file:
        file.write("not json\n")
    done = ringfence("observe", "--input-file", str(recorded))
    assert done.returncode == 2
    assert f"{recorded}:6: not JSON" in done.stderr


def test_a_table_has_a_head_that_can_be_left_out(ringfence: Run, recorded: Path) -> None:
    arguments = ("observe", "--input-file", str(recorded), "-o", "table", "--no-node-name")
    head, *rows = ringfence(*arguments).stdout.splitlines()
    assert head.split() == ["TIMESTAMP", "SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY"]
    assert ringfence(*arguments, "--no-headers").stdout.splitlines()[0].split() == rows[0].split()
