"""One agent as its cluster grows: from an event to the maps, memory, first sync, idle.

Each size is a process of its own (parts/node_process.py) with the real agent, real maps and a
replayed watch. The baseline of an event is a single write to a map, which is the least that any
agent does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench.measure import Comparison, Scale, Series, Unit, told_by
from generators.errors import MachineLacks
from lab import machine

LOCAL = 250
PATIENCE = 900


@dataclass(frozen=True, slots=True)
class Found:
    """What one process measured."""

    pods: int
    local: int
    sync: float
    sync_cpu: float
    idle: float
    rss: float
    one_write: tuple[float, ...]
    events: Mapping[str, tuple[tuple[float, ...], tuple[int, ...]]]


def run(scale: Scale) -> Iterator[Comparison]:
    """100 to 100,000 pods; 250 of them are on the node, where there are so many."""
    try:
        machine.check()
    except MachineLacks as lack:
        yield Comparison("One agent", (), absent=(f"the agent: {lack}",))
        return
    sizes = (100, 10_000, 20_000, 100_000) if scale is Scale.FULL else (60, 120)
    found = [_measured(pods, scale.of(300, 3)) for pods in sizes]
    for one in found:
        yield Comparison(
            f"From an event to the maps at {one.pods} pods, {one.local} of them local",
            (
                Series("one write to a map", Unit.SECONDS, one.one_write, {"writes": "1"}),
                *(
                    Series(name, Unit.SECONDS, seconds, {"writes": _writes(writes)})
                    for name, (seconds, writes) in one.events.items()
                ),
            ),
            aim="a pod added: one write",
        )
    yield Comparison(
        "First sync until everything is in force",
        tuple(
            Series(
                f"{one.pods} pods, {one.local} local",
                Unit.SECONDS,
                (one.sync,),
                {
                    "of it processor": f"{one.sync_cpu:.1f} s",
                    "RSS": f"{one.rss:.0f} MB",
                    "idle": f"{one.idle * 100:.1f} % of a core",
                },
            )
            for one in found
        ),
        aim="100,000 pods under 60 s; RSS at 20,000 under 80 MB, at 100,000 under 200 MB; idle "
        "under 0.5 %",
    )


def _measured(pods: int, count: int) -> Found:
    local = min(LOCAL, max(1, pods // 10))
    told = told_by("bench.parts.node_process", (pods, local, count), PATIENCE)
    events = {name: (tuple(s), tuple(w)) for name, (s, w) in told["events"].items()}
    return Found(
        pods,
        local,
        sync=told["sync"],
        sync_cpu=told["sync_cpu"],
        idle=told["idle"],
        rss=told["rss"],
        one_write=tuple(told["one_write"]),
        events=events,
    )


def _writes(counts: tuple[int, ...]) -> str:
    ordered = sorted(counts)
    return f"{ordered[len(ordered) // 2]} (at most {ordered[-1]})"
