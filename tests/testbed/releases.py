"""`make apiservers`: what the tests ask of an API server, on the oldest and the newest release.

Called by `python -m tests.testbed releases`. The oldest is what the charts ask for (kubeVersion),
the newest the last one published when its go.mod was written. Each is built like the testbed's own
(build.py) and handed to pytest in KUBEBUILDER_ASSETS.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from generators.errors import RingfenceError
from lab.api.assets import SOURCES, kubernetes, kubernetes_release
from tests.testbed.build import Say, ensure

__all__ = ["UnknownRelease", "check", "modules"]

PREFIX = "kubernetes-"


class UnknownRelease(RingfenceError):
    """No go.mod for a release that was named."""

    exit_code = 2


def modules(wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """The Go modules of the releases beside the testbed's own, the newest first; `1.30` picks one.

    UnknownRelease when one that is wanted has no module.
    """
    there = {folder.name.removeprefix(PREFIX): folder.name for folder in SOURCES.glob(f"{PREFIX}*")}
    for series in wanted:
        if series not in there:
            raise UnknownRelease(f"no API server {series}; there are: {', '.join(sorted(there))}")
    return tuple(there[series] for series in sorted(wanted or there, reverse=True))


def check(wanted: Sequence[str], pytest: Sequence[str], say: Say) -> int:
    """Run pytest with these arguments on each release; 1 when one of them fails, all having run."""
    code = 0
    for module in modules(wanted):
        release = kubernetes_release(module)
        programs = ensure(kubernetes(module), say)
        say(f"testbed: tests on Kubernetes {release}")
        done = subprocess.run(
            [Path(sys.executable).with_name("pytest"), *pytest],
            env=os.environ | {"KUBEBUILDER_ASSETS": str(programs)},
            check=False,
        )
        say(f"testbed: Kubernetes {release}: {'FAILED' if done.returncode else 'passed'}")
        code |= int(bool(done.returncode))
    return code
