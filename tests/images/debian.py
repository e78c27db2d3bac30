"""Folders that hold exactly some Debian packages, made from those that this machine has.

`base` is what a slim Debian image holds; `closure` adds what packages need. Nothing is downloaded,
and no maintainer script runs: a package that this machine lacks, or has in another version than
asked for, is an error.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from tests.testbed.waiting import ended, ending

FORMAT = "\t".join(
    f"${{{field}}}"
    for field in (
        *("Package", "Version", "db:Status-Status", "Essential", "Priority"),
        *("Provides", "Pre-Depends", "Depends"),
    )
)


class Lacking(AssertionError):
    """This machine does not have a package as the Dockerfile names it."""


@dataclass(frozen=True, slots=True)
class Package:
    version: str
    base: bool
    provides: frozenset[str]
    needs: tuple[tuple[str, ...], ...]
    """Each a choice of names."""


def _names(text: str) -> list[str]:
    return [re.split(r"[ :(]", part.strip())[0] for part in text.split(",") if part.strip()]


@cache
def installed() -> dict[str, Package]:
    """All packages of this machine."""
    listing = subprocess.run(
        ["dpkg-query", "-W", "-f", FORMAT + "\n"], capture_output=True, text=True, check=True
    ).stdout
    found = {}
    for line in listing.splitlines():
        name, version, status, essential, priority, provides, before, depends = line.split("\t")
        if status != "installed":
            continue
        needs = [tuple(_names(c.replace("|", ","))) for c in f"{before},{depends}".split(",")]
        base = essential == "yes" or priority == "required" or name == "apt"
        found[name] = Package(
            version, base, frozenset(_names(provides)), tuple(n for n in needs if n)
        )
    return found


def base() -> set[str]:
    """What is in a slim image before anything is installed."""
    return closure(name for name, package in installed().items() if package.base)


def check_pin(pin: str) -> str:
    """The name of `name=version`, if this machine's version is one that the pin allows."""
    name, _, wanted = pin.partition("=")
    package = installed().get(name)
    if package is None:
        raise Lacking(f"{name} is not installed here; apt-get install {name}")
    if not fnmatchcase(package.version, wanted):
        raise Lacking(f"{pin}: this machine has {package.version}")
    return name


def closure(names: Iterable[str]) -> set[str]:
    """The packages and all that they depend on."""
    packages = installed()
    providers = {p: name for name, package in packages.items() for p in package.provides}
    found: set[str] = set()
    queue = list(names)
    while queue:
        name = queue.pop()
        if name in found:
            continue
        found.add(name)
        for choice in packages[name].needs:
            real = [
                c if c in packages else providers[c] for c in choice if c in packages | providers
            ]
            queue += real[:1]
    return found


def unpack(names: Iterable[str], root: Path) -> None:
    """Put the files of packages below `root`, as they are on this machine."""
    for merged in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / merged).mkdir(parents=True, exist_ok=True)  # what /bin and so on point to
    listing = subprocess.run(
        ["dpkg-query", "-L", *sorted(names)], capture_output=True, text=True, check=True
    ).stdout
    paths = {line for line in listing.splitlines() if line.startswith("/") and line != "/."}
    present = sorted(p[1:] for p in paths if Path(p).exists() or Path(p).is_symlink())
    pack = ["tar", "-C", "/", "--create", "--no-recursion", "--null", "--files-from=-"]
    into = ["tar", "-C", str(root), "--extract", "--keep-directory-symlink", "-p"]
    with ending(subprocess.Popen(pack, stdin=subprocess.PIPE, stdout=subprocess.PIPE)) as packing:
        assert packing.stdin is not None
        with ending(subprocess.Popen(into, stdin=packing.stdout)) as extracting:
            packing.stdin.write("\0".join(present).encode())
            packing.stdin.close()
            assert ended(extracting, 120) == 0
