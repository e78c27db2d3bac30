"""Checks become lines, and only their level says whether the whole is ready."""

from __future__ import annotations

import pytest

from generators.checks import Check, bridged, failed, good, healthy, rendered


@pytest.mark.parametrize(
    ("check", "line"),
    [
        (good("leader"), "[+]leader"),
        (good("config ok", "abc"), "[+]config ok: abc"),
        (bridged("policy file", "a.yaml:1: wrong"), "[!]policy file: a.yaml:1: wrong"),
        (failed("pods", "not synced"), "[-]pods: not synced"),
    ],
)
def test_a_check_is_one_line_of_mark_subject_and_text(check: Check, line: str) -> None:
    assert str(check) == line
    assert rendered([check, good("serving")]) == f"{line}\n[+]serving"


def test_only_a_failed_check_makes_the_whole_unhealthy() -> None:
    assert healthy([])
    assert healthy([good("a"), bridged("b", "[-]what somebody wrote\n[-]into a text")])
    assert not healthy([good("a"), failed("b")])
