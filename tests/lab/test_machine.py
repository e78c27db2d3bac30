"""A machine that lacks something: exit 3, with what and how, and nothing was made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import COMMAND, Run
from tests.lab.builders import CLUSTER
from tests.testbed.waiting import patience

NOBODY = 65534
UP = ("lab", "up", "-f", str(CLUSTER))

# Nobody, who may read everything: the checkout may well lie in root's home.
AS_NOBODY = (
    "setpriv",
    f"--reuid={NOBODY}",
    "--clear-groups",
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=patience(50), check=False
    )


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 3, done.stderr
    for word in (*words, "ringfence matrix"):
        assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


@as_root
@pytest.mark.parametrize("command", [UP, ("lab", "demo")], ids=["up", "demo"])
def test_without_root_the_lab_says_so_and_offers_the_evaluator(command: tuple[str, ...]) -> None:
    refused(run(*AS_NOBODY, str(COMMAND), *command), "root", "sudo")


@as_root
def test_looking_at_labs_needs_root_too() -> None:
    for command in ("status", "down", "probe"):
        done = run(*AS_NOBODY, str(COMMAND), "lab", command)
        assert done.returncode == 3, done.stderr


@as_root
def test_without_bcc_the_lab_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['bcc'] = None; "
        f"sys.argv = ['ringfence', *{list(UP)!r}]; "
        "from generators.cli import main; main()"
    )
    refused(run(sys.executable, "-c", program), "bcc", "python3-bpfcc")


@as_root
def test_without_kernel_headers_the_lab_says_what_to_install() -> None:
    hide = 'mount -t tmpfs none /lib/modules && exec "$0" "$@"'
    done = run("unshare", "--mount", "sh", "-c", hide, str(COMMAND), *UP)
    refused(done, "headers", "linux-headers-amd64")


def test_help_needs_nothing(ringfence: Run, tmp_path: Path) -> None:
    done = ringfence("lab", "--help", cwd=tmp_path)
    assert done.returncode == 0
    for command in ("up", "apply", "delete", "get", "probe", "exec", "status", "down", "demo"):
        assert f"  {command} " in done.stdout
