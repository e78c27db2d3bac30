"""What a kernel is asked, wherever it runs: do the programs load, how do they hang on an interface,
does `matrix --engine kernel` of the example come out, and how does a kubelet's pod fare in control
groups of version 2. Prints one JSON object.

`python -m tests.kernels.inside BYTECODE`: loads what `enforcer.datapath.build` wrote there, as a
node does with what its image brings; there is no bcc.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from enforcer.datapath import attach, kernel, loader
from lab.netns import CLONE_NEWNET

EXAMPLE = Path("examples/two-clients")
AS_ON_A_NODE = (
    "import sys; from pathlib import Path; from enforcer.datapath import loader; "
    "sys.modules['bcc'] = None; loader.SHIPPED = Path(sys.argv.pop(1)); "
)


def steps(pins: Path) -> dict[str, int]:
    """What the verifier took for each program."""
    found = {}
    for name in loader.PROGRAMS:
        with kernel.open_pin(pins / name) as program:
            found[name] = kernel.program_info(program.fd).steps
    return found


def hook(pins: Path) -> str:
    """Put the programs on a veth, and say in which way they are there."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    _say("ip", "link", "add", "outer", "type", "veth", "peer", "name", "inner")
    attach.attach(pins, "outer")
    return str(attach.attached(pins, "outer"))


def matrix(bytecode: str) -> object:
    """The cells of the example."""
    files = ("-c", f"{EXAMPLE}/tenants.yaml", "-f", f"{EXAMPLE}/cluster.yaml")
    code = AS_ON_A_NODE + "from generators.cli import main; main()"
    words = ("matrix", "--engine", "kernel", "-o", "json", *files)
    return json.loads(_say(sys.executable, "-c", code, bytecode, *words))["cells"]


def _asked(module: str, *words: str) -> object:
    """What another module found out, or how it ended; why is on the console."""
    command = [sys.executable, "-m", module, *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else f"ended with {done.returncode}"


def _say(*words: str) -> str:
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def main() -> None:
    """Ask this kernel."""
    bytecode = sys.argv[1]
    loader.SHIPPED = Path(bytecode)
    sys.modules["bcc"] = None  # type: ignore[assignment]
    pin_dir = loader.BPF_FS / f"ringfence-kernels-{os.getpid()}"
    try:
        pins = loader.ensure_loaded(pin_dir)
        found = {
            "release": platform.release(),
            "steps": steps(pins),
            "attached": hook(pins),
            "cells": matrix(bytecode),
            "unified": _asked("tests.kernels.unified"),
        }
    finally:
        attach.uninstall(pin_dir)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
