"""docs/cilium-policies.md lists each field of Cilium's policies, as the reader takes it."""

from __future__ import annotations

import re
from pathlib import Path

from generators.manifests.cilium import ENTITIES
from tests.generators.manifests.test_cilium import FIELDS

PAGE = (Path(__file__).parents[2] / "docs/cilium-policies.md").read_text()


def table(after: str) -> list[list[str]]:
    lines = PAGE.partition(after)[2].partition("\n\n")[0].strip().splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_the_page_has_each_field_and_whether_it_is_enforced() -> None:
    rows = {row[0].replace("`", ""): row[1] for row in table("what the reader does -->")}
    assert rows == {field.path: "no" if field.refused else "yes" for field in FIELDS}


def test_every_row_names_its_test() -> None:
    tests = Path(__file__).parents[1] / "generators/manifests/test_cilium.py"
    named = {row[3].strip("`") for row in table("what the reader does -->")}
    assert named
    assert all(f"def {name}(" in tests.read_text() for name in named)


def test_the_page_has_each_entity() -> None:
    named = set(re.findall(r"`([a-z-]+)`", " ".join(row[0] for row in table("## Entities\n\n"))))
    assert named == set(ENTITIES)
