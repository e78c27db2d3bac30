"""Debian 12 as debootstrap leaves it, with make and git: both commands of the README, from a clone.

The registry of Python packages has something newer of each than the locks name.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.index import NEWER, Registry, serving
from tests.images.following import LOCKS, wheels
from tests.testbed.waiting import patience

pytestmark = [pytest.mark.bpf, pytest.mark.slow, pytest.mark.timeout(1800)]
INSIDE = """\
set -e
mount --make-rprivate /
mount --bind {root} {root}
mount -t proc proc {root}/proc
mount --rbind /sys {root}/sys
mount --rbind /dev {root}/dev
mount -t tmpfs tmpfs {root}/run
mkdir -p {root}/run/lock
cp /etc/resolv.conf {root}/etc/resolv.conf
exec chroot {root} env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \\
  PIP_INDEX_URL={index} PIP_NO_CACHE_DIR=1 sh -ec "$1"
"""
"""What is mounted goes with the namespaces, and so does every process."""
CLONE = "/root/ringfence"


class Machine:
    """Its root, and the registry that it asks."""

    def __init__(self, root: Path, index: str) -> None:
        self._root = root
        self._index = index

    def run(self, script: str) -> str:
        """What a script says in the clone, on both outputs; it must succeed."""
        words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c"]
        inside = INSIDE.format(root=self._root, index=self._index)
        done = subprocess.run(
            [*words, inside, "sh", f"cd {CLONE} && {script}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=patience(900),
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout


@pytest.fixture(scope="module")
def machine(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    root = tmp_path_factory.mktemp("debian")
    brought = "--include=make,git,ca-certificates"
    made = ["debootstrap", "--variant=minbase", brought, "bookworm", str(root)]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL, timeout=patience(900))
    clone = ["git", "clone", "--quiet", str(checkout), str(root) + CLONE]
    subprocess.run(clone, check=True, timeout=patience(60))
    folder = wheels(
        *LOCKS, "requirements-test.lock", "requirements-testbed.lock", "requirements-proxy.lock"
    )
    with serving(Registry.of_files(folder)) as index:
        yield Machine(root, index)


def test_the_demo_is_played_to_its_end_twice(machine: Machine) -> None:
    told = machine.run("make demo")
    assert "The end" in told
    assert NEWER not in machine.run(".venv/bin/python -m pip list --local")
    again = machine.run("make demo")
    assert "setup:" not in again, "nothing is missing any more"
    assert "The end" in again


def test_tests_run(machine: Machine) -> None:
    """Some of them: this test is about what they need."""
    told = machine.run(
        'make test PYTEST="-q tests/generators/test_selectors.py tests/bpf/test_icmp.py"'
    )
    assert " passed" in told
    assert "skipped" not in told
    assert NEWER not in machine.run(".venv/bin/python -m pip list --local")
