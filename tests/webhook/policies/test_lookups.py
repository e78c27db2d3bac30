"""What policies read while somebody waits: bounded, shed when there is too much, never a watch."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from generators.kube.discovery import Discovery
from generators.kyverno.failures import LookupFailed
from generators.kyverno.limits import GuardedLookups, Limits
from generators.kyverno.requests import Lookups
from tests.generators.kube.slow import SlowServer, pouring, silent, whole
from tests.testbed.waiting import patience
from webhook.background.caches import CacheListeners, Caches
from webhook.policies.lookups import READERS, WAITING, AdmissionLookups


def nobody(*_: object) -> None:
    """Nothing is followed here."""


@pytest.fixture
def server() -> Iterator[SlowServer]:
    with SlowServer(whole(b'{"kind": "NamespaceList"}')) as running:
        yield running


def at_admission(server: SlowServer) -> AdmissionLookups:
    return AdmissionLookups(server.client)


def behind_requests(server: SlowServer) -> Caches:
    return Caches(server.client, Discovery(server.client), CacheListeners(nobody, nobody, nobody))


BOTH = pytest.mark.parametrize("lookups", [at_admission, behind_requests])


@BOTH
def test_an_answer_without_end_is_a_failed_lookup(
    server: SlowServer, lookups: Callable[[SlowServer], Lookups]
) -> None:
    server.answer = pouring
    with pytest.raises(LookupFailed, match="longer than"):
        lookups(server).get("/api/v1/namespaces")


@BOTH
def test_no_query_of_a_policy_becomes_a_watch(
    server: SlowServer, lookups: Callable[[SlowServer], Lookups]
) -> None:
    """Whatever one side takes for a separator and the other does not."""
    guarded = GuardedLookups(lookups(server), Limits())
    assert guarded.get("/api/v1/namespaces?limit=1%26watch=1") == {"kind": "NamespaceList"}
    assert server.targets == ["/api/v1/namespaces?limit=1%26watch%3D1"]


def test_readers_that_are_all_busy_shed_what_comes_more_and_are_free_again(
    server: SlowServer,
) -> None:
    asked = threading.Semaphore(0)

    def answer(sock: socket.socket, over: threading.Event) -> None:
        asked.release()
        silent(sock, over)

    server.answer = answer
    lookups = at_admission(server)
    failed: list[str] = []

    def ask() -> None:
        try:
            lookups.get("/api/v1/namespaces")
        except LookupFailed as error:
            failed.append(str(error))

    most = READERS + WAITING
    with ThreadPoolExecutor(most + 5) as threads:
        for _ in range(most + 5):
            threads.submit(ask)
        for _ in range(READERS):
            assert asked.acquire(timeout=patience(10))
    shed = [why for why in failed if "too many reads" in why]
    assert (len(failed), len(shed)) == (most + 5, 5)
    server.answer = whole(b"{}")
    assert lookups.get("/api/v1/namespaces") == {}
    lookups.stop()
    with pytest.raises(LookupFailed, match="stopping"):
        lookups.get("/api/v1/namespaces")
