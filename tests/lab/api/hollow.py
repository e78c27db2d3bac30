"""Labs on an API server for tests: a lab with its own, and one that joins a plane of the testbed.

    with joined(ringfence, api, nodes=1) as lab:      # hollow nodes, agents and kubelets
        lab.kubectl("apply", "-f", "-", stdin=...)
        lab.reaches("app-test02/web", "app-test01/web", "80/TCP")

Whoever tests charts or policies with packets uses `joined`: webhook and controller are then theirs.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import TypeVar

import pytest

from generators.errors import MachineLacks
from lab import journal
from lab.api import users
from lab.names import places
from tests.conftest import Run, lacking
from tests.lab.conftest import Done, Lab
from tests.testbed.plane import ControlPlane
from tests.testbed.waiting import eventually, patience

UP_SECONDS = 150.0


@dataclass(frozen=True, slots=True)
class ApiLab(Lab):
    """A lab whose objects are on an API server."""

    def up(self, *arguments: str | Path) -> Done:
        """`ringfence lab up`, with the patience that starting a control plane needs."""
        name = ("--name", self.places.name)
        return self.run("lab", "up", *name, *arguments, timeout=UP_SECONDS)

    def try_kubectl(self, *arguments: str, stdin: str = "") -> Done:
        """What `ringfence lab kubectl` becomes, whatever it answers."""
        return subprocess.run(
            [str(users.kubectl()), *arguments],
            env=users.environment(self.places),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=patience(60),
            check=False,
        )

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """The same, and it has to succeed; what it printed."""
        done = self.try_kubectl(*arguments, stdin=stdin)
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def make(self, text: str, *pods: str) -> None:
        """Apply YAML, and wait until these pods (`namespace/name`) are ready."""
        applied = lambda: self.try_kubectl("apply", "-f", "-", stdin=text).returncode == 0  # noqa: E731
        # A namespace has its ServiceAccount, which pods need, a moment after it was made.
        eventually(applied, "kubectl apply", 30)
        for pod in pods:
            self.ready(pod)

    def ready(self, pod: str) -> None:
        """Wait until a pod is ready."""
        namespace, name = pod.split("/")
        wait = ("wait", "--for=condition=Ready", f"--timeout={patience(40):.0f}s", "-n", namespace)
        self.kubectl(*wait, f"pod/{name}")

    def becomes(self, verdict: str, source: str, destination: str, port: str = "80/TCP") -> None:
        """Wait until real connections fare like that, over both address families."""
        wanted = {verdict}
        what = f"{source} to {destination} {verdict}"
        eventually(lambda: self.reaches(source, destination, port) == wanted, what, 30)

    def pid(self, process: str) -> int:
        """The pid of one of the lab's processes."""
        return next(p["pid"] for p in self.status()["processes"] if p["name"] == process)

    def held(self) -> dict[str, journal.Sandbox]:
        """What the kubelets have made, by pod."""
        paths = sorted(self.places.run.glob("pods-*.json"))
        return {key: box for path in paths for key, box in journal.read(path).items()}


OneLab = TypeVar("OneLab", bound=ApiLab)


def skip_without(programs: Callable[[], object]) -> None:
    """Skip where this machine cannot have labs, or not the programs that `programs` asks for."""
    if lacking():
        pytest.skip(lacking())
    try:
        programs()
    except MachineLacks as lack:
        pytest.skip(f"testbed: {lack}")


@contextmanager
def fresh_lab(kind: type[OneLab], run: Run) -> Iterator[OneLab]:
    """A lab that is not up yet, taken down at the end."""
    lab = kind(places(f"t-{token_hex(4)}"), run)
    try:
        yield lab
    finally:
        lab("down")


@contextmanager
def joined(
    run: Run, plane: ControlPlane, *, nodes: int = 1, tenants: Path | None = None
) -> Iterator[ApiLab]:
    """Hollow nodes on a plane that runs already."""
    with fresh_lab(ApiLab, run) as lab:
        file: Sequence[str | Path] = () if tenants is None else ("-c", tenants)
        done = lab.up("--kubeconfig", plane.kubeconfig(), "--nodes", str(nodes), *file)
        assert done.returncode == 0, done.stderr
        yield lab


def nodes_of(plane: ControlPlane) -> list[str]:
    """The nodes that an API server knows."""
    listed = json.loads(plane.kubectl("get", "nodes", "-o", "json"))
    return [node["metadata"]["name"] for node in listed["items"]]


Make = Callable[[], ApiLab]
