"""docs/tenant-file.md names every field of the tenant file, and its example is a good file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from generators.tenants.load import parse_tenants
from generators.tenants.schema import TENANT_FILE

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tenant-file.md"


def _fields(rules: object) -> Iterator[str]:
    """The names of all fields below, at any depth."""
    assert isinstance(rules, Mapping)
    inner = rules.get("schema", {})
    if rules.get("type") == "list":
        yield from _fields(inner)
        return
    for name, field in inner.items():
        yield name
        yield from _fields(field)


def test_every_field_is_named_in_the_page() -> None:
    prose = re.sub(r"```.*?```", "", PAGE.read_text(), flags=re.DOTALL)
    named = set(re.findall(r"[A-Za-z]+", " ".join(re.findall(r"`([^`]+)`", prose))))
    assert set(_fields(TENANT_FILE)) - named == set()


def test_the_page_names_no_field_that_does_not_exist() -> None:
    first_cells = re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \|", PAGE.read_text(), re.MULTILINE)
    named = set(re.findall(r"[A-Za-z]+", " ".join(first_cells)))
    assert named - set(_fields(TENANT_FILE)) == set()


def test_the_example_is_a_good_tenant_file() -> None:
    example = re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert example is not None
    assert set(parse_tenants(example[1].encode(), "example").tenants) == {"test01", "test02"}
