"""Slots: the narrowest one that a packet meets names the first rule that opens its port."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.policy.ports import EVERYTHING, PORTS, Ranked, Span, every_port, port_prefixes, slots

TCP, UDP, ICMP = 6, 17, 1
EDGES = (1, 2, 79, 80, 81, 1023, 1024, 65534, 65535)


@st.composite
def spans(draw: st.DrawFn) -> Span:
    first, last = sorted(draw(st.tuples(st.sampled_from(EDGES), st.sampled_from(EDGES))))
    ranged = Span(draw(st.sampled_from((TCP, UDP))), first, last)
    return draw(st.sampled_from((ranged, EVERYTHING, every_port("TCP"))))


def opened(allowed: Sequence[Ranked], port: int, protocol: int) -> int | None:
    """What the rules say."""
    hits = (
        rank
        for rank, span in allowed
        if span.protocol in (0, protocol) and span.first <= port <= span.last
    )
    return min(hits, default=None)


def met(allowed: Sequence[Ranked], port: int, protocol: int) -> int | None:
    """What the slots say, probed as the kernel does."""
    found = slots(allowed)
    if (port, protocol) in found.exact:
        return found.exact[port, protocol]
    for length in range(16, -1, -1):
        key = (port >> (16 - length) << (16 - length), length, protocol)
        if key in found.prefixes:
            return found.prefixes[key]
    return found.exact.get((0, protocol), found.exact.get((0, 0)))


@given(st.lists(spans(), max_size=8), st.sampled_from(EDGES), st.sampled_from((TCP, UDP, ICMP)))
def test_every_port_meets_the_first_rule_that_opens_it(
    found: list[Span], port: int, protocol: int
) -> None:
    allowed = list(enumerate(found))
    asked = 0 if protocol == ICMP else port
    assert met(allowed, asked, protocol) == opened(allowed, asked, protocol)


@pytest.mark.parametrize(
    ("first", "last", "blocks"),
    [
        (80, 80, [(80, 16)]),
        (80, 81, [(80, 15)]),
        (81, 82, [(81, 16), (82, 16)]),
        (0, PORTS - 1, [(0, 0)]),
        (32768, 65535, [(32768, 1)]),
    ],
)
def test_a_range_is_cut_into_aligned_blocks(
    first: int, last: int, blocks: list[tuple[int, int]]
) -> None:
    assert list(port_prefixes(first, last)) == blocks


def test_no_range_needs_more_than_thirty_blocks() -> None:
    assert len(list(port_prefixes(1, 65534))) == 30
