"""A matrix of many pods, read at a distance: by workload, by namespace, by tenant.

Pods of one group are drawn as one line; where they fare differently the grid says so, and the JSON
counts them. That a pod reaches itself says nothing about its group, so it only counts where the
group is that one pod.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby
from operator import itemgetter

from generators.cluster import Cluster
from generators.reachability.ends import owner_key, workload_key
from generators.reachability.grid import MIXED, VerdictTable
from generators.reachability.matrix import Questions
from generators.reachability.verdicts import WORST_FIRST, Cell, Verdict

Groups = Mapping[str, str]
"""End -> what it is called at a level."""


class Distance(StrEnum):
    """From far to near."""

    TENANT = "tenant"
    NAMESPACE = "namespace"
    WORKLOAD = "workload"
    POD = "pod"


def groups_of(cluster: Cluster, names: Iterable[str], level: Distance) -> Groups:
    """What each end is called at a level; addresses and Services keep their names."""
    pods = {pod.key: pod for pod in cluster.pods}
    found = {}
    for name in names:
        pod = pods.get(name)
        if pod is None or level is Distance.POD:
            found[name] = name
        elif level is Distance.NAMESPACE:
            found[name] = pod.namespace
        elif level is Distance.TENANT:
            found[name] = owner_key(cluster, pod.namespace)
        else:
            found[name] = workload_key(pod.namespace, pod.workload) if pod.workload else name
    return found


def fitting(cluster: Cluster, asked: Questions, columns: int, rows: int) -> Distance:
    """The nearest level at which a grid has no more columns and rows than that.

    Where none has, the farthest: namespaces without a tenant file, as there are no tenants.
    """
    farthest = Distance.TENANT if cluster.config is not None else Distance.NAMESPACE
    for level in (Distance.POD, Distance.WORKLOAD, Distance.NAMESPACE):
        across = set(groups_of(cluster, asked.destinations, level).values())
        down = set(groups_of(cluster, asked.sources, level).values())
        if len(across) <= columns and len(down) <= rows:
            return level
    return farthest


def folded(table: VerdictTable, groups: Groups) -> VerdictTable:
    """The same answers with a line and a column a group."""
    if all(name == group for name, group in groups.items()):
        return table
    order = sorted(range(len(table.destinations)), key=lambda i: groups[table.destinations[i]])
    spans: list[tuple[str, int, int]] = []
    for group, members in groupby(order, key=lambda i: groups[table.destinations[i]]):
        start = spans[-1][2] if spans else 0
        spans.append((group, start, start + len(list(members))))
    place = {table.destinations[i]: at for at, i in enumerate(order)}
    arrange = itemgetter(*order, *order[:1])
    found = table.under(group for group, _, _ in spans)
    for asked, families in table.grids.items():
        for family, grid in families.items():
            rows: dict[str, list[set[int]]] = {}
            for source, row in grid.items():
                sorted_row = bytes(arrange(row))
                seen = rows.setdefault(groups[source], [set() for _ in spans])
                own = place.get(source)
                for codes, (_, start, end) in zip(seen, spans, strict=True):
                    part = sorted_row[start:end]
                    if own is not None and start <= own < end and end - start > 1:
                        part = sorted_row[start:own] + sorted_row[own + 1 : end]
                    codes.update(part)
            drawn = {source: bytes(map(_one, seen)) for source, seen in sorted(rows.items())}
            found.grids.setdefault(asked, {})[family] = drawn
    return found


def _one(codes: set[int]) -> int:
    given = codes - {0}
    return MIXED if len(given) > 1 else next(iter(given), 0)


@dataclass(frozen=True, slots=True)
class GroupCell:
    """Two groups, a port and a family: the worst answer of their pods, and how many got which."""

    cell: Cell
    counts: Mapping[Verdict, int]


def group_cells(cells: Iterable[Cell], groups: Groups) -> Iterator[GroupCell]:
    """Cells of groups, sorted as cells of pods are."""
    sizes = Counter(groups.values())
    worst: dict[tuple[str, str, str, int, str], Cell] = {}
    counts: dict[tuple[str, str, str, int, str], Counter[Verdict]] = {}
    for cell in cells:
        source, destination = groups[cell.source], groups[cell.destination]
        if cell.source == cell.destination and sizes[source] > 1:
            continue
        key = (source, destination, cell.protocol, cell.port, cell.family)
        counts.setdefault(key, Counter())[cell.verdict] += 1
        before = worst.get(key)
        if before is None or _rank(cell) < _rank(before):
            worst[key] = cell
    for key, cell in sorted(worst.items(), key=lambda item: item[0]):
        yield GroupCell(replace(cell, source=key[0], destination=key[1]), counts[key])


def _rank(cell: Cell) -> int:
    return WORST_FIRST.index(cell.verdict)
