"""Charts as `helm package` makes them, since that is how they travel."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from tests.charts.helm import Helm, said
from tests.conftest import CHECKOUT

pytestmark = pytest.mark.cluster

SYSTEM = "ringfence-system"
CHARTS = sorted(path.parent for path in (CHECKOUT / "charts").glob("*/Chart.yaml"))
TOLD = {"LICENSE", "README.md", "values.schema.json", "values.yaml"}
"""What a package shows to who looks at it before an install."""


@pytest.mark.parametrize("chart", CHARTS, ids=lambda path: path.name)
def test_a_package_is_whole_and_renders_what_the_checkout_renders(
    helm: Helm, chart: Path, tmp_path: Path
) -> None:
    assert "symbolic link" not in said(helm.attempt("package", chart, "--destination", tmp_path))
    (package,) = tmp_path.glob("*.tgz")
    with tarfile.open(package) as archive:
        members = archive.getmembers()
    assert all(member.isfile() for member in members), "a link would lead out of the package"
    paths = {member.name.removeprefix(f"{chart.name}/") for member in members}
    assert paths >= TOLD
    assert not any(path.startswith("ci/") for path in paths)
    switches = ("--set", "monitoring.dashboards=true") if chart.name == "ringfence" else ()
    rendered = [
        helm.template("ringfence", source, *switches, namespace=SYSTEM)
        for source in (package, chart)
    ]
    assert rendered[0] == rendered[1]


@pytest.mark.parametrize("chart", CHARTS, ids=lambda path: path.name)
def test_a_chart_holds_no_link_and_the_licence_of_the_repository(chart: Path) -> None:
    """Helm tells of every link that it follows, to each who templates or packages."""
    assert [path for path in chart.rglob("*") if path.is_symlink()] == []
    assert (chart / "LICENSE").read_text() == (CHECKOUT / "LICENSE").read_text()
