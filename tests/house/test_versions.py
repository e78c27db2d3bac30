"""One version everywhere: the package, the charts with their images, the changelog."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml


@pytest.fixture(scope="module")
def version(checkout: Path) -> str:
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    return str(project["version"])


@pytest.mark.parametrize("chart", ["ringfence", "ringfence-namespace"])
def test_a_chart_and_its_images_have_the_version_of_the_package(
    checkout: Path, version: str, chart: str
) -> None:
    meta = yaml.safe_load((checkout / "charts" / chart / "Chart.yaml").read_text())
    assert (meta["version"], meta["appVersion"]) == (version, version)
    notes = meta["annotations"]
    images = yaml.safe_load(notes["artifacthub.io/images"])
    assert {image["image"].partition(":")[2] for image in images} == {version}
    assert yaml.safe_load(notes["artifacthub.io/changes"])
    assert notes["artifacthub.io/license"] == "Apache-2.0"


def test_the_changelog_begins_with_it(checkout: Path, version: str) -> None:
    headings = re.findall(r"^## (\S+?),? ", (checkout / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] == version
