"""The command as one file that needs Python 3.11 to 3.14 and nothing else, made by shiv.

Some dependencies have code for one platform and one Python. The modules of all Pythons have names
of their own, so they lie side by side, and there is one file for each platform.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from packaging.utils import canonicalize_name

from tools.release.tarballs import tar_gz

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS: Mapping[str, str] = {
    "darwin-arm64": "aarch64-apple-darwin",
    "linux-amd64": "x86_64-unknown-linux-gnu",
    "linux-arm64": "aarch64-unknown-linux-gnu",
}
"""Names as krew has them, and what uv calls them; cryptography has no wheel for Intel's Macs."""


def single_file(wheel: Path, lock: Path, platform: str) -> bytes:
    """The file for a platform (in uv's words), from the wheel and the versions of the lock."""
    with tempfile.TemporaryDirectory() as made:
        packages, file = Path(made, "packages"), Path(made, "ringfence")
        first, *others = PYTHONS
        _install(packages, platform, first, "--require-hashes", "-r", str(lock))
        some = Path(made, "compiled.lock")
        some.write_text("".join(_entries(lock.read_text(), _compiled(packages))))
        for python in others:
            # In a folder of its own: an installation removes what was there of the same package.
            more = Path(made, python)
            _install(more, platform, python, "--require-hashes", "-r", str(some))
            shutil.copytree(more, packages, dirs_exist_ok=True)
        _install(packages, platform, first, str(wheel))
        _without_traces(packages)
        _run(
            *("shiv", "--site-packages", str(packages), "--console-script", "ringfence"),
            *("--python", "/usr/bin/env python3", "--compressed", "--reproducible"),
            *("--output-file", str(file)),
        )
        return file.read_bytes()


def archive(path: Path, command: bytes, checkout: Path) -> Path:
    """The command and its licences as `.tar.gz`, as krew takes it."""
    licences = ("LICENSE", "bpf/LICENSE.GPL-2.0", "bpf/LICENSE.BSD-2-Clause")
    files = {"ringfence": command}
    files |= {Path(name).name: (checkout / name).read_bytes() for name in licences}
    path.write_bytes(tar_gz(files, frozenset({"ringfence"})))
    return path


def _install(packages: Path, platform: str, python: str, *what: str) -> None:
    _run(
        *("uv", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"),
        *("--python-platform", platform, "--python-version", python),
        *("--target", str(packages), "--link-mode", "copy", *what),
    )


def _compiled(packages: Path) -> frozenset[str]:
    """Packages with code for one platform, by name."""
    wheels = packages.glob("*.dist-info/WHEEL")
    return frozenset(
        canonicalize_name(path.parent.name.partition("-")[0])
        for path in wheels
        if "Root-Is-Purelib: false" in path.read_text()
    )


def _entries(lock: str, names: frozenset[str]) -> Iterator[str]:
    """The entries of a lock file for some packages, with their hashes."""
    for entry in re.split(r"(?m)^(?=[a-z0-9])", lock):
        if canonicalize_name(entry.partition("==")[0]) in names:
            yield entry


def _without_traces(packages: Path) -> None:
    """What an installation writes about itself, and differs from one to the next."""
    for path in packages.rglob("*"):
        traces = ("RECORD", "INSTALLER", "REQUESTED", "WHEEL", "direct_url.json", "uv_cache.json")
        if path.parent.suffix == ".dist-info" and path.name in traces:
            path.unlink()
    moment = int(os.environ["SOURCE_DATE_EPOCH"])
    for path in packages.rglob("*"):
        os.utime(path, (moment, moment))


def _run(program: str, *arguments: str) -> None:
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"release: {program} failed:\n{done.stdout}{done.stderr}")
