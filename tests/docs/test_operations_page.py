"""docs/operations.md promises nothing without a test, and names only metrics that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
DOCS = TESTS.parent / "docs"
PAGE = (DOCS / "operations.md").read_text()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)`", PAGE))))
def test_every_proof_is_a_test(name: str) -> None:
    assert any(f"def {name}(" in path.read_text() for path in TESTS.rglob("test_*.py"))


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(ringfence_\w+)`", PAGE))))
def test_every_metric_is_one_of_ours(name: str) -> None:
    assert f"`{name}`" in (DOCS / "metrics.md").read_text()
