"""Policies of Cilium's kinds mean what Cilium's own engine says they mean, cell by cell.

The table was drawn and answered by `python -m tests.oracle PROGRAM 320 --write`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.oracle.asking import INVALID, ours, packed

TABLE = Path(__file__).parents[2] / "oracle" / "answers.jsonl"
CASES = [json.loads(line) for line in TABLE.read_text().splitlines()]


@pytest.mark.parametrize(("engine", "every"), [("evaluate", 1), ("maps", 5)])
def test_every_case_of_the_table_is_answered_alike(engine: str, every: int) -> None:
    differing = [
        index
        for index, case in enumerate(CASES, start=1)
        if index % every == 0 and packed(ours(case["policies"], engine)) != case["answer"]
    ]
    assert differing == [], "lines of the table that are answered otherwise"


def test_the_table_is_worth_its_name() -> None:
    answers = [case["answer"] for case in CASES]
    assert len(CASES) >= 300
    assert sum(answer == INVALID for answer in answers) >= 20
    assert len(set(answers)) >= 60
