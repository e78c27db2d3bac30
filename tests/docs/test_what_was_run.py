"""Pages name the kernels and releases of Kubernetes that were run, and no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

RAN = re.compile(r"^\| `make kernels( ONLY=[^`]+)?` \|[^|]*\| (?P<what>[^|]*) \|", re.MULTILINE)
RELEASE = re.compile(r"\b[56]\.\d{1,2}\b")


def kernels_run(checkout: Path) -> set[str]:
    """Series in the table of runs."""
    return {
        series
        for row in RAN.finditer((checkout / "tests/README.md").read_text())
        for series in RELEASE.findall(row["what"])
    }


@pytest.mark.parametrize(
    ("page", "beginning"), [("README.md", "Linux: "), ("docs/install.md", "Needed: ")]
)
def test_requirements_name_only_kernels_that_were_run(
    checkout: Path, page: str, beginning: str
) -> None:
    text = (checkout / page).read_text()
    paragraph = text[text.index(f"\n{beginning}") :].partition("\n\n")[0]
    named = set(RELEASE.findall(paragraph)) - {"6.6"}  # since when there is tcx
    assert named <= kernels_run(checkout)
    assert kernels_run(checkout), "the table of runs is found"
