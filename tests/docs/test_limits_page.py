"""docs/limits.md names every map with the size that it has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from enforcer.datapath.maps import SIZES, map_sizes
from enforcer.policy.tables import CAPACITY, Table
from generators.errors import Refused

PAGE = Path(__file__).parents[2] / "docs" / "limits.md"
ROW = re.compile(r"^\| `(?P<map>[a-z]+_map)` \| (?P<size>\d+) \|", re.MULTILINE)


def test_the_table_has_all_maps_and_their_sizes() -> None:
    found = {row["map"]: int(row["size"]) for row in ROW.finditer(PAGE.read_text())}
    assert found == {table.value: size for table, size in CAPACITY.items()}
    assert f"from {SIZES[0]} to {SIZES[1]:,} entries" in PAGE.read_text()


def test_a_size_that_is_given_is_taken_and_the_others_stay() -> None:
    sizes = map_sizes(["cidr_map=262144", "ep_map=64"])
    assert sizes == {**CAPACITY, Table.CIDRS: 262_144, Table.ENDPOINTS: 64}


@pytest.mark.parametrize(
    "text", ["", "cidr_map", "cidr_map=", "cidr_map=63", "cidr_map=1e3", "ct_map=70", "ep_map=²"]
)
def test_what_is_no_size_is_refused_with_the_names_of_the_maps(text: str) -> None:
    with pytest.raises(Refused, match=r"is not MAP=NUMBER: write one of pol_map, .* 64 to"):
        map_sizes([text])
