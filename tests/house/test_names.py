"""One word for one thing: no two public classes of the product have the same name.

The lab stands apart: it plays what surrounds the product, and may call it as the product does.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest


def public_classes(source: str) -> list[str]:
    """Those that a module offers."""
    return [
        node.name
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]


@pytest.mark.parametrize("packages", [("generators", "webhook", "enforcer"), ("lab",)])
def test_no_public_class_name_is_defined_twice(checkout: Path, packages: tuple[str, ...]) -> None:
    found = defaultdict(list)
    for path in sorted(path for each in packages for path in (checkout / each).rglob("*.py")):
        for name in public_classes(path.read_text()):
            found[name].append(str(path.relative_to(checkout)))
    assert len(found) > 20
    assert {name: places for name, places in found.items() if len(places) > 1} == {}


def test_what_is_private_or_inside_does_not_count() -> None:
    source = "class A:\n    class B: ...\nclass _C: ...\ndef f():\n    class D: ...\n"
    assert public_classes(source) == ["A"]
