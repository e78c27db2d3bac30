"""The engine for regular expressions: as Python's where both agree, and bounded where it is not."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.kyverno.context import chooser
from generators.kyverno.failures import BadExpression
from generators.kyverno.language import regexes

PIECES = st.recursive(
    st.sampled_from(["a", "b", "[ab]", "[^a]", ".", r"\d", "^", "$", r"\b"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        inner.map(lambda one: f"({one})*"),
        inner.map(lambda one: f"(?:{one})+?"),
        inner.map(lambda one: f"(?:{one}){{1,3}}"),
    ),
    max_leaves=6,
)


@given(PIECES, st.text("ab1 ", max_size=8))
def test_a_pattern_matches_where_pythons_does(pattern: str, text: str) -> None:
    # \Z: Python's $ also matches before a last line break.
    assert regexes.compiled(pattern).search(text) is (re.search(pattern, text) is not None)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "kube-system", True),
        (r"(?i)TEST", "a test", True),
        (r"(?i:T)EST", "test", False),
        (r"a{2,3}$", "xaaa", True),
        (r"a{,3}", "a{,3}", True),
        (r"[[:alpha:]]+\.x\x2D\x{41}", "abc.x-A", True),
        (r"(?m)^b$", "a\nb\nc", True),
        (r"(?s)a.b", "a\nb", True),
        (r"a.b", "a\nb", False),
        (r"[]a]", "]", True),
        (r"[a-]", "-", True),
        (r"\Aab\z", "ab", True),
        ("", "x", True),
    ],
)
def test_syntax(pattern: str, text: str, found: bool) -> None:
    assert regexes.compiled(pattern).search(text) is found


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "(",
            ")",
            "[",
            "a**",
            "*a",
            r"\1",
            "(?=a)",
            "(?<!a)b",
            "a{9999}",
            r"\q",
            "[z-a]",
            "(?U)a+",
        ),
        "(" * 200,
        "x" * 3000,
        "((a{100}){100}){100}",
    ],
)
def test_what_cannot_be_is_refused(pattern: str) -> None:
    with pytest.raises(BadExpression):
        regexes.compiled(pattern)


def test_a_pattern_that_stops_backtracking_engines_takes_no_time() -> None:
    assert not regexes.compiled("^(a+)+$").search("a" * 2_000 + "b")


def test_a_pattern_that_needs_too_many_steps_is_stopped() -> None:
    with pytest.raises(BadExpression, match="steps"):
        regexes.compiled("(a+a+a+a+a+)+$").search("a" * 200_000 + "b")


def test_replacements_know_groups_by_number_and_name() -> None:
    regex = regexes.compiled(r"(\w+)-(?P<end>\w+)")
    text = "ab-cd ef-gh"
    made = regexes.replace(regex, text, lambda m: regexes.expand("${end}_$1$$", regex, m, text))
    assert made == "cd_ab$ gh_ef$"


@given(
    st.sampled_from(["[a-z]{8}", "(x|y)+-[0-9]{2,4}", "a*b?c+", r"\w{3}\.\d", "[^a]"]), st.text()
)
def test_random_text_fits_its_pattern(pattern: str, seed: str) -> None:
    made = regexes.generate(regexes.compiled(pattern).tree, chooser(seed), 1_000)
    assert regexes.compiled(f"^(?:{pattern})$").search(made)
