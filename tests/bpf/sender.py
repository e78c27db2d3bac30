"""Sends frames through pinned programs until its input ends: `python -m tests.bpf.sender PINS`.

Frames come as one line of JSON: [program, ifindex, hex]. Nothing leaves the machine, or any
interface. What came of them is in the maps; the output is how many there were.
"""

from __future__ import annotations

import json
import os
import select
import sys
from contextlib import ExitStack
from pathlib import Path

from enforcer.datapath import kernel

REPEAT = 8
"""Runs of one frame for each system call."""


def main(pins: Path) -> None:
    """See the module."""
    frames = [(name, ifindex, bytes.fromhex(text)) for name, ifindex, text in json.loads(input())]
    sent = 0
    os.nice(5)  # what changes is to come through
    with ExitStack() as stack:
        programs = {
            name: stack.enter_context(kernel.open_pin(pins / name))
            for name in ("to_pod", "from_pod")
        }
        while not select.select([sys.stdin], [], [], 0)[0]:
            for name, ifindex, frame in frames:
                context = kernel.SkbContext(ifindex=ifindex, ingress_ifindex=ifindex)
                kernel.test_run(programs[name].fd, frame, context, REPEAT)
                sent += REPEAT
    sys.stdout.write(f"{sent}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
