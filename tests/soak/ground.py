"""Where the soak runs: a real API server, two controllers and a webhook of the real commands, two
hollow nodes with real agents; all of ours reach the API server through proxies that make faults.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from enforcer.answers import control
from generators.documents.json import Document, integer, mapping, mappings
from generators.errors import RingfenceError
from lab.api.plane import ADMINS
from lab.names import places
from tests.conftest import COMMAND
from tests.controller.cluster import CONTROLLER, SYSTEM, Cluster, ControllerProcess, Process
from tests.generators.kube.proxy import FaultProxy
from tests.lab.api.hollow import ApiLab
from tests.testbed.plane import ControlPlane
from tests.testbed.waiting import eventually, patience

NODES = 2
LEASE = ("--lease-seconds", "10")
ACCOUNT_GROUPS = ("system:serviceaccounts", f"system:serviceaccounts:{SYSTEM}")
TENANTS = """\
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
labelKey: client
admins: {{groups: [platform-team]}}
shared: {shared}
tenants:
  - name: test01
    namespaces: {{suffixes: ["-test01"]}}
    members: {{groups: {members}}}
  - name: test02
    namespaces: {{suffixes: ["-test02"]}}
    members: {{groups: [team-test02]}}
"""


def tenants(number: int) -> str:
    """The tenant file after so many changes: policies, members and both differ in turn."""
    shared = ("[]", "[{name: ingress, namespaces: {names: [ingress]}}]")[number % 2]
    members = ("[team-test01]", "[team-test01, contractors]")[number // 2 % 2]
    return TENANTS.format(shared=shared, members=members)


def _run(
    *arguments: str | Path, stdin: str = "", timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@dataclass
class Ground:
    """Everything that runs."""

    plane: ControlPlane
    cluster: Cluster
    proxies: tuple[FaultProxy, FaultProxy]
    controllers: list[ControllerProcess]
    webhook: Process
    lab: ApiLab

    def node(self, number: int) -> str:
        """A node's name, counted from 1."""
        return f"{self.lab.places.name}-{number}"

    def agent(self, number: int) -> Document:
        """What an agent says of itself; empty when it does not answer."""
        run = self.lab.places.node(self.node(number)).enforcer_run
        with contextlib.suppress(RingfenceError, OSError, ValueError):
            return control.ask(run, {"command": "status"})
        return {}

    def processes(self) -> dict[str, int]:
        """Process id of each of our processes, by the part that it plays."""
        found = {f"controller {n}": c.pid for n, c in enumerate(self.controllers, 1)}
        found["webhook"] = self.webhook.pid
        for number in range(1, NODES + 1):
            pid = self.agent(number).get("pid")
            if isinstance(pid, int):
                found[f"agent of node {number}"] = pid
        return found

    def entries(self) -> dict[str, dict[str, float]]:
        """How many entries each map of each node has, and the connections that it tracks."""
        found: dict[str, dict[str, float]] = {}
        for number in range(1, NODES + 1):
            maps = mapping(self.agent(number), "maps")
            found[f"maps of node {number}"] = {
                name: float(integer(mapping(maps, name), "entries") or 0) for name in sorted(maps)
            } | {"connections": float(self._connections(number))}
        return found

    def _connections(self, number: int) -> int:
        run = self.lab.places.node(self.node(number)).enforcer_run
        with contextlib.suppress(RingfenceError, OSError, ValueError):
            parts = control.stream(run, {"command": "bpf", "table": "ct"})
            return sum(len(mappings(p, "entries")) + (integer(p, "more") or 0) for p in parts)
        return 0

    def leader(self) -> ControllerProcess | None:
        """The controller that says that it leads."""
        return next((one for one in self.controllers if one.leads()), None)

    def standby(self) -> ControllerProcess:
        """Another one than the leader."""
        leader = self.leader()
        return next(one for one in self.controllers if one is not leader)

    def controller(self) -> ControllerProcess:
        """A further controller, started."""
        return self.cluster.controller(*LEASE)

    def differences(self) -> list[str]:
        """Pairs of pods whose real connections fare otherwise than the evaluator says."""
        kubeconfig = self.plane.kubeconfig()
        asked = _run(
            *("matrix", "--kubeconfig", kubeconfig, "-c", self.cluster.tenants, "-o", "json"),
            timeout=patience(120),
        )
        found = self.lab("probe", "-o", "json")
        if asked.returncode or found.returncode:
            return [f"cannot be asked: {asked.stderr[-300:]} {found.stderr[-300:]}"]
        wanted = {_cell(cell): cell["verdict"] for cell in json.loads(asked.stdout)["cells"]}
        real = {_cell(cell): cell["verdict"] for cell in json.loads(found.stdout)["cells"]}
        return [
            f"{key}: {real[key]}, wanted {wanted[key]}"
            for key in sorted(real.keys() & wanted.keys())
            if real[key] != wanted[key]
        ]


def _cell(cell: Document) -> tuple[str, ...]:
    names = ("source", "destination", "protocol", "port", "family")
    return tuple(str(cell[name]) for name in names)


@contextlib.contextmanager
def ground(folder: Path) -> Iterator[Ground]:
    """All of it, admission in force; gone at the end."""
    with ExitStack() as stack:
        plane = stack.enter_context(ControlPlane())
        cluster = Cluster(plane, folder)
        stack.callback(cluster.stop)
        cluster.tenants.write_text(tenants(0))
        groups = ACCOUNT_GROUPS
        of_controllers = stack.enter_context(FaultProxy(plane, CONTROLLER, groups))
        of_nodes = stack.enter_context(FaultProxy(plane, "admin", ADMINS))
        cluster.kubeconfig = of_controllers.kubeconfig()
        controllers = [cluster.controller(*LEASE) for _ in range(2)]
        webhook = cluster.webhook()
        eventually(lambda: any(one.in_force() for one in controllers), "admission in force")
        lab = ApiLab(places(f"soak-{token_hex(3)}"), _run)
        stack.callback(lambda: lab("down"))
        done = lab.up(
            *("--kubeconfig", of_nodes.kubeconfig(), "--nodes", str(NODES)),
            *("-c", cluster.tenants),
        )
        if done.returncode:
            raise RuntimeError(f"the lab does not start: {done.stderr}")
        yield Ground(plane, cluster, (of_controllers, of_nodes), controllers, webhook, lab)
