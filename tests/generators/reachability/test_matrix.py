"""The questions of a matrix, and how its answer reads."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from generators.addresses import Family
from generators.cluster import Cluster
from generators.reachability.classes import evaluate
from generators.reachability.ends import BadQuestion, ends
from generators.reachability.grid import Style, grid_text, table_of
from generators.reachability.matrix import PortProtocol, answer, questions
from generators.reachability.verdicts import Cell
from tests.generators.builders import TENANTS, cluster, pod, policy

PORT_80 = [PortProtocol(80, "TCP")]
PORTS = "containers: [{ports: [{containerPort: 80}, {containerPort: 53, protocol: UDP}]}]"


def small() -> Cluster:
    return cluster(pod("x/a", "10.0.0.1 fd00::1", PORTS), pod("x/b", "10.0.0.2"))


def drawn(cells: Iterable[Cell], style: Style = Style.PLAIN, encoding: str = "utf-8") -> str:
    return "".join(grid_text(table_of(cells), style, encoding))


def asked(of: Cluster, **narrow: str) -> list[str]:
    found = questions(of, source=narrow.get("source"), destination=narrow.get("destination"))
    return [f"{q.source} {q.destination} {q.port}/{q.protocol} {q.family}" for q in found]


def test_every_ordered_pair_and_declared_port_where_both_have_the_family() -> None:
    assert asked(small()) == [
        "x/a x/a 80/TCP IPv4",
        "x/a x/a 80/TCP IPv6",
        "x/a x/a 53/UDP IPv4",
        "x/a x/a 53/UDP IPv6",
        "x/a x/b 80/TCP IPv4",
        "x/a x/b 53/UDP IPv4",
        "x/b x/a 80/TCP IPv4",
        "x/b x/a 53/UDP IPv4",
        "x/b x/b 80/TCP IPv4",
        "x/b x/b 53/UDP IPv4",
    ]


@pytest.mark.parametrize(
    ("narrow", "pairs"),
    [
        ({"source": "x/b"}, {("x/b", "x/a"), ("x/b", "x/b")}),
        ({"destination": "x/b"}, {("x/a", "x/b"), ("x/b", "x/b")}),
        ({"source": "x/a", "destination": "x/b"}, {("x/a", "x/b")}),
        ({"source": "192.0.2.1"}, {("ip/192.0.2.1", "x/a"), ("ip/192.0.2.1", "x/b")}),
    ],
    ids=["source", "destination", "both", "an address"],
)
def test_one_end_can_be_fixed(narrow: dict[str, str], pairs: set[tuple[str, str]]) -> None:
    found = questions(small(), (), (), narrow.get("source"), narrow.get("destination"))
    assert {(q.source, q.destination) for q in found} == pairs


def test_outside_addresses_are_source_and_destination_but_not_of_each_other() -> None:
    found = questions(small(), [PortProtocol(1, "TCP")], ["192.0.2.1", "::ffff:192.0.2.2"])
    outside = {(q.source, q.destination) for q in found if "ip/" in q.source + q.destination}
    assert outside == {
        (a, b)
        for ip in ("ip/192.0.2.1", "ip/192.0.2.2")
        for key in ("x/a", "x/b")
        for a, b in ((ip, key), (key, ip))
    }
    assert {q.family for q in found if "ip/" in q.source} == {Family.IPV4}


@pytest.mark.parametrize("phase", ["Pending", "Succeeded", "Failed"])
def test_pods_that_do_not_run_have_no_cells(phase: str) -> None:
    of = cluster(pod("x/a"), pod("x/gone", phase=phase), pod("x/late", "10.0.0.9", phase="Pending"))
    assert set(ends(of)) == {"x/a", "x/late"}
    with pytest.raises(BadQuestion, match=r"pod x/gone (is|has no)"):
        questions(of, [PortProtocol(1, "TCP")], source="x/gone")


@pytest.mark.parametrize(
    ("text", "port"), [("80/TCP", (80, "TCP")), ("53/udp", (53, "UDP")), ("65535", (65535, "TCP"))]
)
def test_ports_as_people_write_them(text: str, port: tuple[int, str]) -> None:
    assert PortProtocol.parse(text) == PortProtocol(*port)


@pytest.mark.parametrize(
    "text", ["", "0", "65536/TCP", "80/ICMP", "http", "80/", "-1", "8 0", "\uff18\uff10"]
)
def test_ports_that_are_none(text: str) -> None:
    with pytest.raises(BadQuestion, match="is no port"):
        PortProtocol.parse(text)


def test_an_engine_that_is_not_installed_is_said_to_be() -> None:
    with pytest.raises(BadQuestion, match='engine "guess" is not installed'):
        answer("guess", small(), ())


def test_families_and_ports_that_answer_alike_share_a_grid() -> None:
    of = cluster(pod("a-blue/a", spec=PORTS), pod("b-red/b"), tenants=TENANTS)
    assert drawn(evaluate(of, questions(of))) == (
        "53/UDP, 80/TCP (IPv4 and IPv6)\n"
        "                                             1  2\n"
        "  1 a-blue/a                                 ✓  ✗\n"
        "  2 b-red/b                                  ✗  ✓\n"
        "\n"
        "✓ FORWARDED 8   ✗ DROPPED 8\n"
        "    4  DROPPED at ingress: TENANT_WALL by tenant/blue#wall\n"
        "    4  DROPPED at ingress: TENANT_WALL by tenant/red#wall\n"
    )


def test_ports_and_families_that_differ_have_their_own_grid() -> None:
    only_80 = (
        "podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 80}]}]"
    )
    of = cluster(pod("x/a", spec=PORTS), pod("x/b", "10.0.0.2 fd00::2"), policy("x/p", only_80))
    titles = [line for line in drawn(evaluate(of, questions(of))).splitlines() if "(" in line]
    assert titles == ["53/UDP (IPv4 and IPv6)", "80/TCP (IPv4)", "80/TCP (IPv6)"]


def test_a_wide_cluster_stays_within_100_columns() -> None:
    of = cluster(*(pod(f"a-very-long-namespace-name-for-a-test/p{i}") for i in range(60)))
    text = drawn(evaluate(of, questions(of, [PortProtocol(80, "TCP")])))
    assert max(map(len, text.splitlines())) <= 100


def test_a_terminal_without_unicode_gets_plain_signs() -> None:
    text = drawn(evaluate(small(), questions(small())), encoding="ascii")
    assert text.isascii()


def test_colour_is_only_used_where_asked_for() -> None:
    cells = tuple(evaluate(small(), questions(small())))
    assert "\x1b[" in drawn(cells, Style.COLOUR)
    assert "\x1b[" not in drawn(cells)


def test_a_legend_of_many_policies_stays_short() -> None:
    many = [policy(f"x/p{n:03}", "podSelector: {}") for n in range(300)]
    text = drawn(evaluate(of := cluster(pod("x/a"), pod("x/b"), *many), questions(of, PORT_80)))
    assert "POLICY_DENIED by x/p000, x/p001, x/p002 and 297 more" in text
    assert max(map(len, text.splitlines())) <= 100
