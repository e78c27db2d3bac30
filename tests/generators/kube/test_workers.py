"""Workers: what fails comes again, what is not ours any more does not, and no thread ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from generators.kube.errors import ApiStatus, Fenced, NotFound, Overloaded
from generators.kube.queue import Backoff, WorkQueue
from generators.kube.workers import Workers
from tests.testbed.waiting import eventually

LATER = 3_600.0


class Recorded:
    """Fails as it is told; takes down what it is asked."""

    def __init__(self) -> None:
        self.idle = False
        self.errors: dict[str, Exception] = {}
        self.ran: list[str] = []
        self.failed_with: list[tuple[str, str]] = []
        self.waits: dict[str, float] = {}

    def may_work(self) -> bool:
        return not self.idle

    def run(self, item: str) -> None:
        self.ran.append(item)
        if item in self.errors:
            raise self.errors[item]

    def failed(self, item: str, error: Exception) -> None:
        self.failed_with.append((item, type(error).__name__))

    def delayed(self, item: str, error: Exception, seconds: float) -> None:
        self.waits[item] = seconds


@pytest.fixture
def queue() -> WorkQueue[str]:
    return WorkQueue(Backoff(first=LATER, longest=LATER))


@pytest.fixture
def work() -> Recorded:
    return Recorded()


@pytest.fixture
def workers(queue: WorkQueue[str], work: Recorded) -> Iterator[Workers[str]]:
    stopping = threading.Event()
    workers = Workers(queue, stopping, work, "tested")
    workers.start()
    yield workers
    stopping.set()
    queue.close()
    workers.join(5)
    assert len(workers.dead()) == 8


@pytest.fixture
def dealt_with(queue: WorkQueue[str], workers: Workers[str]) -> Callable[[str], None]:
    def deal(item: str) -> None:
        queue.add(item)
        eventually(lambda: queue.idle, f"{item} is dealt with")
        assert workers.dead() == []

    return deal


def test_what_is_done_is_done(
    queue: WorkQueue[str], work: Recorded, dealt_with: Callable[[str], None]
) -> None:
    dealt_with("a")
    assert work.ran == ["a"]
    assert (queue.stats().delayed, work.failed_with) == (0, [])


@pytest.mark.parametrize("error", [NotFound("GET x", ApiStatus()), ZeroDivisionError()])
def test_what_fails_comes_again_whatever_the_reason(
    queue: WorkQueue[str], work: Recorded, dealt_with: Callable[[str], None], error: Exception
) -> None:
    work.errors["a"] = error
    dealt_with("a")
    assert work.failed_with == [("a", type(error).__name__)]
    eventually(lambda: work.waits == {"a": LATER}, "it is told when the item comes again")
    assert queue.stats().delayed == 1


def test_the_api_servers_wish_to_wait_is_heard(
    work: Recorded, dealt_with: Callable[[str], None]
) -> None:
    work.errors["a"] = Overloaded("GET x", ApiStatus(retry_after=2 * LATER))
    dealt_with("a")
    eventually(lambda: work.waits == {"a": 2 * LATER}, "it is told when the item comes again")


def test_what_is_not_ours_any_more_does_not_come_again(
    queue: WorkQueue[str], work: Recorded, dealt_with: Callable[[str], None]
) -> None:
    work.errors["a"] = Fenced("PUT x", ApiStatus())
    dealt_with("a")
    assert (queue.stats().delayed, work.failed_with) == (0, [])


def test_where_nothing_may_be_done_items_are_dropped(
    work: Recorded, dealt_with: Callable[[str], None]
) -> None:
    work.idle = True
    dealt_with("a")
    assert work.ran == []
