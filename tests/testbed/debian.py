"""Debian packages, fetched and unpacked into a cache: nothing is installed.

Asked by the kernels (tests/kernels) and for real nodes (`python -m tests.testbed node`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from generators.errors import MachineLacks

Say = Callable[[str], None]


def unpacked(package: str, folder: Path, say: Say) -> Path:
    """The folder with a package's files; fetched first where it is not there."""
    if folder.is_dir():
        return folder
    work = folder.with_name(f"{folder.name}.{os.getpid()}")
    work.mkdir(parents=True)
    try:
        say(f"debian: fetching {package}")
        run("apt-get", "download", "-qq", package, cwd=work)
        (archive,) = work.glob("*.deb")
        run("dpkg-deb", "--extract", str(archive), str(work))
        archive.unlink()
        if not folder.is_dir():
            work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def run(*command: str, cwd: Path | None = None) -> str:
    """What a command of Debian's prints; MachineLacks where it is not there, or refuses."""
    if shutil.which(command[0]) is None:
        raise MachineLacks(f"{command[0]} is not installed", "run this on Debian")
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MachineLacks(
            f"`{' '.join(command)}` failed: {done.stderr.strip()[-500:]}",
            "have this machine reach Debian's archive, and run apt-get update",
        )
    return done.stdout
