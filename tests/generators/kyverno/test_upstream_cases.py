"""Kyverno's own tests of its command line, from its published Go module: `policy test` runs them.

What is left out is left out by name, each with the reason that docs/kyverno.md gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from generators.documents.json import Value, items, mapping, mappings, text
from generators.kyverno.offline.testing import CaseSelector, run_files
from tests.testbed.build import module

pytestmark = pytest.mark.slow
ACTIONS = ("mutate", "generate")
IN_CEL = ("MutatingPolicy", "GeneratingPolicy")
LEFT_OUT = {
    ("mpol-image-data", ""): "images are not supported",
}
"""(policy, rule) of results that are not judged, and why."""
FEWEST = 50
"""Files that there are in 1.19.1; a listing that finds none would pass."""


def documents(path: Path) -> Iterator[Value]:
    try:
        yield from (each for each in yaml.safe_load_all(path.read_text()) if each)
    except (yaml.YAMLError, UnicodeDecodeError):
        return


def policies_of(file: Path) -> Iterator[Value]:
    for test in documents(file):
        for named in items(test, "policies"):
            path = file.parent / str(named)
            for each in sorted(path.glob("*.y*ml")) if path.is_dir() else [path]:
                yield from documents(each) if each.is_file() else ()


def carried_out(policy: Value) -> bool:
    """Whether Ringfence claims to carry out some of it."""
    if text(policy, "kind") in IN_CEL:
        return True
    rules = mappings(policy, "spec", "rules")
    return any(mapping(rule, action) for rule in rules for action in ACTIONS)


def not_claimed(file: Path) -> set[tuple[str, str]]:
    """Rules of the file's policies that validate: (policy, rule)."""
    return {
        (text(policy, "metadata", "name"), text(rule, "name"))
        for policy in policies_of(file)
        for rule in mappings(policy, "spec", "rules")
        if not any(mapping(rule, action) for action in ACTIONS)
    }


@pytest.fixture(scope="module")
def files() -> list[Path]:
    cases = module("kyverno", "github.com/kyverno/kyverno") / "test" / "cli"
    found = sorted(cases.rglob("kyverno-test.yaml"))
    return [file for file in found if any(map(carried_out, policies_of(file)))]


def test_policy_test_runs_kyvernos_own_tests(files: list[Path]) -> None:
    assert len(files) >= FEWEST
    wrong = []
    for file in files:
        if any(test.get("exceptions") for test in documents(file) if isinstance(test, dict)):
            continue  # Policy exceptions stay with Kyverno.
        left = LEFT_OUT.keys() | not_claimed(file)
        for case in run_files([file], CaseSelector()).cases:
            if not case.ok and (case.policy.rpartition("/")[2], case.rule) not in left:
                wrong.append(f"{file.parent.name}: {case.policy}/{case.rule}: {case.message}")
    assert wrong == []


def test_what_is_left_out_is_there_and_would_fail(files: list[Path]) -> None:
    """So that a row goes with its reason."""
    failing = {
        (case.policy, case.rule)
        for file in files
        for case in run_files([file], CaseSelector()).cases
        if not case.ok
    }
    assert LEFT_OUT.keys() <= failing
