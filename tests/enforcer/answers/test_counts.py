"""Counters of the metrics never fall, although the kernel's counters go with their endpoints."""

from __future__ import annotations

from collections.abc import Iterable

from enforcer.answers.counts import Counts
from enforcer.datapath.maps import Statistic
from enforcer.policy.tables import Dir


class Counters:
    """What the kernel counts."""

    def __init__(self, *items: Statistic) -> None:
        self.items = items

    def statistics(self) -> tuple[Statistic, ...]:
        return self.items

    def forget(self, endpoints: Iterable[int]) -> None:
        self.items = tuple(item for item in self.items if item.endpoint not in set(endpoints))


def dropped(endpoint: int, rule: int, packets: int) -> Statistic:
    return Statistic(endpoint, Dir.INGRESS, 1, 133, rule, 0, packets, packets * 60)


def test_an_endpoint_that_is_gone_keeps_its_share() -> None:
    kernel = Counters(dropped(1, 7, 3), dropped(2, 7, 5), dropped(2, 8, 1))
    counts = Counts(kernel)
    before = counts.totals()
    counts.forget([2])
    assert kernel.items == (dropped(1, 7, 3),)
    assert counts.totals() == before
    assert (before.packets.total(), before.octets.total()) == (9, 540)


def test_the_same_number_of_an_endpoint_counts_on() -> None:
    kernel = Counters(dropped(2, 7, 5))
    counts = Counts(kernel)
    counts.forget([2])
    kernel.items = (dropped(2, 7, 2),)
    assert counts.totals().packets.total() == 7
