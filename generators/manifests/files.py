"""The files that a path on the command line stands for: a file, a directory, standard input.

Used by every reader of manifests and policies. A file that is named twice is read once; what cannot
be read becomes a Problem, and the others are still read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from generators.documents.yaml import MAX_BYTES
from generators.errors import Problem

STDIN = "-"
SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(slots=True)
class Files:
    """Reads paths, and remembers what it has read."""

    problems: list[Problem] = field(default_factory=list)
    seen: set[Path] = field(default_factory=set)

    def contents(self, path: str) -> Iterator[tuple[str, bytes]]:
        """(name, content) of every file that `path` stands for."""
        if path == STDIN:
            yield STDIN, sys.stdin.buffer.read(MAX_BYTES + 1)
            return
        where = Path(path)
        try:
            files = [where]
            if where.is_dir():
                files = sorted(p for p in where.rglob("*") if _is_manifest(p.relative_to(where), p))
            for file in files:
                if self._again(file):
                    continue
                with file.open("rb") as stream:
                    yield str(file), stream.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            problem = Problem(path, 1, "", f"cannot be read: {reason}", "check the path")
            self.problems.append(problem)

    def _again(self, file: Path) -> bool:
        """Whether a file was read before: by its folder and again by its name."""
        real = file.resolve()
        if not real.is_file():
            return False
        before = real in self.seen
        self.seen.add(real)
        return before


def _is_manifest(below: Path, file: Path) -> bool:
    """Hidden files are left out: a mounted ConfigMap keeps its older contents in hidden folders."""
    hidden = any(part.startswith(".") for part in below.parts)
    return not hidden and file.suffix in SUFFIXES and file.is_file()
