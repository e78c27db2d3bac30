"""One leader at a time, on a real API server: hand-over, death of the leader, leader cut off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from generators.documents.json import mapping, text
from generators.kube.client import Client
from generators.kube.lease import Leadership, LeaseTiming
from generators.kube.resources import LEASES
from tests.generators.kube.proxy import FaultProxy, refusal
from tests.testbed.waiting import eventually

pytestmark = pytest.mark.cluster
QUICK = LeaseTiming(duration=2.0, renew_within=1.0, retry=0.1)


class Candidates:
    """Candidates for one Lease, and who led when."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.turns: list[tuple[str, bool]] = []
        self._all: list[Leadership] = []

    def start(self, client: Client, identity: str) -> Leadership:
        candidate = Leadership(
            client,
            "default",
            self.name,
            identity,
            changed=lambda leading: self.turns.append((identity, leading)),
            timing=QUICK,
        )
        self._all.append(candidate)
        candidate.start()
        return candidate

    def leaders(self) -> int:
        return sum(candidate.leading for candidate in self._all)

    def stop(self) -> None:
        for candidate in self._all:
            candidate.stop()


@pytest.fixture
def candidates(admin: Client, unique_name: Callable[[str], str]) -> Iterator[Candidates]:
    made = Candidates(unique_name("lease"))
    yield made
    made.stop()


def leads(candidate: Leadership) -> None:
    eventually(lambda: candidate.leading, "leads")


def test_of_two_candidates_the_second_waits_and_takes_over_when_the_first_stops(
    admin: Client, candidates: Candidates
) -> None:
    first = candidates.start(admin, "one")
    leads(first)
    second = candidates.start(admin, "two")
    eventually(lambda: second.holder == "one", "the second knows who leads")
    assert not second.leading
    first.stop()
    leads(second)
    assert candidates.turns == [("one", True), ("one", False), ("two", True)]
    spec = mapping(admin.get(LEASES, candidates.name, "default"), "spec")
    assert text(spec, "holderIdentity") == "two"
    assert spec["leaseTransitions"] == 1


def test_a_leader_that_cannot_renew_stops_leading_before_another_begins(
    admin: Client, proxy: FaultProxy, candidates: Candidates
) -> None:
    first = candidates.start(proxy.client(), "cut-off")
    leads(first)
    second = candidates.start(admin, "heir")
    eventually(lambda: second.holder == "cut-off", "the second knows who leads")
    proxy.answer = lambda _: refusal(503, "ServiceUnavailable")
    most = 0

    def handed_over() -> bool:
        nonlocal most
        most = max(most, candidates.leaders())
        return second.leading

    eventually(handed_over, "the second leads")
    assert most == 1
    assert not first.leading
    assert candidates.turns.index(("cut-off", False)) < candidates.turns.index(("heir", True))
    proxy.answer = lambda _: None
    eventually(lambda: first.holder == "heir", "the first accepts it")
    assert not first.leading


def test_a_leader_keeps_its_lease_for_as_long_as_it_renews(
    admin: Client, candidates: Candidates
) -> None:
    first = candidates.start(admin, "one")
    leads(first)
    candidates.start(admin, "two")
    seen: list[str] = []

    def renewed_often() -> bool:
        spec = mapping(admin.get(LEASES, candidates.name, "default"), "spec")
        if text(spec, "renewTime") not in seen:
            seen.append(text(spec, "renewTime"))
        return len(seen) > 30

    eventually(renewed_often, "thirty renewals, longer than the lease lasts")
    assert all(earlier < later for earlier, later in pairwise(seen))
    assert candidates.turns == [("one", True)]


def test_many_candidates_at_once_give_one_leader(admin: Client, candidates: Candidates) -> None:
    for index in range(6):
        candidates.start(admin, f"candidate-{index}")
    eventually(lambda: candidates.leaders() == 1, "one leads")
    holder = text(mapping(admin.get(LEASES, candidates.name, "default"), "spec"), "holderIdentity")
    assert [identity for identity, leading in candidates.turns if leading] == [holder]
