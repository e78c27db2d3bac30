"""What the proxy says of requests becomes flows of type L7, counts and lines; nonsense does not."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import msgpack  # type: ignore[import-untyped]
import pytest

from enforcer.agent.state import Board
from enforcer.answers.access_log import SOCKET, batches, listening
from enforcer.answers.metrics import _requests
from enforcer.datapath.flows import ForwardReason
from enforcer.observe import lines
from enforcer.observe.feed import Feed
from enforcer.observe.filters import condition, wanted
from enforcer.observe.requests import HttpRecord
from enforcer.policy.tables import Dir
from generators.reachability.verdicts import Verdict
from tests.enforcer.answers.hubble import hubble_program, observing
from tests.enforcer.answers.observed import RECORD, state
from tests.testbed.waiting import eventually

RULE = "blue-dev/cnp:landing#ingress[0].toPorts[0].rules.http[0]"
PASSED: Mapping[str, object] = {
    **{"t": "1700000000.250000", "leg": "ingress", "route": RULE, "code": "200", "ms": "3"},
    **{"src": "10.0.0.9:40000", "dst": "10.0.0.1:80", "protocol": "HTTP/1.1"},
    **{"method": "POST", "path": "/v1/request-landing?now=1", "host": "deathstar", "flags": "-"},
}
DENIED = {**PASSED, "method": "PUT", "path": "/v1/exhaust-port", "code": "403", "route": "denied"}


def sent(*records: Mapping[str, object]) -> bytes:
    entries = [[1700000000, record] for record in records]
    packed: bytes = msgpack.packb(["ringfence", entries], use_bin_type=False)
    return packed


def decoded(data: bytes) -> list[HttpRecord]:
    return [record for batch in batches([data]) for record in batch]


def board() -> Board:
    found = Board()
    found.publish(state())
    return found


@pytest.fixture
def feed() -> Feed:
    found = Feed(board(), "here")
    found.add_requests(decoded(sent(PASSED, DENIED)))
    return found


def redirected() -> Mapping[str, object]:
    """The flow of a connection that goes to the proxy."""
    found = Feed(board(), "here")
    verdict, reason = Verdict.REDIRECTED, ForwardReason.REDIRECTED
    found.add([replace(RECORD, verdict=verdict, reason=reason)])
    (flow,) = flows(found)
    return flow


def test_a_connection_that_goes_to_the_proxy_is_redirected_in_cilium_s_words() -> None:
    flow = redirected()
    assert flow["judgement"]["reason"] == "L7"  # type: ignore[index]
    assert "INGRESS REDIRECTED (TCP Flags: SYN)" in lines.compact(flow)
    assert "action redirect" in lines.monitor(flow)


def flows(feed: Feed) -> list[Mapping[str, object]]:
    return [json.loads(line.data) for line in feed.last(10)]


def test_a_record_says_who_asked_whom_for_what_and_what_came_of_it() -> None:
    (found,) = decoded(sent(PASSED))
    assert found == HttpRecord(
        time=1_700_000_000_250_000_000,
        direction=Dir.INGRESS,
        source="10.0.0.9",
        source_port=40000,
        destination="10.0.0.1",
        destination_port=80,
        method="POST",
        path="/v1/request-landing?now=1",
        host="deathstar",
        protocol="HTTP/1.1",
        code=200,
        latency=3_000_000,
        rule=RULE,
    )


def test_batches_arrive_in_pieces_and_several_at_once() -> None:
    data = sent(PASSED) + sent(DENIED, PASSED)
    pieces = [data[at : at + 7] for at in range(0, len(data), 7)]
    assert [len(batch) for batch in batches(pieces)] == [1, 2]


def test_what_a_client_may_write_into_a_record_stays_text() -> None:
    hostile = {**PASSED, "path": b"/\xff\x00\n", "host": '"}', "src": "nobody", "code": "many"}
    (found,) = decoded(sent(hostile))
    assert (found.source, found.code) == ("", 0)
    assert found.path.startswith("/")


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        msgpack.packb({"tag": 1}),
        msgpack.packb(["tag"]),
        msgpack.packb(["tag", [["time"]]]),
        msgpack.packb(["tag", [[1, "record"]]]),
        b"\xdd\xff\xff\xff\xff" + b"x" * (2 << 20),
    ],
)
def test_what_is_no_batch_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="is no "):
        decoded(data)


def test_a_request_is_a_flow_of_type_l7_in_hubbles_words(feed: Feed) -> None:
    passed, denied = (line["flow"] for line in flows(feed))
    assert isinstance(passed, dict)
    assert isinstance(denied, dict)
    assert passed["Type"] == "L7"
    assert passed["verdict"] == "FORWARDED"
    assert passed["l7"] == {
        "type": "REQUEST",
        "latency_ns": "3000000",
        "http": {
            "code": 200,
            "method": "POST",
            "url": "http://deathstar/v1/request-landing?now=1",
            "protocol": "HTTP/1.1",
        },
    }
    assert passed["destination"]["pod_name"] == "api"
    assert denied["verdict"] == "DROPPED"
    (reference,) = passed["ingress_allowed_by"]
    assert (reference["kind"], reference["name"]) == ("CiliumNetworkPolicy", "landing")


@pytest.mark.parametrize(
    ("flag", "value", "count"),
    [
        ("http-method", "put", 1),
        ("http-path", "/v1/.*", 2),
        ("http-path", "exhaust", 1),
        ("http-path", "deathstar", 0),
        ("http-url", "deathstar", 2),
        ("http-status", "403", 1),
        ("http-status", "4+", 1),
        ("http-status", "2+", 1),
        ("protocol", "http", 2),
        ("type", "l7", 2),
        ("verdict", "DROPPED", 1),
    ],
)
def test_requests_are_found_by_what_they_say(feed: Feed, flag: str, value: str, count: int) -> None:
    found = condition(flag, [value], negated=False)
    assert sum(wanted(line, [found]) for line in flows(feed)) == count


def test_a_request_is_a_line_that_names_the_rule(feed: Feed) -> None:
    passed, denied = (lines.compact(line) for line in flows(feed))
    assert "http-request FORWARDED (HTTP/1.1 200 3ms (POST http://deathstar/v1/" in passed
    assert passed.endswith(f"(rule {RULE})")
    told = "HTTP/1.1 403 3ms (PUT http://deathstar/v1/exhaust-port)"
    assert f"http-request DROPPED ({told})" in denied
    assert "verdict Dropped" in lines.monitor(flows(feed)[1])


def test_counts_name_policy_rule_and_tenant_and_no_client_makes_up_more_of_them() -> None:
    found = Feed(board(), "here")
    (record,) = decoded(sent(PASSED))
    made_up = [replace(record, method=f"M{number}", code=number) for number in range(50)]
    found.add_requests([record, *made_up])
    samples = {tuple(s.labels.values()): s.value for s in _requests(found.requests()).samples}
    rule = ("blue-dev/cnp:landing", "ingress[0]", "blue")
    assert samples == {
        ("FORWARDED", "ingress", "POST", "2xx", *rule): 1.0,
        ("FORWARDED", "ingress", "other", "none", *rule): 50.0,
    }


@pytest.fixture
def listened(tmp_path: Path, feed: Feed) -> Iterator[Path]:
    with listening(tmp_path, feed.add_requests):
        yield tmp_path / SOCKET


def test_the_socket_takes_batches_and_outlives_nonsense(listened: Path, feed: Feed) -> None:
    for data in (b"\xc1nonsense", sent(PASSED)):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(listened))
            client.sendall(data)
    eventually(lambda: feed.count == 3, "the request in the feed")


@pytest.mark.timeout(600)
def test_hubble_reads_the_flows_and_its_filters_find_them(feed: Feed) -> None:
    told = "".join(
        json.dumps({key: value for key, value in line.items() if key != "judgement"}) + "\n"
        for line in (*flows(feed), redirected())
    )

    observe = observing(hubble_program(), told)
    theirs = [json.loads(line)["flow"]["l7"] for line in observe("-o", "jsonpb", "--type", "l7")]
    assert [item["http"]["code"] for item in theirs] == [200, 403]
    assert theirs[0]["latency_ns"] == "3000000"
    for filters, count in (
        (("--http-method", "PUT"), 1),
        (("--http-status", "403"), 1),
        (("--http-path", "/v1/.*"), 2),
        (("--protocol", "http"), 2),
        (("--type", "l7"), 2),
        (("--verdict", "REDIRECTED"), 1),
    ):
        assert len(observe("-o", "jsonpb", *filters)) == count, filters
    (denied,) = observe("-o", "compact", "--verdict", "DROPPED")
    assert "http-request DROPPED" in denied
