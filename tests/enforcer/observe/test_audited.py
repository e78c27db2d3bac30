"""What would be dropped is remembered by kind, and who knocks often hides nobody."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from enforcer.agent.state import Board
from enforcer.commands.audit import granting
from enforcer.observe import audited
from enforcer.observe.audited import FILE, OTHER_ADDRESSES, OUTSIDE, PORTS, Audited, Seen, Would
from enforcer.observe.feed import Feed
from enforcer.observe.names import NamedEvent, NamedParty, Speaker
from enforcer.policy.tables import IDENTITY_HOST
from generators.objects import Workload
from generators.reachability.verdicts import Verdict
from generators.tenants.load import parse_tenants
from tests.enforcer.answers.observed import RECORD, state

API = NamedParty(1, 300, "blue-dev", "api-7f", "blue", workload=Workload("Deployment", "api"))
RED = NamedParty(2, 301, "red-dev", "web", "red")
HEAD = {"apiVersion": "ringfence.io/v1alpha1", "kind": "TenantConfig", "labelKey": "client"}
WALL = (Speaker("tenant/blue#wall", "tenants.yaml:4"),)
AUDITED = replace(RECORD, verdict=Verdict.AUDIT)


def knock(
    peer: NamedParty = RED,
    port: int = 80,
    time: int = 1,
    source: str = "10.0.0.9",
    local: NamedParty = API,
) -> NamedEvent:
    record = replace(AUDITED, destination_port=port, time=time, source=source)
    return NamedEvent(record, peer, local, speakers=WALL)


def noted(*seen: NamedEvent, into: Audited | None = None) -> Audited:
    found = into or Audited()
    for item in seen:
        found.note(item)
    return found


def shown(found: Audited) -> list[tuple[str, str, int, int]]:
    return [(w.subject, w.peer, w.port, seen.flows) for w, seen in found.kinds()]


def test_flows_of_a_kind_are_one_line_with_first_and_last() -> None:
    found = noted(knock(time=5), knock(time=7), knock(time=9, port=81))
    assert shown(found) == [
        ("blue-dev/deployment/api", "red-dev/web", 80, 2),
        ("blue-dev/deployment/api", "red-dev/web", 81, 1),
    ]
    would, seen = found.kinds()[0]
    assert (would.subject_tenant, would.peer_tenant, would.by) == (
        "blue",
        "red",
        ("tenant/blue#wall",),
    )
    assert seen == Seen(2, 5, 7, ("tenants.yaml:4",))


def test_a_peer_is_not_hidden_by_one_that_knocks_everywhere() -> None:
    quiet = knock(replace(RED, pod="quiet"))
    flood = [knock(port=port, time=port) for port in range(1, 60_000)]
    found = noted(quiet, *flood)
    assert ("blue-dev/deployment/api", "red-dev/quiet", 80, 1) in shown(found)
    lines = [line for line in shown(found) if line[1] == "red-dev/web"]
    assert len(lines) == PORTS + 1
    assert lines[0][2] == 0  # all other ports
    assert sum(line[3] for line in lines) == len(flood)
    assert not found.forgotten


def test_addresses_outside_become_one_line_after_the_first_ones() -> None:
    world = NamedParty(identity=2)
    found = noted(*(knock(world, source=f"192.0.{n // 256}.{n % 256}") for n in range(1000)))
    lines = shown(found)
    assert len(lines) == OUTSIDE + 1
    assert (lines[-1][1], lines[-1][3]) == (OTHER_ADDRESSES, 1000 - OUTSIDE)
    # One address with many ports is one address.
    few = [knock(world, 80 + n, source="192.0.2.1") for n in range(PORTS)]
    more = noted(*few, *(knock(world, source=f"192.0.3.{n}") for n in range(OUTSIDE - 1)))
    assert OTHER_ADDRESSES not in {line[1] for line in shown(more)}
    node = noted(knock(NamedParty(identity=IDENTITY_HOST)), into=found)
    assert "host" in {line[1] for line in shown(node)}


def test_the_tenants_with_the_most_lines_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audited, "ROOM", 200)
    green = NamedParty(3, 302, "green-dev", "web", "green")
    few = [knock(replace(RED, pod=f"r{n}"), time=1) for n in range(20)]
    many = [knock(replace(green, pod=f"g{n}"), time=2 + n) for n in range(5_000)]
    found = noted(*few, *many)
    left = Counter(would.peer_tenant for would, _ in found.kinds())
    assert left["red"] == 20
    assert left.total() <= 200
    assert found.forgotten == {"blue": 5_000 - left["green"]}
    assert ("blue-dev/deployment/api", "green-dev/g4999", 80, 1) in shown(found)


def test_room_is_found_again_for_ports_and_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing counts lines that are gone, whatever came in what order."""
    monkeypatch.setattr(audited, "ROOM", 100)
    monkeypatch.setattr(audited, "FORGOTTEN", 7)
    chance = random.Random(5)  # noqa: S311  the same each time
    found = Audited()
    peers = [RED, NamedParty(identity=2), replace(RED, tenant="green", namespace="g")]
    for time in range(3_000):
        source = f"192.0.2.{chance.randrange(120)}"
        peer = replace(chance.choice(peers))
        pod = f"p{chance.randrange(4)}" if peer.namespace else ""
        found.note(knock(replace(peer, pod=pod), chance.randrange(1, 90), time, source))
    kinds = [would for would, _ in found.kinds()]
    assert len(kinds) == found._kept <= 100
    ports = Counter(would._replace(port=0) for would in kinds)
    assert found._ports == ports
    outside = [w for w in kinds if not w.peer_tenant and w.peer != OTHER_ADDRESSES]
    assert {a for known in found._outside.values() for a in known} == {w.peer for w in outside}


def test_a_flow_is_named_as_soon_as_its_pod_is_known() -> None:
    found = noted(knock(local=NamedParty(1)))
    assert shown(found) == []
    found.name_late(lambda record: replace(knock(), record=record))
    assert shown(found) == [("blue-dev/deployment/api", "red-dev/web", 80, 1)]
    lost = noted(*(knock(local=NamedParty(1)) for _ in range(audited.UNNAMED + 3)))
    assert lost.forgotten == {"": 3}


def test_a_new_agent_goes_on_with_what_the_former_one_knew(tmp_path: Path) -> None:
    before = noted(knock(time=5), *(knock(port=n) for n in range(1, 99)), into=Audited(tmp_path))
    before.save(before.unsaved())
    after = Audited(tmp_path)
    assert after.kinds() == before.kinds()
    noted(knock(time=9), knock(port=70_000 - 9), into=after)
    line = next(seen for would, seen in after.kinds() if would.port == 80 or would.port == 0)
    assert line.last >= 1
    assert len(after.kinds()) == len(before.kinds())


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b'{"kinds": [[1]], "forgotten": {}}', b'{"kinds": [], "forgotten": []}'],
)
def test_a_damaged_file_is_said_and_left(
    data: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).write_bytes(data)
    assert Audited(tmp_path).kinds() == []
    assert "audit_not_read" in caplog.text


def test_a_disk_that_is_full_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = noted(knock(), into=Audited(tmp_path / "missing"))
    found.save(found.unsaved())
    found.save(found.unsaved())
    assert caplog.text.count("audit_not_saved") == 1


def test_the_feed_notes_what_only_was_audited() -> None:
    board = Board()
    board.publish(state())
    feed = Feed(board, "node1")
    feed.add([RECORD, *[AUDITED] * 5_000])
    kinds, forgotten = feed.audited()
    assert [(would.subject, would.peer, seen.flows) for would, seen in kinds] == [
        ("blue-dev/api", "10.0.0.9", 5_000)
    ]
    assert not forgotten


def flows(*wanted: tuple[str, str, int, str]) -> Iterable[dict[str, object]]:
    for owner, peer, port, protocol in wanted:
        yield {
            "direction": "INGRESS",
            "subjectTenant": owner,
            "peerTenant": peer,
            "port": port or None,
            "protocol": protocol,
        }


def test_grants_are_both_halves_and_the_tenant_file_takes_them() -> None:
    found: Any = granting(
        flows(
            *(("blue", "red", port, "TCP") for port in (443, 80)),
            *(("blue", "red", port, "UDP") for port in (0, 53)),
            ("red", "blue", 5432, "TCP"),
            ("blue", "blue", 1, "TCP"),
            ("blue", "", 1, "TCP"),
            ("blue", "red", 0, "ICMPv4"),
        )
    )
    tenants = [{"namespaces": {"prefixes": [f"{t['name']}-"]}, **t} for t in found["tenants"]]
    document = json.dumps({**HEAD, "tenants": tenants})
    config = parse_tenants(document.encode(), "tenants.yaml")
    assert {(p.protocol, p.span) for g in config.consented("blue") for p in g.ports} == {
        ("TCP", (80, 80)),
        ("TCP", (443, 443)),
        ("UDP", (1, 65535)),
    }
    assert [g.tenant for g in config.consented("red")] == ["blue"]


def test_a_kind_is_written_as_it_is_read(tmp_path: Path) -> None:
    found = noted(knock(), into=Audited(tmp_path))
    found.save(found.unsaved())
    assert found.unsaved() is None
    (row,) = json.loads((tmp_path / FILE).read_text())["kinds"]
    assert len(row[0]) == len(Would._fields)
