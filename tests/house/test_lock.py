"""The lock files: exact versions with hashes, in step with pyproject.toml, and no addresses."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+) \\$", re.MULTILINE)


@pytest.fixture(scope="module")
def lock(checkout: Path) -> str:
    return "".join(path.read_text() for path in sorted(checkout.glob("requirements*.lock")))


@pytest.fixture(scope="module")
def requirements(checkout: Path) -> list[Requirement]:
    document = tomllib.loads((checkout / "pyproject.toml").read_text())
    lists = [document["project"]["dependencies"], *document["dependency-groups"].values()]
    return [Requirement(entry) for entry in chain.from_iterable(lists)]


def test_every_line_is_a_pin_a_hash_or_a_comment(lock: str) -> None:
    allowed = re.compile(r"[A-Za-z0-9._-]+==\S+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?| *#.*|")
    assert [line for line in lock.splitlines() if not allowed.fullmatch(line)] == []


def test_every_requirement_of_pyproject_is_locked_to_a_version_it_accepts(
    lock: str, requirements: list[Requirement]
) -> None:
    pins = {canonicalize_name(name): version for name, version in PIN.findall(lock)}
    refused = [
        f"{r}: locked to {locked or 'nothing'}; run make lock"
        for r in requirements
        if (locked := pins.get(canonicalize_name(r.name), "")) == "" or locked not in r.specifier
    ]
    assert refused == []


def test_bcc_of_the_python_index_is_not_the_one_we_mean(lock: str) -> None:
    assert "bcc" not in {name for name, _ in PIN.findall(lock)}


def test_every_dependency_has_its_reason(checkout: Path) -> None:
    text = (checkout / "pyproject.toml").read_text()
    lists = re.findall(
        r"^(?:dependencies|build|test|testbed|release|docs|lint) = \[\n(.*?)^\]", text, re.M | re.S
    )
    entries = [line for entry in lists for line in entry.splitlines()]
    assert len(entries) > 20
    assert [line for line in entries if not re.search(r"# \w+", line)] == []
