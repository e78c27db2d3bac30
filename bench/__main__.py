"""`python -m bench [NAME]... [--scale smoke]`: runs benches, prints their tables, saves them."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from bench import BENCHES, load
from bench.measure import Comparison, Scale
from bench.report import markdown, save

CHECKOUT = Path(__file__).resolve().parents[1]
ENDED_BY_SIGTERM = 128 + signal.SIGTERM


def main() -> None:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="make bench", description="Benches beside a baseline.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES))
    parser.add_argument("--scale", type=Scale, choices=list(Scale), default=Scale.FULL)
    parser.add_argument("--output", type=Path, default=CHECKOUT / ".cache/bench")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHES):
        parser.error(
            f"no bench is called {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}"
        )
    # Labs and servers end with the blocks that started them, also when the bench is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(ENDED_BY_SIGTERM))
    found: list[Comparison] = []
    for name in arguments.names or BENCHES:
        print(f"## {name}\n", flush=True)
        for comparison in load(name)(arguments.scale):
            print(markdown(comparison), flush=True)
            found.append(comparison)
    stem = time.strftime("%Y%m%d-%H%M%S")
    print(f"saved: {save(found, arguments.output, stem)}")


if __name__ == "__main__":
    main()
