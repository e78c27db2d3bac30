"""The webhook over TLS, keep-alive: latency, rate, memory beside an empty Flask application."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.measure import Comparison, Scale, Series, Turn, Unit, alternate
from bench.parts import cluster
from tests.testbed.waiting import eventually

RINGFENCE = Path(sys.executable).with_name("ringfence")
START_SECONDS = 20
REVIEW = {
    "apiVersion": "admission.k8s.io/v1",
    "kind": "AdmissionReview",
    "request": {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "", "version": "v1", "kind": "Namespace"},
        "resource": {"group": "", "version": "v1", "resource": "namespaces"},
        "name": "app1-t00003",
        "namespace": "app1-t00003",
        "operation": "CREATE",
        "userInfo": {"username": "alice", "groups": ["team-t00003", "system:authenticated"]},
        "object": {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": "app1-t00003", "labels": {"team": "shop"}},
        },
        "dryRun": False,
    },
}


@dataclass(slots=True)
class Server:
    """A running server and the rates that it reached."""

    process: subprocess.Popen[bytes]
    address: str
    per_second: list[float] = field(default_factory=list)

    def resident(self) -> int:
        """Bytes resident in all its processes; pages that they share are counted in each."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        pids = [str(self.process.pid), *children.split()]
        return sum(_resident(Path("/proc", pid, "status")) for pid in pids)


def _resident(status: Path) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def run(scale: Scale) -> Iterator[Comparison]:
    """1, 4 and 16 connections as fast as they go, then 200 requests a second."""
    with tempfile.TemporaryDirectory(prefix="ringfence-bench-") as name:
        folder = Path(name)
        yield from _compare(scale, folder)


def _compare(scale: Scale, folder: Path) -> Iterator[Comparison]:
    (folder / "tenants.yaml").write_bytes(cluster.tenant_file(scale.of(100, 5)))
    subprocess.run(
        [RINGFENCE, "webhook", "certificates", "--directory", folder, "--host", "127.0.0.1"],
        check=True,
    )
    pair = (str(folder / "tls.crt"), str(folder / "tls.key"))
    empty = [sys.executable, "-m", "bench.parts.empty_app", *pair]
    ours = [str(RINGFENCE), "webhook", "serve", "--listen", "127.0.0.1:0", "--drain-seconds", "0"]
    ours += ["-c", str(folder / "tenants.yaml"), "--tls-cert", pair[0], "--tls-key", pair[1]]
    with (
        serving(empty, folder / "empty.log") as baseline,
        serving(ours, folder / "webhook.log") as webhook,
    ):
        servers = {"empty Flask app": baseline, "webhook, /mutate": webhook}
        for connections in (1, 4, 16):
            title = f"{connections} connection{'s' if connections > 1 else ''}, as fast as it goes"
            yield _round(title, servers, folder, scale, connections, rate=0)
        yield _round("200 requests a second", servers, folder, scale, connections=4, rate=200)


def _round(
    title: str, servers: dict[str, Server], folder: Path, scale: Scale, connections: int, rate: int
) -> Comparison:
    for server in servers.values():
        server.per_second.clear()
    requests = scale.of(800, 5) // connections or 1
    turns = {
        name: turn_of(server, folder / "ca.crt", connections, requests, rate)
        for name, server in servers.items()
    }
    samples = alternate(turns, rounds=scale.of(5, 1))
    series = [
        Series(name, Unit.SECONDS, samples[name], notes_of(server))
        for name, server in servers.items()
    ]
    aim = "p99 under 10 ms, RSS under 120 MB" if rate else ""
    return Comparison(f"Webhook over TLS, keep-alive, {title}", tuple(series), aim)


def notes_of(server: Server) -> dict[str, str]:
    """Rate and memory of a server."""
    return {
        "requests/s": f"{median(server.per_second):.0f}",
        "RSS, all processes": f"{server.resident() / 1e6:.0f} MB",
    }


def turn_of(
    server: Server, ca: Path, connections: int, requests: int, rate: int, path: str = "/mutate"
) -> Turn:
    """One round of requests to one server."""
    numbers = map(str, (connections, requests, rate))
    command = [sys.executable, "-m", "bench.parts.client", server.address, str(ca), path, *numbers]

    def turn() -> Sequence[float]:
        body = json.dumps(REVIEW).encode()
        finished = subprocess.run(command, input=body, stdout=subprocess.PIPE, check=True)
        found = json.loads(finished.stdout)
        server.per_second.append(found["perSecond"])
        return [float(latency) for latency in found["latencies"]]

    return turn


@contextmanager
def serving(command: Sequence[str], log: Path) -> Iterator[Server]:
    """A server process, once it listens; ends with the block."""
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stderr=sink)
    try:
        yield Server(process, _address(process, log))
    finally:
        process.terminate()
        process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where the server listens, from its log."""

    def said() -> str:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended: {log.read_text()}")
        lines = (line for line in log.read_bytes().split(b"\n")[:-1] if b'"address"' in line)
        return next((str(json.loads(line)["address"]) for line in lines), "")

    return eventually(said, f"the server listens: {log}", START_SECONDS)
