"""A matrix at a distance, and what another tenant file changes: groups, counts, order."""

from __future__ import annotations

import pytest

from generators.cluster import Cluster
from generators.reachability.changes import changes, lines, text
from generators.reachability.classes import evaluate, table
from generators.reachability.grid import MIXED, columns_within, grid_text, table_of
from generators.reachability.levels import Distance, fitting, folded, group_cells, groups_of
from generators.reachability.matrix import PortProtocol, questions
from generators.reachability.verdicts import Verdict
from tests.generators.builders import TENANTS, cluster, namespace, pod, policy

PORT = [PortProtocol(80, "TCP")]
GRANTED = TENANTS.replace(
    'suffixes: ["-blue"]}', 'suffixes: ["-blue"]}\n    allowFrom: [{tenant: red}]'
).replace('suffixes: ["-red"]}', 'suffixes: ["-red"]}\n    allowTo: [{tenant: blue}]')


def shop(tenants: str = TENANTS) -> Cluster:
    return cluster(
        *(namespace(name) for name in ("a-blue", "b-blue", "c-red", "ingress")),
        *(pod(key) for key in ("a-blue/x", "a-blue/y", "b-blue/x", "c-red/x", "ingress/x")),
        policy("a-blue/silent-x", "podSelector: {matchLabels: {app: x}}, policyTypes: [Egress]"),
        tenants=tenants,
    )


def drawn(of: Cluster, level: Distance, width: int = 100) -> list[str]:
    asked = questions(of, PORT)
    groups = groups_of(of, asked.sources, level)
    found = folded(table(of, asked), groups)
    return "".join(grid_text(found, width=width)).splitlines()


def test_pods_that_fare_differently_are_told_and_a_pod_and_itself_does_not_count() -> None:
    assert drawn(shop(), Distance.TENANT)[2:8] == [
        "  1 shared/ingress                           ✓  ✓  ✓",
        "  2 tenant/blue                              ~  ~  ✗",
        "  3 tenant/red                               ✓  ✗  ✓",
        "",
        "~ differs among the pods: ask with --by pod, --from and --to",
        "✓ FORWARDED 32   ✗ DROPPED 18",
    ]


def test_a_namespace_under_a_deny_all_is_closed_though_each_pod_reaches_itself() -> None:
    of = cluster(pod("x/a"), pod("x/b"), policy("x/p", "podSelector: {}, ingress: []"))
    assert drawn(of, Distance.NAMESPACE)[2] == "  1 x                                        ✗"


@pytest.mark.parametrize("level", list(Distance))
def test_the_grid_of_groups_is_that_of_their_cells(level: Distance) -> None:
    of = shop()
    asked = questions(of, PORT)
    groups = groups_of(of, asked.sources, level)
    counted = {
        (found.cell.source, found.cell.destination): {v for v, n in found.counts.items() if n}
        for found in group_cells(evaluate(of, asked), groups)
    }
    found = folded(table_of(evaluate(of, asked)), groups)
    grid = found.grids[80, "TCP"]["IPv4"]
    signs = {(s, d): row[i] for s, row in grid.items() for i, d in enumerate(found.destinations)}
    assert {pair: len(verdicts) > 1 for pair, verdicts in counted.items()} == {
        pair: code == MIXED for pair, code in signs.items()
    }


def test_groups_count_their_pods_and_show_the_worst() -> None:
    of = shop()
    asked = questions(of, PORT)
    found = group_cells(evaluate(of, asked), groups_of(of, asked.sources, Distance.NAMESPACE))
    (one, _) = (f for f in found if (f.cell.source, f.cell.destination) == ("a-blue", "a-blue"))
    assert one.cell.verdict is Verdict.DROPPED
    assert dict(one.counts) == {Verdict.FORWARDED: 1, Verdict.DROPPED: 1}


@pytest.mark.parametrize(("columns", "level"), [(5, "pod"), (4, "namespace"), (3, "tenant")])
def test_the_nearest_level_that_fits(columns: int, level: str) -> None:
    of = shop()
    assert fitting(of, questions(of, PORT), columns, 100) == level
    assert fitting(of, questions(of, PORT), 100, columns) == level


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_nothing_is_wider_than_the_screen(width: int) -> None:
    of = cluster(*(pod(f"a-very-long-name-of-a-namespace/p{i}") for i in range(130)), policy("x/p"))
    assert max(map(len, drawn(of, Distance.POD, width))) <= width
    assert columns_within(width, 130) * 4 <= width


def test_what_opens_comes_first_then_what_closes() -> None:
    before, after = shop(), shop(GRANTED.replace("names: [ingress]", "names: [other]"))
    asked = questions(after, PORT)
    found = tuple(changes(table(before, asked), table(after, asked)))
    cells = tuple(evaluate(after, [change.question for change in found]))
    groups = groups_of(after, asked.sources, Distance.NAMESPACE)
    told = list(text(lines(found, cells, groups), len(asked)))
    assert told == [
        "opened: 6 of 50 connections",
        "  c-red -> a-blue 80/TCP: DROPPED -> FORWARDED by "
        "a-blue/allow-ingress-namespace#ingress[2]",
        "  c-red -> b-blue 80/TCP: DROPPED -> FORWARDED by "
        "b-blue/allow-ingress-namespace#ingress[2]",
        "closed: 8 of 50 connections",
        "  ingress -> a-blue 80/TCP: FORWARDED -> DROPPED by tenant/blue#wall",
        "  ingress -> b-blue 80/TCP: FORWARDED -> DROPPED by tenant/blue#wall",
        "  ingress -> c-red 80/TCP: FORWARDED -> DROPPED by tenant/red#wall",
    ]
    assert {change.after for change in found} == {Verdict.FORWARDED, Verdict.DROPPED}


def test_nothing_that_changes_is_said_to_be_nothing() -> None:
    asked = questions(of := shop(), PORT)
    found = tuple(changes(table(of, asked), table(of, asked)))
    assert found == ()
    assert list(text((), len(asked))) == [
        "nothing changes: 50 answers are the same before and after"
    ]
