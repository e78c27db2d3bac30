"""Loads the programs once, as an agent does at its start, and prints the cost as JSON.

`python -m bench.parts.load_process SHIPPED`: the bytecode that lies there, if any; nothing is kept
in the cache, and nothing stays pinned.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

from enforcer.datapath import attach, loader


def main() -> None:
    """Seconds to programs that are pinned, RSS then, the largest of any process on the way, and
    the processor time of all of it.
    """
    loader.SHIPPED = Path(sys.argv[1])
    loader.CACHE = Path("/dev/null/none")  # where nothing can be kept
    directory = loader.BPF_FS / f"ringfence-bench-{os.getpid()}"
    try:
        start = time.perf_counter()
        loader.ensure_loaded(directory)
        seconds = time.perf_counter() - start
        status = Path("/proc/self/status").read_text()
        rss = int(status.split("VmRSS:")[1].split()[0])
    finally:
        attach.uninstall(directory)
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    used = [resource.getrusage(who) for who in whose]
    peak = max(found.ru_maxrss for found in used)
    processor = sum(found.ru_utime + found.ru_stime for found in used)
    told = {"seconds": seconds, "rss": rss, "peak": peak, "processor": processor}
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
