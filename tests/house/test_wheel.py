"""The wheel works without the checkout: installed elsewhere, it imports, has its C and its help."""

from __future__ import annotations

import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

BARE = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}


def run(*command: str | Path, cwd: Path) -> str:
    finished = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=BARE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=checkout)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has the wheel and our dependencies, but not the checkout."""
    folder = tmp_path_factory.mktemp("elsewhere")
    run("/usr/bin/python3", "-m", "venv", folder / "venv", cwd=folder)
    python = folder / "venv/bin/python"
    run(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel, cwd=folder)
    (packages,) = (folder / "venv/lib").glob("python3.*/site-packages")
    # What a .pth file names is searched, but .pth files there are not read: the checkout stays out.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    return folder


def test_wheel_holds_the_packages_the_c_sources_the_licences_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "generators",
        "webhook",
        "enforcer",
        "lab",
        "ringfence-0.1.0.dist-info",
    }
    assert "enforcer/bpf/ringfence.c" in names
    assert {Path(name).name for name in names if "/licenses/" in name} == {
        "LICENSE",
        "LICENSE.GPL-2.0",
        "LICENSE.BSD-2-Clause",
    }
    assert [name for name in names if "__pycache__" in name or "tests/" in name] == []


@pytest.mark.parametrize("package", ["generators", "webhook", "enforcer", "lab"])
def test_installed_package_is_imported_from_the_wheel(elsewhere: Path, package: str) -> None:
    python = elsewhere / "venv/bin/python"
    where = run(python, "-c", f"import {package}; print({package}.__file__)", cwd=elsewhere)
    assert where.startswith(str(elsewhere / "venv"))


def test_installed_wheel_finds_its_c_sources(elsewhere: Path) -> None:
    code = "from importlib.resources import files; print(files('enforcer') / 'bpf/ringfence.c')"
    printed = run(elsewhere / "venv/bin/python", "-c", code, cwd=elsewhere)
    assert Path(printed.strip()).is_file()


@pytest.mark.parametrize("name", ["two-clients", "star-wars"])
def test_installed_wheel_finds_the_example_of_a_demo(elsewhere: Path, name: str) -> None:
    found = f"find_example({name!r}) / 'cluster.yaml'"
    code = f"from lab.demos.stage import find_example; print({found})"
    printed = run(elsewhere / "venv/bin/python", "-c", code, cwd=elsewhere)
    assert printed.startswith(str(elsewhere / "venv"))
    assert Path(printed.strip()).is_file()


def test_installed_command_prints_its_help_in_any_folder(elsewhere: Path) -> None:
    printed = run(elsewhere / "venv/bin/ringfence", "--help", cwd=Path("/"))
    assert "tenants" in printed
    assert "webhook" in printed
    assert "enforcer" in printed
