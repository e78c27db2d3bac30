"""A client with keep-alive connections over TLS, in a process of its own: it shares no interpreter
lock with what it measures.

`python -m bench.parts.client ADDRESS CA PATH CONNECTIONS REQUESTS RATE < BODY` prints one JSON
object: `latencies` in seconds and the requests `perSecond`. RATE 0 is as fast as answers come; else
requests are due at fixed times, and a late start counts as latency.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

WARM_UP = 20
TIMEOUT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """What one connection does."""

    address: str
    context: ssl.SSLContext
    path: str
    body: bytes
    requests: int
    interval: float
    delay: float


def drive(plan: Plan, ready: threading.Barrier, latencies: list[float]) -> None:
    """Warm up, wait for the others, send all requests."""
    connection = http.client.HTTPSConnection(
        plan.address, context=plan.context, timeout=TIMEOUT_SECONDS
    )
    for _ in range(WARM_UP):
        ask(connection, plan)
    ready.wait()
    for due in schedule(plan):
        ask(connection, plan)
        latencies.append(time.perf_counter() - due)
    connection.close()


def schedule(plan: Plan) -> Iterator[float]:
    """When each request is due; waits for it."""
    start = time.perf_counter() + plan.delay
    for number in range(plan.requests):
        due = start + number * plan.interval
        if not plan.interval:
            due = time.perf_counter()
        elif (early := due - time.perf_counter()) > 0:
            time.sleep(early)
        yield due


def ask(connection: http.client.HTTPSConnection, plan: Plan) -> None:
    """One request and its answer, which has to be 200."""
    connection.request("POST", plan.path, plan.body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = response.read()
    if response.status != http.HTTPStatus.OK:
        raise RuntimeError(f"{plan.path}: {response.status}: {answer[:200]!r}")


def main() -> None:
    """Entry point; see the module's docstring."""
    address, ca, path, connections, requests, rate = sys.argv[1:]
    count, body = int(connections), sys.stdin.buffer.read()
    context = ssl.create_default_context(cafile=ca)
    interval = count / float(rate) if float(rate) else 0.0
    latencies: list[float] = []
    ready = threading.Barrier(count + 1)
    threads = [
        threading.Thread(
            target=drive,
            args=(
                Plan(
                    address, context, path, body, int(requests), interval, number * interval / count
                ),
                ready,
                latencies,
            ),
        )
        for number in range(count)
    ]
    for thread in threads:
        thread.start()
    ready.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    json.dump({"latencies": latencies, "perSecond": len(latencies) / seconds}, sys.stdout)


if __name__ == "__main__":
    main()
