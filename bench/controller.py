"""The cluster side on a real API server: admission, first sight of many namespaces, bursts, drift.

Needs the testbed's programs. Every comparison begins with what the API server costs by itself:
creation without a webhook, the same writes by a client that decides nothing, the watch's own event.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.measure import Comparison, Scale, Series, Unit, alternate
from generators.documents.json import Document, Key, mapping, text
from generators.kube.client import Client, OnConflict, PatchKind
from generators.kube.reflector import Reflector
from generators.kube.resources import NAMESPACES, NETWORK_POLICIES, Resource
from generators.manifests import policy_document
from generators.objects import NetworkPolicy
from tests.controller.cluster import POLICY, Cluster, ControllerProcess, cluster, guarded
from tests.testbed.waiting import eventually

PATIENCE = 900.0
CLIENTS = (1, 8, 32)


def run(scale: Scale) -> Iterator[Comparison]:
    """Admission, burst and drift on one cluster; each sweep and the hand-over on its own."""
    with tempfile.TemporaryDirectory(prefix="ringfence-bench-") as name:
        folder = Path(name)
        yield from _admission(scale, folder)
        yield from _following(scale, folder)
        for count in (scale.of(1000, 10), scale.of(10_000, 20)):
            yield _sweep(folder / f"sweep-{count}", count)
        yield _hand_over(folder / "hand-over", scale)


# --- admission ----------------------------------------------------------------------------------


def _admission(scale: Scale, folder: Path) -> Iterator[Comparison]:
    with ExitStack() as stack:
        bare = stack.enter_context(cluster(_made(folder / "bare")))
        ours, _ = stack.enter_context(guarded(_made(folder / "ours")))
        subjects = {"no webhook": bare, "mutating and validating webhook": ours}
        for clients in CLIENTS[: scale.of(len(CLIENTS), 1)]:
            each = scale.of(320, 4) // clients
            turns = {name: _creations(on, clients, each) for name, on in subjects.items()}
            samples = alternate(turns, rounds=scale.of(3, 1))
            series = tuple(
                Series(name, Unit.SECONDS, found, {"p95": f"{_p95(found) * 1000:.1f} ms"})
                for name, found in samples.items()
            )
            title = f"Namespace created by a member, {clients} at a time"
            yield Comparison(title, series, "p95 at most 5 ms above the baseline")


def _creations(on: Cluster, clients: int, each: int) -> Callable[[], Sequence[float]]:
    anna = on.as_user("anna", "team-test01")
    serial = iter(range(1_000_000_000))
    begin = f"annas-{clients}"

    def create(names: Sequence[str]) -> list[float]:
        found = []
        for name in names:
            start = time.perf_counter()
            on.make(name, anna)
            found.append(time.perf_counter() - start)
        return found

    def turn() -> Sequence[float]:
        batches = [[f"{begin}-{next(serial)}" for _ in range(each)] for _ in range(clients)]
        with ThreadPoolExecutor(clients) as pool:
            return [sample for found in pool.map(create, batches) for sample in found]

    return turn


def _p95(samples: Sequence[float]) -> float:
    return Series("", Unit.SECONDS, tuple(samples)).percentile(95)


# --- following ----------------------------------------------------------------------------------


class Times:
    """When each object of a resource was last seen to change, by a watch."""

    def __init__(self, client: Client, resource: Resource) -> None:
        self.seen: dict[Key, list[float]] = {}
        self.reflector: Reflector[str] = Reflector(client, resource, _version, self._note)

    def _note(self, key: Key) -> None:
        self.seen.setdefault(key, []).append(time.perf_counter())

    def after(self, key: Key, moment: float, which: int = 0) -> float:
        """Seconds from `moment` to the event after it; waits for it."""

        def later() -> list[float]:
            return [seen for seen in self.seen.get(key, []) if seen >= moment][which:]

        return eventually(later, f"something happens to {key}", PATIENCE, 0.002)[0] - moment


@contextmanager
def _watched(client: Client, resource: Resource) -> Iterator[Times]:
    times = Times(client, resource)
    times.reflector.start()
    times.reflector.wait_synced(30)
    try:
        yield times
    finally:
        times.reflector.stop()


def _following(scale: Scale, folder: Path) -> Iterator[Comparison]:
    with ExitStack() as stack:
        on, _ = stack.enter_context(guarded(_made(folder / "following")))
        spaces = stack.enter_context(_watched(on.admin, NAMESPACES))
        policies = stack.enter_context(_watched(on.admin, NETWORK_POLICIES))
        alone = [f"alone-{number}" for number in range(scale.of(50, 2))]
        burst = [f"burst-{number}" for number in range(scale.of(500, 4))]
        yield _created("one after another", on, alone, 1, spaces, policies)
        yield _created(f"{len(burst)} at once", on, burst, 16, spaces, policies)
        yield _repaired(on, alone, policies)


def _created(
    how: str, on: Cluster, names: Sequence[str], clients: int, spaces: Times, policies: Times
) -> Comparison:
    anna = on.as_user("anna", "team-test01")

    def create(name: str) -> float:
        start = time.perf_counter()
        on.make(name, anna)
        if clients == 1:
            policies.after(Key(name, POLICY), start)
        return start

    with ThreadPoolExecutor(clients) as pool:
        starts = dict(zip(names, pool.map(create, names), strict=True))
    seen = tuple(spaces.after(Key("", name), start) for name, start in starts.items())
    isolated = tuple(policies.after(Key(name, POLICY), start) for name, start in starts.items())
    return Comparison(
        f"Namespace created -> seen by a watch, {how}",
        (
            Series("the namespace", Unit.SECONDS, seen),
            Series("its isolation policy", Unit.SECONDS, isolated),
        ),
        "p99 under 1 s in the burst",
    )


def _repaired(on: Cluster, names: Sequence[str], policies: Times) -> Comparison:
    gone, back = [], []
    for name in names:
        start = time.perf_counter()
        on.admin.delete(NETWORK_POLICIES, POLICY, name)
        gone.append(policies.after(Key(name, POLICY), start))
        back.append(policies.after(Key(name, POLICY), start, which=1))
    return Comparison(
        "Policy deleted -> seen by a watch",
        (
            Series("that it is gone", Unit.SECONDS, tuple(gone)),
            Series("that it is back", Unit.SECONDS, tuple(back)),
        ),
    )


def _version(document: Document) -> str:
    return text(mapping(document, "metadata"), "resourceVersion")


# --- many namespaces that existed before --------------------------------------------------------


def _sweep(folder: Path, count: int) -> Comparison:
    with cluster(_made(folder)) as on:
        names = [f"n{number}-test02" for number in range(count)]
        others = [f"plain-{number}" for number in range(count)]
        _in_threads(lambda name: on.make(name), [*names, *others])
        start = time.perf_counter()
        controller = on.controller(webhook=False)
        _until(lambda: _written(controller, "NetworkPolicy") >= count, controller)
        _until(lambda: sum(e.tenant == "test02" for e in on.record().values()) == count, controller)
        ours = time.perf_counter() - start
        notes = _notes(controller, count)
        controller.terminate()
        again = on.controller(webhook=False)
        _until(lambda: again.leads() and _depth(again) == 0, again)
        notes["writes at a restart"] = f"{_writes(again):.0f}"
        policy = on.policy(names[0])
        start = time.perf_counter()
        _in_threads(lambda name: _bare_writes(on.admin, name, policy or {}), others)
        bare = time.perf_counter() - start
    return Comparison(
        f"{count} namespaces that existed before",
        (
            Series("the same writes by a bare client", Unit.SECONDS, (bare,)),
            Series("controller: from start to all isolated", Unit.SECONDS, (ours,), notes),
        ),
        "at most 2 writes a namespace, RSS under 150 MB, 0 writes at a restart",
    )


def _in_threads(work: Callable[[str], object], names: Sequence[str]) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, names))


def _bare_writes(client: Client, name: str, policy: Document) -> None:
    patch: Document = {"metadata": {"labels": {"bench": "yes"}}}
    client.patch(NAMESPACES, name, "", patch, kind=PatchKind.MERGE, manager="bench")
    document = policy_document(NetworkPolicy(name, POLICY)) | {"spec": policy.get("spec", {})}
    client.apply(NETWORK_POLICIES, document, manager="bench", on_conflict=OnConflict.FAIL)


def _writes(controller: ControllerProcess) -> float:
    return _written(controller, "")


def _written(controller: ControllerProcess, kind: str) -> float:
    begin, wanted = "ringfence_controller_writes_total{", f'kind="{kind}'
    found = controller.metrics().items() if controller.get("/livez")[0] else ()
    return sum(value for name, value in found if name.startswith(begin) and wanted in name)


def _depth(controller: ControllerProcess) -> float:
    return controller.metrics()["ringfence_controller_queue_depth"]


def _notes(controller: ControllerProcess, count: int) -> dict[str, str]:
    lines = Path(f"/proc/{controller.pid}/status").read_text().splitlines()
    memory = {line.split(":")[0]: int(line.split()[1]) / 1000 for line in lines if "kB" in line}
    return {
        "writes a namespace": f"{_writes(controller) / count:.2f}",
        "RSS": f"{memory['VmRSS']:.0f} MB",
        "peak": f"{memory['VmHWM']:.0f} MB",
    }


def _until(holds: Callable[[], bool], controller: ControllerProcess) -> None:
    controller.until(holds, "what is measured is done", PATIENCE, 0.02)


# --- hand-over ----------------------------------------------------------------------------------


def _hand_over(folder: Path, scale: Scale) -> Comparison:
    lease = () if scale is Scale.FULL else ("--lease-seconds", "1")
    with cluster(_made(folder)) as on:
        stopped = _took_over(on, "a-test02", lease, lambda leader: leader.terminate())
        killed = _took_over(on, "b-test02", lease, lambda leader: leader.kill())
    return Comparison(
        "Leader gone -> a namespace that was created then is isolated",
        (
            Series("it stopped", Unit.SECONDS, (stopped,)),
            Series("it was killed", Unit.SECONDS, (killed,)),
        ),
        "under 20 s",
    )


def _took_over(
    on: Cluster, name: str, lease: Sequence[str], end: Callable[[ControllerProcess], object]
) -> float:
    first = on.controller(*lease, webhook=False)
    _until(first.leads, first)
    second = on.controller(*lease, webhook=False)
    _until(lambda: "[+]standby" in second.get("/readyz")[1], second)
    ending = threading.Thread(target=end, args=(first,))
    start = time.perf_counter()
    ending.start()
    on.make(name)
    _until(lambda: on.policy(name) is not None, second)
    took = time.perf_counter() - start
    ending.join()
    second.terminate()
    return took


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
