"""`python -m tests.kernels [SERIES...]`: Ringfence on Debian's own kernels, and on this machine's.

Prints one line a kernel and ends with 1 when one of them does not load the programs, cannot hang
them on an interface or answers differently from the reference evaluator; with 3 where this machine
lacks something.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from generators.errors import MachineLacks, RingfenceError
from tests.kernels import guest, packages, unified
from tests.kernels.guest import CHECKOUT, Asked
from tests.kernels.inside import EXAMPLE

HERE = "here"
"""This machine's kernel, without an emulator."""


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def ask(series: str, work: Path) -> Asked:
    """One kernel's answers."""
    if series != HERE:
        return guest.ask(packages.kernel(series, _say), work / series, _say)
    bytecode = work / guest.BYTECODE
    guest.build(bytecode)
    return Asked.read(_output(sys.executable, "-m", "tests.kernels.inside", str(bytecode)))


def expected() -> object:
    """The cells that the reference evaluator answers."""
    files = ("-c", f"{EXAMPLE}/tenants.yaml", "-f", f"{EXAMPLE}/cluster.yaml")
    command = Path(sys.executable).with_name("ringfence")
    return json.loads(_output(str(command), "matrix", "-o", "json", *files))["cells"]


def _output(*words: str) -> str:
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise guest.GuestFailed(f"`{' '.join(words)}` failed:\n{done.stderr}")
    return done.stdout


def is_right(asked: Asked, cells: object) -> bool:
    """Whether a kernel answers as it should; its control groups may be of version 1."""
    return asked.unified in (None, unified.WELL) and asked.cells == cells


def line(asked: Asked, *, right: bool) -> str:
    """A kernel's answers for people."""
    steps = ", ".join(f"{name} {count}" for name, count in asked.steps.items())
    there = "matrix" if asked.unified is None else "matrix, pod in control groups of version 2"
    answer = "as it should be" if right else f"NOT as it should be (pod: {asked.unified})"
    return f"{asked.release}: loads (verifier: {steps} steps), {asked.attached}; {there}: {answer}"


def main() -> int:
    """Ask the kernels that were named, or all."""
    # `kill` ends the guest too, and Ctrl-C even where a shell started this in the background.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    wanted = sys.argv[1:] or [*packages.SERIES, HERE]
    failed = False
    try:
        if wanted != [HERE]:
            guest.check()
        cells = expected()
        with tempfile.TemporaryDirectory(prefix="ringfence-kernels-") as work:
            for series in wanted:
                asked = ask(series, Path(work))
                right = is_right(asked, cells)
                failed = failed or not right
                print(line(asked, right=right), flush=True)
    except MachineLacks as lack:
        _say(f"kernels: {lack}")
        return lack.exit_code
    except RingfenceError as error:
        _say(f"kernels: {error}")
        return 1
    except KeyboardInterrupt:
        _say("kernels: stopped")
        return 130
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
