"""The real helm, 3 and 4, with folders of its own: nothing of the user's helm is read or written.

    helm.run("install", "shop", CHART, namespace="team-a")     # what it prints
    helm.attempt("install", ...).stderr                        # where a refusal is expected

Both majors are told apart by `helm.major`; where their flags differ, this file knows it.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from tests.testbed import build
from tests.testbed.plane import ControlPlane
from tests.testbed.waiting import patience

SECONDS = 400.0
ADMINS = ("system:masters",)
Done = subprocess.CompletedProcess[str]


class Major(Enum):
    """Releases of helm that people run."""

    V3 = "helm3"
    V4 = "helm4"

    @property
    def product(self) -> build.Product:
        """How the testbed makes it."""
        return build.HELM3 if self is Major.V3 else build.HELM

    @property
    def undo_on_failure(self) -> str:
        """The flag that takes a failed install away again, and goes back after a failed upgrade."""
        return "--atomic" if self is Major.V3 else "--rollback-on-failure"


def said(done: Done) -> str:
    """All its words; helm 4 prints a hook's output as a log message, in escaped quotes."""
    return (done.stdout + done.stderr).replace('\\"', '"').replace("\\n", "\n")


@dataclass(frozen=True, slots=True)
class Helm:
    """One helm, as one user of one API server; without an API server only for templates."""

    major: Major
    program: Path
    home: Path
    plane: ControlPlane | None = None
    user: str = "admin"
    groups: Sequence[str] = ADMINS

    def by(self, user: str, *groups: str) -> Helm:
        """The same helm in another person's hands."""
        return Helm(self.major, self.program, self.home, self.plane, user, groups)

    def at(self, plane: ControlPlane) -> Helm:
        """The same helm for another API server."""
        return Helm(self.major, self.program, self.home, plane, self.user, self.groups)

    def run(self, *arguments: str | Path, namespace: str = "default", stdin: str = "") -> str:
        """What it prints; fails with its stderr."""
        done = self.attempt(*arguments, namespace=namespace, stdin=stdin)
        assert done.returncode == 0, f"helm {' '.join(map(str, arguments))}:\n{done.stderr}"
        return done.stdout

    def attempt(self, *arguments: str | Path, namespace: str = "default", stdin: str = "") -> Done:
        """The same for what is expected to be refused."""
        command = [str(self.program), *map(str, arguments), "--namespace", namespace]
        return subprocess.run(
            command,
            env=self._environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=patience(SECONDS),
            check=False,
        )

    def template(self, release: str, chart: Path, *arguments: str, namespace: str = "team") -> str:
        """The rendered chart, hooks included."""
        return self.run("template", release, chart, *arguments, namespace=namespace)

    def values(self, values: Mapping[str, object]) -> list[str]:
        """Values as arguments, whatever their types: a file that later calls may read again."""
        content = json.dumps(values, sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()[:12]
        path = self.home / f"values-{digest}.json"
        path.write_text(content)
        return ["--values", str(path)]

    def _environment(self) -> dict[str, str]:
        folders = {
            f"HELM_{kind}_HOME": str(self.home / kind.lower())
            for kind in ("CACHE", "CONFIG", "DATA")
        }
        config = self.home / "no-kubeconfig"
        if self.plane is not None:
            config = self.plane.kubeconfig(self.user, self.groups)
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.home),
            "KUBECONFIG": str(config),
            **folders,
        }
