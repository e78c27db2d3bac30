"""The work queue: each key once, never in two hands, failing keys wait for themselves only."""

from __future__ import annotations

import threading

import pytest

from generators.kube.queue import Backoff, WorkQueue
from tests.testbed.waiting import patience


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> WorkQueue[str]:
    return WorkQueue(Backoff(first=1.0, longest=8.0), clock)


def drain(queue: WorkQueue[str]) -> list[str]:
    keys = []
    while (key := queue.get(timeout=0)) is not None:
        keys.append(key)
        queue.done(key)
    return keys


def test_a_key_added_often_comes_once_in_the_order_of_its_first_add(queue: WorkQueue[str]) -> None:
    for key in ("a", "b", "a", "c", "b"):
        queue.add(key)
    assert drain(queue) == ["a", "b", "c"]


def test_a_key_in_work_is_not_given_to_a_second_worker_but_comes_again(
    queue: WorkQueue[str],
) -> None:
    queue.add("a")
    assert queue.get(timeout=0) == "a"
    queue.add("a")
    assert queue.get(timeout=0) is None
    queue.done("a")
    assert queue.get(timeout=0) == "a"


def test_failures_of_a_key_double_its_wait_up_to_a_bound_and_success_forgets_them(
    queue: WorkQueue[str], clock: Clock
) -> None:
    delays = []
    queue.add("a")
    for _ in range(6):
        assert queue.get(timeout=0) == "a"
        delays.append(queue.retry("a"))
        clock.now += delays[-1]
    assert delays == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert queue.get(timeout=0) == "a"
    queue.done("a")
    assert queue.failures("a") == 0


def test_a_failing_key_waits_for_nobody_else(queue: WorkQueue[str], clock: Clock) -> None:
    queue.add("bad")
    queue.add("good")
    assert queue.get(timeout=0) == "bad"
    queue.retry("bad")
    assert drain(queue) == ["good"]
    clock.now += 1.0
    assert drain(queue) == ["bad"]


def test_a_retry_respects_what_the_server_asked_for(queue: WorkQueue[str]) -> None:
    queue.add("a")
    assert queue.get(timeout=0) == "a"
    assert queue.retry("a", at_least=30.0) == 30.0


def test_the_earlier_of_two_appointments_stands(queue: WorkQueue[str], clock: Clock) -> None:
    queue.add_after("a", 10.0)
    queue.add_after("a", 2.0)
    queue.add_after("a", 5.0)
    assert queue.get(timeout=0) is None
    clock.now += 2.0
    assert drain(queue) == ["a"]
    clock.now += 20.0
    assert drain(queue) == []


def test_a_change_during_a_failing_attempt_is_looked_at_at_once(queue: WorkQueue[str]) -> None:
    queue.add("a")
    assert queue.get(timeout=0) == "a"
    queue.add("a")
    queue.retry("a")
    assert queue.get(timeout=0) == "a"


def test_a_thousand_failures_do_not_overflow() -> None:
    assert Backoff(first=0.5, longest=30.0).delay(1000) == 30.0


def test_stats_tell_what_waits_and_for_how_long(queue: WorkQueue[str], clock: Clock) -> None:
    queue.add("a")
    clock.now += 3.0
    queue.add("b")
    queue.add_after("c", 9.0)
    assert queue.get(timeout=0) == "a"
    clock.now += 1.0
    stats = queue.stats()
    assert (stats.depth, stats.in_work, stats.delayed, stats.adds) == (1, 1, 1, 2)
    assert stats.oldest_seconds == 1.0
    assert not queue.idle


def test_a_worker_that_waits_gets_a_key_added_by_another_thread() -> None:
    queue: WorkQueue[str] = WorkQueue()
    got: list[str | None] = []
    worker = threading.Thread(target=lambda: got.append(queue.get(timeout=patience(30))))
    worker.start()
    queue.add_after("a", 0.05)
    worker.join(30)
    assert got == ["a"]


def test_close_wakes_all_workers() -> None:
    queue: WorkQueue[str] = WorkQueue()
    got: list[str | None] = []
    workers = [threading.Thread(target=lambda: got.append(queue.get())) for _ in range(3)]
    for worker in workers:
        worker.start()
    queue.close()
    for worker in workers:
        worker.join(30)
    assert got == [None, None, None]
    queue.add("late")
    assert queue.get(timeout=0) is None


def test_many_workers_see_every_key_and_never_one_in_two_hands() -> None:
    queue: WorkQueue[int] = WorkQueue()
    holding: set[int] = set()
    seen: list[int] = []
    clashes: list[int] = []
    guard = threading.Lock()

    def work() -> None:
        while (key := queue.get(timeout=0.5)) is not None:
            with guard:
                if key in holding:
                    clashes.append(key)
                holding.add(key)
                seen.append(key)
            with guard:
                holding.discard(key)
            queue.done(key)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for _ in range(20):
        for key in range(50):
            queue.add(key)
    for worker in workers:
        worker.join(30)
    assert clashes == []
    assert set(seen) == set(range(50))
    assert queue.idle
