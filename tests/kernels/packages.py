"""Debian's kernels, fetched as packages and unpacked into a cache: nothing is installed.

A kernel is asked for by its series, as `6.1`, and the newest package that the machine's package
lists have of it is taken. Modules are listed with what they need from what they say themselves,
because the index of a package's modules is made where it is installed.
"""

from __future__ import annotations

import lzma
import os
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from generators.errors import MachineLacks
from tests.testbed import debian
from tests.testbed.debian import Say

SERIES = ("6.1", "6.12")
"""Those of Debian 12, and of its backports and Debian 13."""
BUSYBOX = "busybox-static"
ARCHITECTURES = {"x86_64": "amd64"}
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


@dataclass(frozen=True, slots=True)
class Unpacked:
    """One kernel: its release, as `uname -r` says it, and where its package was unpacked."""

    release: str
    folder: Path

    @property
    def image(self) -> Path:
        """The kernel itself."""
        return self.folder / "boot" / f"vmlinuz-{self.release}"


def cache_root() -> Path:
    """`$XDG_CACHE_HOME/ringfence/kernels`."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "ringfence" / "kernels"


def newest(series: str, names: Iterable[str]) -> str:
    """The newest package of a series among names of packages; empty where there is none."""
    of_series = re.compile(rf"linux-image-{re.escape(series)}\.\d+(-\d+|\+deb\d+)-amd64")
    found = [name for name in names if of_series.fullmatch(name)]
    return max(found, key=lambda name: [int(n) for n in re.findall(r"\d+", name)], default="")


def kernel(series: str, say: Say) -> Unpacked:
    """The newest kernel of a series, fetched where it is not in the cache."""
    if platform.machine() not in ARCHITECTURES:
        raise MachineLacks(f"no kernels for {platform.machine()} here", "run this on x86_64")
    listed = debian.run("apt-cache", "search", "--names-only", "^linux-image-").splitlines()
    package = newest(series, (line.split(" ")[0] for line in listed))
    if not package:
        raise MachineLacks(
            f"the package lists of this machine have no kernel {series} of Debian",
            "add bookworm-backports, or Debian 13, to apt's sources and run apt-get update",
        )
    return Unpacked(package.removeprefix("linux-image-"), unpacked(package, say))


def unpacked(package: str, say: Say) -> Path:
    """Where a package is unpacked; fetched first where it is not in the cache."""
    return debian.unpacked(package, cache_root() / package, say)


def modules(root: Path, wanted: Iterable[str]) -> list[Path]:
    """The files of modules below `root`, each after what it needs; built-in ones have none."""
    files = {_name(path): path for path in root.rglob("*.ko*")}
    found: dict[str, Path] = {}

    def add(name: str) -> None:
        path = files.get(name)
        if path is None or name in found:
            return
        said = _DEPENDS.search(read(path))
        for needed in said[1].decode().split(",") if said else ():
            add(needed)
        found[name] = path

    for name in wanted:
        add(name)
    return list(found.values())


def read(module: Path) -> bytes:
    """A module as the kernel takes it."""
    raw = module.read_bytes()
    return lzma.decompress(raw) if module.suffix == ".xz" else raw


def _name(path: Path) -> str:
    return path.name.partition(".ko")[0].replace("-", "_")
