"""The cgroups below which the pods of a real node are: made beforehand, removed at the end.

Both generations are handled: v1 has a tree for each controller, v2 one for all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
INHERITED = ("cpuset.cpus", "cpuset.mems")
"""Empty in a new cgroup of v1, and nothing can run in it then."""
CONTROLLERS = ("cpu", "cpuset", "hugetlb", "io", "memory", "pids")


def make(name: str) -> None:
    """Have a cgroup of that name in every hierarchy."""
    for tree in _trees():
        folder = tree / name
        folder.mkdir(exist_ok=True)
        for setting in INHERITED:
            if (folder / setting).exists() and (tree / setting).exists():
                (folder / setting).write_text((tree / setting).read_text())
    if _unified():
        there = (ROOT / "cgroup.controllers").read_text().split()
        wanted = " ".join(f"+{name}" for name in CONTROLLERS if name in there)
        (ROOT / "cgroup.subtree_control").write_text(wanted)


def remove(name: str) -> None:
    """Remove it with all that is below; what still has processes stays."""
    for tree in _trees():
        folder = tree / name
        if not folder.is_dir():
            continue
        below = sorted((p for p in folder.rglob("*") if p.is_dir()), key=_depth, reverse=True)
        for path in (*below, folder):
            with contextlib.suppress(OSError):
                path.rmdir()


def left(name: str) -> list[Path]:
    """Where it still is."""
    return [tree / name for tree in _trees() if (tree / name).is_dir()]


def process_of(name: str, uid: str) -> int | None:
    """A process of the pod with that UID below the cgroup, by its number on this machine."""
    tree = ROOT if _unified() else ROOT / "pids"
    for folder in (tree / name).glob(f"kubepods/**/pod{uid}"):
        for path in sorted(folder.glob("*/cgroup.procs")):
            for line in path.read_text().split():
                return int(line)
    return None


def _trees() -> Iterator[Path]:
    if _unified():
        yield ROOT
    elif ROOT.is_dir():
        yield from sorted(
            path for path in ROOT.iterdir() if path.is_dir() and not path.is_symlink()
        )


def _unified() -> bool:
    return (ROOT / "cgroup.controllers").exists()


def _depth(path: Path) -> int:
    return len(path.parts)
