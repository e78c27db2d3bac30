"""docs/install.md and docs/air-gap.md: which kinds policies write, which images are needed."""

from __future__ import annotations

import re
from pathlib import Path

from generators.kyverno.limits import DEFAULT_KINDS

CHECKOUT = Path(__file__).resolve().parents[2]
GOLDEN = CHECKOUT / "tests/charts/cluster/golden/everything.yaml"
"""What helm renders with a registry; tests of the chart compare the two."""


def test_the_page_names_every_kind_that_policies_may_write() -> None:
    page = (CHECKOUT / "docs/install.md").read_text()
    row = re.search(r"a kind that a policy generates beyond ([\w, ]+) \|", page)
    assert row is not None
    labelled = "Namespace"  # policies label and annotate it, and generate none
    assert {*row[1].split(", "), labelled} == {kind for _, kind in DEFAULT_KINDS}


def test_all_images_are_our_two_in_the_registry_that_was_given() -> None:
    images = set(re.findall(r"^\s*(?:- )?image: (\S+)", GOLDEN.read_text(), re.MULTILINE))
    names = {image.partition(":")[0] for image in images}
    registry = "registry.example/team"
    assert names == {f"{registry}/ringfence", f"{registry}/ringfence-enforcer"}
