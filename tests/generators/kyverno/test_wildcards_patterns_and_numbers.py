"""Wildcards, scalar patterns, quantities, durations: one row a rule."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.documents.json import Value
from generators.kyverno.language import wildcards
from generators.kyverno.language.patterns import fits
from generators.kyverno.language.quantities import (
    parse_duration,
    parse_quantity,
    write_duration,
    write_quantity,
)


@pytest.mark.parametrize(
    ("pattern", "text", "matched"),
    [
        ("*", "", True),
        ("*", "anything", True),
        ("", "", True),
        ("", "a", False),
        ("*-test02", "shop-test02", True),
        ("*-test02", "shop-test020", False),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("a*b*c", "a-b-b-c", True),
        ("a*?", "a", False),
        ("[ab]", "a", False),
        ("A", "a", False),
        ("a.b", "axb", False),
    ],
)
def test_a_star_is_any_run_and_a_question_mark_one_character(
    pattern: str, text: str, matched: bool
) -> None:
    assert wildcards.matches(pattern, text) is matched


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_wildcards_agree_with_the_same_pattern_as_a_regular_expression(
    pattern: str, text: str
) -> None:
    regex = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    assert wildcards.matches(pattern, text) is (re.fullmatch(regex, text) is not None)


@given(st.text("ab*?", max_size=6), st.text("ab", max_size=6), st.text("ab*?", max_size=6))
def test_patterns_that_fit_one_text_overlap(one: str, text: str, other: str) -> None:
    if wildcards.matches(one, text) and wildcards.matches(other, text):
        assert wildcards.overlap(one, other)
    assert wildcards.overlap(one, text) is wildcards.matches(one, text)


@pytest.mark.parametrize(
    ("value", "pattern", "fitting"),
    [
        ("kube-system", "!kube-system", False),
        ("shop", "!kube-system", True),
        ("shop-test02", "*-test02", True),
        ("b", "a | b", True),
        ("shop-test02", "shop-* & *-test02", True),
        ("shop-test01", "shop-* & *-test02", False),
        ("c", "a | b", False),
        (5, "1-10", True),
        (11, "1-10", False),
        (11, "1!-10", True),
        (5, "1!-10", False),
        ("200Mi", "100Mi-1Gi", True),
        ("200Mi", ">100Mi", True),
        ("2h", "<= 1h", False),
        ("60m", "1h", True),
        (3, ">= 3", True),
        (None, "> 0", False),
        ("team-1", "team-1", True),
        (True, True, True),
        ("true", True, False),
        (True, "true", True),
        ("8", 8, True),
        (8.0, 8, True),
        (8.5, 8, False),
        ("8.5", 8.5, True),
        ("", None, True),
        (0, None, True),
        ("x", None, False),
        ({"a": 1}, {}, True),
        ("a", {}, False),
        (None, "*", False),
        ("", "*", True),
        ("", "?*", False),
    ],
)
def test_scalars_fit_patterns(value: Value, pattern: Value, fitting: bool) -> None:
    assert fits(value, pattern) is fitting


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        ("100m", Fraction(1, 10)),
        ("1Ki", 1024),
        ("1k", 1000),
        ("1.5Gi", 3 * 2**29),
        ("1e3", 1000),
        ("-2", -2),
        ("1E", 10**18),
        ("", None),
        ("1KB", None),
        ("one", None),
        ("1e999", None),
        ("9" * 200, None),
    ],
)
def test_quantities(text: str, number: Fraction | int | None) -> None:
    assert parse_quantity(text) == number


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1h30m", 5_400_000_000_000),
        ("0", 0),
        ("1.5s", 1_500_000_000),
        ("-10ms", -10_000_000),
        ("10", None),
        ("1d", None),
        ("", None),
        ("-", None),
    ],
)
def test_durations(text: str, nanoseconds: int | None) -> None:
    assert parse_duration(text) == nanoseconds


@given(st.integers(-(10**18), 10**18))
def test_a_written_duration_reads_as_itself(nanoseconds: int) -> None:
    assert parse_duration(write_duration(nanoseconds)) == nanoseconds


@given(st.integers(-(10**12), 10**12), st.booleans())
def test_a_written_quantity_reads_as_itself(number: int, binary: bool) -> None:
    assert parse_quantity(write_quantity(Fraction(number), binary)) == number
