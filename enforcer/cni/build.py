"""Builds the CNI plugin from its C source: `python -m enforcer.cni.build [TARGET]`.

`make setup` and the image run it; the agent copies the result into the node's plugin directory.
Without TARGET it is written beside its source, outside the repository and the wheel. Nothing is
done if the result is newer than every source.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from generators.errors import MachineLacks, RingfenceError

PLUGIN = "ringfence-cni"
FOLDER = Path(__file__).resolve().parent
SOURCES = (FOLDER / "ringfence-cni.c", FOLDER / "ask.h", FOLDER / "scan.h")
BUILT = FOLDER / PLUGIN
FLAGS = ("-std=gnu11", "-O2", "-static", "-s")


class BuildFailed(RingfenceError):
    """The compiler refused the source."""

    exit_code = 1


def find() -> Path:
    """The plugin of this installation; MachineLacks where it was not built."""
    if not BUILT.exists():
        raise MachineLacks(
            f"the CNI plugin is not built ({BUILT})",
            "run `make setup`, or `python -m enforcer.cni.build` where gcc and libc6-dev are",
        )
    return BUILT


def build(target: Path = BUILT) -> Path:
    """Compile the plugin unless `target` is newer than its sources; appears whole or not at all."""
    if target.exists() and all(s.stat().st_mtime < target.stat().st_mtime for s in SOURCES):
        return target
    unfinished = target.with_name(f"{target.name}.{os.getpid()}")
    command = ["gcc", *FLAGS, "-o", str(unfinished), str(SOURCES[0])]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MachineLacks("gcc is not installed", "apt-get install gcc libc6-dev") from None
    if finished.returncode != 0:
        unfinished.unlink(missing_ok=True)
        raise BuildFailed(f"the CNI plugin does not compile:\n{finished.stderr.strip()}")
    unfinished.replace(target)
    return target


def main() -> int:
    """Build for a shell; errors go to stderr, with their exit code."""
    try:
        path = build(*(Path(argument).resolve() for argument in sys.argv[1:2]))
    except RingfenceError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
