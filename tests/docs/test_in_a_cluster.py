"""The README's section "In a cluster", followed as it stands on a real API server."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from generators.errors import MachineLacks
from tests.testbed import build
from tests.testbed.plane import ControlPlane
from tests.testbed.processes import free_ports
from tests.testbed.waiting import patience

CHECKOUT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 150
ENDING = "trap 'kill $(jobs -p); wait' EXIT\n"


def _commands() -> str:
    section = re.search(
        r"^## In a cluster$(.*?)^## ",
        (CHECKOUT / "README.md").read_text(),
        re.DOTALL | re.MULTILINE,
    )
    assert section is not None
    return "\n".join(re.findall(r"```sh\n(.*?)```", section[1], re.DOTALL))


@pytest.fixture
def kubectl() -> Path:
    try:
        return build.ensure(build.KUBERNETES, lambda _: None) / "kubectl"
    except MachineLacks as lack:
        pytest.skip(f"testbed: {lack}")


@pytest.mark.cluster
@pytest.mark.timeout(TIMEOUT_SECONDS + 30)
def test_the_section_works_as_it_stands(kubectl: Path, tmp_path: Path) -> None:
    script = (
        _commands().replace("8443", str(free_ports(1)[0])).replace("/tmp/ringfence", str(tmp_path))
    )
    with ControlPlane() as plane:
        done = subprocess.run(
            ["bash", "-c", ENDING + script],
            cwd=CHECKOUT,
            env={
                **os.environ,
                "PATH": f"{kubectl.parent}:{CHECKOUT / '.venv/bin'}:{os.environ['PATH']}",
                "KUBECONFIG": str(plane.kubeconfig()),
                "KUBECACHEDIR": str(tmp_path / "kubectl-cache"),
            },
            capture_output=True,
            text=True,
            timeout=patience(TIMEOUT_SECONDS),
            check=False,
        )
    assert re.search(r"^app-test01 +Active +\S+ +test01$", done.stdout, re.MULTILINE), done
    assert re.search(r"^allow-ingress-namespace ", done.stdout, re.MULTILINE), done
    refusals = re.findall(r"^Error from server \(Forbidden\): .*$", done.stderr, re.MULTILINE)
    assert len(refusals) == 2, done.stderr
    assert "changing label client from test01 to test02 is refused" in refusals[0]
    assert "NetworkPolicy app-test01/allow-ingress-namespace is generated from" in refusals[1]
