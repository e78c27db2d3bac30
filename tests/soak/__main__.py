"""`python -m tests.soak [MINUTES]`: hours of churn and faults on a real API server and real agents.

Prints a table at its end and keeps it, written anew every few minutes, below .cache/soak; ends with
1 when something did not hold: a false Event, none or more than one for a real deletion or edit,
kernel and desired state that differ, a process that ended by itself.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.report import machine
from generators.documents.json import Document, key_of, mapping, strings, text
from generators.errors import RingfenceError
from generators.kube.client import PatchKind
from generators.kube.errors import KubeError
from generators.kube.resources import EVENTS, NAMESPACES, NETWORK_POLICIES, PODS
from tests.controller.cluster import KEY, POLICY
from tests.soak.churn import Churn
from tests.soak.faults import Faults
from tests.soak.ground import NODES, Ground, ground
from tests.soak.samples import Sample, counts, of_process, table
from tests.soak.traffic import Traffic
from tests.testbed.waiting import eventually, patience

CHECKOUT = Path(__file__).resolve().parents[2]
SAMPLE_SECONDS = 20.0
WATCH_SECONDS = 5.0
CHURN_SECONDS = 1.5
TRAFFIC_SECONDS = 1.0
BETWEEN_FAULTS_SECONDS = 20.0
SETTLE_SECONDS = 120.0
FAULTS_A_ROUND = 3
QUIET_SECONDS = 8.0
"""How long after a real change a second Event of it would have come."""


class Soak:
    """One run."""

    def __init__(self, on: Ground, folder: Path, minutes: float, seed: int) -> None:
        self._on = on
        self._folder = folder
        self._began = time.monotonic()
        self._end = self._began + minutes * 60
        self._chance = random.Random(seed)  # noqa: S311
        self._churn = Churn(on, random.Random(seed + 1))  # noqa: S311
        self._faults = Faults(on, self._chance)
        self._traffic = Traffic(on, random.Random(seed + 2))  # noqa: S311
        self._over, self._paused = threading.Event(), threading.Event()
        self._samples: list[Sample] = []
        self._happened: Counter[str] = Counter()
        self._compared: Counter[str] = Counter()
        self._warnings: dict[str, tuple[str, str, str]] = {}
        self._expected: Counter[tuple[str, str]] = Counter()
        self.wrong: list[str] = []

    def run(self) -> None:
        """All rounds."""
        loops = [
            threading.Thread(target=self._each, args=(seconds, work), daemon=True)
            for seconds, work in (
                (CHURN_SECONDS, self._churn_on),
                (TRAFFIC_SECONDS, self._traffic.once),
                (SAMPLE_SECONDS, self._sample),
                (WATCH_SECONDS, self._read_events),
            )
        ]
        for loop in loops:
            loop.start()
        try:
            rounds: list[str] = []
            while time.monotonic() < self._end:
                for _ in range(FAULTS_A_ROUND):
                    if not rounds:
                        rounds = sorted(self._faults.all)
                        self._chance.shuffle(rounds)
                    self._break(rounds.pop())
                self._calm()
                self.write()
        finally:
            self._over.set()
            for loop in loops:
                loop.join(patience(30))
            self.write()

    def _each(self, seconds: float, work: Callable[[], None]) -> None:
        while not self._over.wait(seconds):
            try:
                work()
            except (RingfenceError, OSError):
                # The API server is away now and then; what is lost is one turn.
                continue
            except Exception as error:
                self._note(f"the soak itself: {error!r}")

    # --- what happens ---------------------------------------------------------------------------

    def _churn_on(self) -> None:
        if not self._paused.is_set():
            self._churn.once()

    def _break(self, name: str) -> None:
        try:
            self._faults.all[name]()
        except Exception as error:
            # Two hours are not lost to one thing that was not thought of; it is told.
            self._note(f"{name}: {error!r}")
        self._happened[name] += 1
        self._over.wait(BETWEEN_FAULTS_SECONDS)

    def _calm(self) -> None:
        """Nothing changes: what is must be what the file says, and real changes are told once."""
        self._paused.set()
        try:
            eventually(lambda: not self._unsettled(), "settled", SETTLE_SECONDS / 2, poll=2)
            self._compare()
            self._changed_by_hand("PolicyRecreated", self._delete)
            self._changed_by_hand("PolicyRepaired", self._edit)
        except AssertionError:
            self._note(f"not settled: {'; '.join(self._unsettled())[:500]}")
        except Exception as error:
            self._note(f"between faults: {error!r}")
        finally:
            self._paused.clear()

    def _compare(self) -> None:
        found = self._on.differences()
        self._compared["packets differ" if found else "packets as evaluated"] += 1
        for one in found[:5]:
            self._note(f"packets: {one}")

    def _changed_by_hand(self, reason: str, change: Callable[[str], None]) -> None:
        """A generated policy of a namespace that is left alone otherwise."""
        name = f"real-{reason.lower()}-{sum(self._expected.values())}-test01"
        cluster = self._on.cluster
        try:
            cluster.make(name)
            eventually(lambda: cluster.isolated(name, "test01"), f"{name} isolated")
            # Until the leader has seen in its watch that the policy is there.
            time.sleep(3)
            change(name)
            self._expected[name, reason] += 1
            eventually(lambda: reason in self._told(name), f"{reason} told on {name}")
            time.sleep(QUIET_SECONDS)
            self._read_events()
            self._happened[f"real change, {reason}"] += 1
            cluster.admin.delete(NAMESPACES, name)
        except (AssertionError, RingfenceError) as error:
            self._note(f"real change: {error}")

    def _told(self, namespace: str) -> list[str]:
        self._read_events()
        return [reason for home, reason, _ in self._warnings.values() if home == namespace]

    def _delete(self, namespace: str) -> None:
        self._on.cluster.admin.delete(NETWORK_POLICIES, POLICY, namespace)

    def _edit(self, namespace: str) -> None:
        patch: Document = {"spec": {"ingress": [{}]}}
        self._on.cluster.admin.patch(
            NETWORK_POLICIES, POLICY, namespace, patch, kind=PatchKind.MERGE, manager="by-hand"
        )

    # --- what is looked at ----------------------------------------------------------------------

    def _unsettled(self) -> list[str]:
        """What is not yet as the tenant file says."""
        try:
            return [*self._cluster_side(), *self._nodes()]
        except (KubeError, RingfenceError, OSError, AssertionError) as error:
            return [repr(error)]

    def _cluster_side(self) -> list[str]:
        cluster, found = self._on.cluster, []
        namespaces = [mapping(one, "metadata") for one in cluster.admin.list_all(NAMESPACES)]
        isolated = {
            key_of(one).namespace
            for one in cluster.admin.list_all(NETWORK_POLICIES)
            if key_of(one).name == POLICY
        }
        recorded = cluster.record()
        uids = {text(meta, "uid") for meta in namespaces}
        found += [
            f"record of {entry.namespace}, which is gone"
            for uid, entry in recorded.items()
            if uid not in uids
        ]
        for meta in namespaces:
            name, uid = text(meta, "name"), text(meta, "uid")
            tenant = next((t for t in ("test01", "test02") if name.endswith(f"-{t}")), None)
            entry = recorded.get(uid)
            is_so = (
                strings(meta, "labels").get(KEY),
                entry.tenant if entry else None,
                name in isolated,
            )
            if "deletionTimestamp" in meta:
                found.append(f"{name} is still terminating")
            elif is_so != (tenant, tenant, tenant is not None):
                found.append(f"{name}: label, record, policy are {is_so}")
        leaders = sum(one.leads() for one in self._on.controllers)
        if leaders != 1 or not any(one.in_force() for one in self._on.controllers):
            found.append(f"{leaders} controllers lead, or admission is not in force")
        found += [] if cluster.synchronized() else ["the status names another tenant file"]
        return found

    def _nodes(self) -> list[str]:
        found = []
        pods = self._on.cluster.admin.list_all(PODS)
        for number in range(1, NODES + 1):
            status, node = self._on.agent(number), self._on.node(number)
            here = sum(text(mapping(pod, "spec"), "nodeName") == node for pod in pods)
            if status.get("problems") != [] or status.get("endpoints") != here:
                found.append(
                    f"{node}: {status.get('endpoints')} of {here} pods, {status.get('problems')}"
                )
            if mapping(status, "audit").get("corrections"):
                found.append(f"{node}: maps had drifted {mapping(status, 'audit')}")
        return found

    def _read_events(self) -> None:
        """Warnings of ours, each once; a namespace's go with it, so they are kept here."""
        for item in self._on.cluster.admin.list_all(EVENTS):
            key = key_of(item)
            if key.name.startswith("ringfence-") and item.get("type") == "Warning":
                told = (key.namespace, text(item, "reason"), text(item, "note"))
                self._warnings.setdefault(text(mapping(item, "metadata"), "uid"), told)

    def _sample(self) -> None:
        now = time.monotonic() - self._began
        fresh = []
        for part, pid in self._on.processes().items():
            # A part that was started anew is another process, and another series.
            fresh += [Sample(now, f"{part} ({pid})", k, v) for k, v in of_process(pid).items()]
        for maps, fill in self._on.entries().items():
            fresh += [Sample(now, maps, name, value) for name, value in fill.items()]
        for controller in self._on.controllers:
            if controller.leads():
                fresh += [
                    Sample(now, "objects of the leader", name.split('"')[1], value)
                    for name, value in controller.metrics().items()
                    if name.startswith("ringfence_controller_objects{")
                ]
        self._samples += fresh
        with (self._folder / "samples.jsonl").open("a") as file:
            file.writelines(json.dumps(asdict(one)) + "\n" for one in fresh)

    def _note(self, what: str) -> None:
        self.wrong.append(self._stamp(what))
        print(self.wrong[-1], file=sys.stderr, flush=True)

    def _stamp(self, what: str) -> str:
        return f"{(time.monotonic() - self._began) / 60:.1f} min: {what}"

    # --- the table ------------------------------------------------------------------------------

    def events(self) -> list[str]:
        """What is wrong with the Events: too many, or missing."""
        told = Counter((home, reason) for home, reason, _ in list(self._warnings.values()))
        return [
            f"Event {reason} on {home}: {told[home, reason]}, wanted {self._expected[home, reason]}"
            for home, reason in sorted(told.keys() | self._expected.keys())
            if told[home, reason] != self._expected[home, reason]
        ]

    def write(self) -> None:
        """The table of everything until now, to soak.md."""
        facts = ", ".join(f"{name} {value}" for name, value in machine().items())
        wrong = [*self.wrong, *self.events()]
        lines = [
            f"{facts}, {(time.monotonic() - self._began) / 60:.0f} minutes",
            "",
            *counts("Done", self._churn.done),
            *counts("Not taken", self._churn.failed),
            *counts("Faults and real changes", self._happened),
            *counts("Compared", self._compared),
            f"Warnings: {len(self._warnings)}, of them wanted {sum(self._expected.values())}",
            "What did not hold: " + ("nothing" if not wrong else ""),
            *(f"- {one}" for one in wrong),
            "",
            *table(list(self._samples)),
        ]
        beside = self._folder / "soak.new"
        beside.write_text("\n".join(lines) + "\n")
        beside.replace(self._folder / "soak.md")


def main() -> int:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("minutes", nargs="?", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=CHECKOUT / ".cache/soak")
    given = parser.parse_args()
    folder = given.output / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    with TemporaryDirectory(prefix="ringfence-soak-") as scratch, ground(Path(scratch)) as on:
        soak = Soak(on, folder, given.minutes, given.seed)
        print(f"soak: {given.minutes:g} minutes; the table grows in {folder}/soak.md", flush=True)
        try:
            soak.run()
        except KeyboardInterrupt:
            print("soak: stopped", file=sys.stderr)
        soak.write()
        print((folder / "soak.md").read_text())
        return 1 if soak.wrong or soak.events() else 0


if __name__ == "__main__":
    sys.exit(main())
