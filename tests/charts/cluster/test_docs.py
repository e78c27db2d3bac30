"""docs/install.md names values, commands and tests that exist."""

from __future__ import annotations

import re

import yaml

from generators.cli import root
from generators.tenants.load import parse_tenants
from tests.charts.cluster.rendered import CHART, CHECKOUT

PAGE = (CHECKOUT / "docs/install.md").read_text()
COMMANDS = re.compile(r"ringfence ((?:[a-z]+ ?){1,2})")


def paths(values: object, before: str = "") -> set[str]:
    if not isinstance(values, dict):
        return set()
    here = {f"{before}{key}" for key in values}
    return here.union(*(paths(value, f"{before}{key}.") for key, value in values.items()))


def test_every_value_that_the_page_names_exists() -> None:
    known = paths(yaml.safe_load((CHART / "values.yaml").read_text()))
    groups = "|".join({path.partition(".")[0] for path in known})
    named = set(re.findall(rf"(?:`|--set )((?:{groups})\.[A-Za-z.]+)", PAGE))
    assert len(named) > 8
    assert named - known == set()


def test_every_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(test_[a-z_]+)`", PAGE))
    sources = (path.read_text() for path in (CHECKOUT / "tests").rglob("test_*.py"))
    written = set(re.findall(r"def (test_\w+)", "".join(sources)))
    assert len(named) > 4
    assert named - written == set()


def test_every_command_that_the_page_shows_exists() -> None:
    known = set(root().commands)
    shown = {found.split()[0] for found in re.findall(r"^ringfence ([a-z]+)", PAGE, re.MULTILINE)}
    assert shown
    assert shown <= known


def test_the_page_s_values_hold_a_good_tenant_file() -> None:
    (block,) = (b for b in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "tenantFile" in b)
    file = {
        "apiVersion": "ringfence.io/v1alpha1",
        "kind": "TenantConfig",
        **yaml.safe_load(block)["tenantFile"],
    }
    assert set(parse_tenants(yaml.safe_dump(file).encode(), "page").tenants) == {"test01", "test02"}
