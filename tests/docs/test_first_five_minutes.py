"""What a stranger types first on manifests of a demo shop, as docs/ci.md has it; prints times."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT, COMMAND
from tests.testbed.waiting import patience

LAYOUT = CHECKOUT / "tests" / "generators" / "layouts" / "plain" / "deploy" / "kubernetes"
STRANGER = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: visitor, namespace: sandbox}
spec: {template: {metadata: {labels: {app: visitor}}, spec: {containers: []}}}
"""


def commands() -> list[str]:
    """The lines of the page; what a here-document holds goes with its command."""
    page = (CHECKOUT / "docs" / "ci.md").read_text()
    section = page.partition("## The first five minutes")[2]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return re.findall(r"^(?:cat (?:.|\n)*?\nEND|.+)$", block[1], re.MULTILINE)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    shutil.copytree(LAYOUT / "manifests", tmp_path / "manifests")
    (tmp_path / "manifests" / "sandbox.yaml").write_text(STRANGER)
    return tmp_path


def test_the_first_five_minutes(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environment = {**os.environ, "PATH": f"{COMMAND.parent}:{os.environ['PATH']}"}
    told: dict[str, str] = {}
    took: list[tuple[float, str]] = []
    for command in commands():
        began = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=repository,
            env=environment,
            capture_output=True,
            text=True,
            timeout=patience(50),
            check=False,
        )
        took.append((time.monotonic() - began, command.splitlines()[0]))
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        told[command] = done.stdout
    with capsys.disabled():
        lines = [f"  {seconds:5.1f} s  {command}" for seconds, command in took]
        total = sum(seconds for seconds, _ in took)
        print("\nthe first five minutes took", f"{total:.0f} s:", *lines, sep="\n")
    before, after = (text for line, text in told.items() if line.startswith("ringfence matrix"))
    row = "sandbox/deployment/visitor"
    assert next(line for line in before.splitlines() if row in line).count("✗") == 0
    assert next(line for line in after.splitlines() if row in line).count("✗") == 4
    answers = {line.split()[1]: text for line, text in told.items()}
    assert answers["test"] == "2 passed, 0 failed\n"
    assert answers["trace"].splitlines()[-1] == "Verdict: FORWARDED"
    assert "Create  NetworkPolicy sock-shop/allow-ingress-namespace" in answers["plan"]
