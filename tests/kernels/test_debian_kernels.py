"""Ringfence on the kernels that Debian ships; what is fetched and booted, and what they answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from generators.errors import MachineLacks
from tests.kernels import packages
from tests.kernels.__main__ import ask, expected
from tests.kernels.packages import SERIES, newest
from tests.kernels.unified import WELL

NAMES = (
    "linux-image-6.1.0-9-amd64",
    "linux-image-6.1.0-57-amd64",
    "linux-image-6.1.0-57-cloud-amd64",
    "linux-image-6.1.0-57-amd64-dbg",
    "linux-image-6.1-amd64",
    "linux-image-6.12.9+deb12-amd64",
    "linux-image-6.12.111+deb12-amd64",
    "linux-image-6.12.111+deb12-rt-amd64",
)


@pytest.mark.parametrize(
    ("series", "package"),
    [
        ("6.1", "linux-image-6.1.0-57-amd64"),
        ("6.12", "linux-image-6.12.111+deb12-amd64"),
        ("6.18", ""),
    ],
)
def test_the_newest_ordinary_kernel_of_a_series_is_taken(series: str, package: str) -> None:
    assert newest(series, NAMES) == package


def module(path: Path, needs: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x7fELF\0license=GPL\0depends=" + needs.encode() + b"\0name=x\0")


def test_modules_come_after_what_they_need(tmp_path: Path) -> None:
    module(tmp_path / "fs" / "9p.ko", "9pnet,netfs")
    module(tmp_path / "net" / "9pnet.ko", "")
    module(tmp_path / "net" / "9pnet_virtio.ko", "virtio,9pnet")
    module(tmp_path / "fs" / "netfs.ko", "")
    module(tmp_path / "other" / "unused-module.ko", "")
    found = packages.modules(tmp_path, ("9pnet_virtio", "built_in", "9p", "unused_module"))
    names = [path.name for path in found]
    assert names == ["9pnet.ko", "9pnet_virtio.ko", "netfs.ko", "9p.ko", "unused-module.ko"]


def test_without_qemu_it_says_what_is_missing_and_ends_with_3(
    checkout: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels", "6.1"],
        cwd=checkout,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "qemu-system-x86_64 is not installed; as root: tools/setup.sh kernels" in done.stderr


@pytest.mark.slow
@pytest.mark.bpf
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("series", SERIES)
def test_programs_load_attach_and_answer_on(series: str, tmp_path: Path) -> None:
    try:
        asked = ask(series, tmp_path)
    except MachineLacks as lack:
        pytest.skip(str(lack))
    print(asked.release, asked.steps, asked.attached)
    assert asked.release.startswith(f"{series}.")
    assert asked.attached == ("clsact" if series == "6.1" else "tcx")
    assert asked.cells == expected()
    assert asked.unified == WELL
