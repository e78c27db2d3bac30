"""What it takes an agent to have its programs: bytecode that the image brought, beside bcc.

Each sample is a process that imports the loader, and loads and pins once; compiling counts with the
process that compiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.measure import Comparison, Scale, Series, Turn, Unit, alternate, told_by
from enforcer.datapath import compilation, loader
from lab import machine

PATIENCE = 300.0
PART = "bench.parts.load_process"


def run(scale: Scale) -> Iterator[Comparison]:
    """In turns."""
    machine.check()
    with TemporaryDirectory(prefix="ringfence-bench-") as folder:
        shipped, none = Path(folder, "programs.json"), Path(folder, "none")
        shipped.write_bytes(compilation.compiled(loader.wanted()).to_json())
        last: dict[str, Mapping[str, float]] = {}

        def loading(name: str, path: Path) -> Turn:
            def turn() -> Sequence[float]:
                last[name] = told = told_by(PART, [str(path)], PATIENCE)
                return (told["seconds"],)

            return turn

        subjects = {"bcc compiles": none, "bytecode of the image": shipped}
        turns = {name: loading(name, path) for name, path in subjects.items()}
        samples = alternate(turns, scale.of(10, 1))
    yield Comparison(
        "The programs of a node, from nothing to pinned",
        tuple(
            Series(
                name,
                Unit.SECONDS,
                found,
                {
                    "processor": f"{last[name]['processor']:.1f} s",
                    "RSS": f"{last[name]['rss'] / 1000:.0f} MB",
                    "peak": f"{last[name]['peak'] / 1000:.0f} MB",
                },
            )
            for name, found in samples.items()
        ),
    )
