"""The engine for regular expressions: as Python's where both agree, and bounded where it is not."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.kyverno.context import chooser
from generators.kyverno.failures import BadExpression
from generators.kyverno.language import regexes
from generators.kyverno.language.functions import MAX_STEPS, Meter

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
    assert found(pattern, text) is (re.search(pattern, text) is not None)


def found(pattern: str, text: str) -> bool:
    return regexes.compiled(pattern).search(text, Meter().spend)


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
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
        (r"^\pL+$", "Grüße", True),
        (r"\p{Greek}", "abc", False),
        (r"^\Qa.b\E$", "a.b", True),
        (r"^\Qa.b\E$", "axb", False),
        (r"^\141$", "a", True),
        ("(?U)a+", "a", True),
        ("(?<n>a)", "a", True),
        (r"\\C", r"\C", True),
        ("((a{100}){10})", "a" * 1_000, True),
        ("(.?)" * 60, "", True),
    ],
)
def test_syntax(pattern: str, text: str, matches: bool) -> None:
    assert found(pattern, text) is matches


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
            r"\C",
            "x{1001}",
            "(?P<a>x)(?P<a>y)",
            "(?<a>x)(?P<a>y)",
            r"\ud800",
            "\ud800",
        ),
        "(" * 200,
        "x" * 3000,
        "((a{100}){100}){100}",
    ],
)
def test_what_cannot_be_is_refused(pattern: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadExpression):
        regexes.compiled(pattern)
    assert capfd.readouterr() == ("", ""), "RE2 logs on its own"


def test_a_place_between_two_words_is_not_looked_for_inside_of_a_character() -> None:
    assert found(r"a\Ba", "aa")
    with pytest.raises(BadExpression, match="beyond ASCII"):
        found(r"\B", "aéa")


def test_half_a_character_is_no_text() -> None:
    with pytest.raises(BadExpression, match="half a character"):
        found("a", "a\ud800")


def test_a_pattern_that_stops_backtracking_engines_takes_no_time() -> None:
    assert not found("^(a+)+$", "a" * 2_000 + "b")
    assert not found("(a+a+a+a+a+)+$", "a" * 200_000 + "b")


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(a+a+a+a+a+)+$", "a" * MAX_STEPS + "b"),
        # Neither RE2 nor anything else is quick with these.
        ("((?:[ab]?){900}|c)x", "ab" * 50_000),
        ("a.*b|a", "a" * 500_000),
    ],
)
def test_a_pattern_that_needs_too_many_steps_is_stopped(pattern: str, text: str) -> None:
    with pytest.raises(BadExpression, match="steps"):
        regexes.replace(regexes.compiled(pattern), text, lambda _: "", Meter().spend)


def test_a_search_costs_the_length_of_its_text() -> None:
    meter = Meter()
    regexes.compiled("b").search("a" * 1_000, meter.spend)
    assert meter.left == MAX_STEPS - 1_000


@pytest.mark.parametrize(
    ("template", "replaced"),
    [
        ("${end}_$1$$", "cd_ab$ gh_ef$"),
        ("$1x$0", "ab-cd ef-gh"),
        ("${1}x", "abx efx"),
        ("$", "$ $"),
        ("${1", "${1 ${1"),
        ("$3$none", " "),
        ("$é", "$é $é"),
    ],
)
def test_replacements_know_groups_by_number_and_name(template: str, replaced: str) -> None:
    regex = regexes.compiled(r"(\w+)-(?P<end>\w+)")
    text = "ab-cd ef-gh"
    made = regexes.replace(regex, text, lambda m: regexes.expand(template, m), Meter().spend)
    assert made == replaced


@given(
    st.sampled_from(
        [
            *("[a-z]{8}", "(x|y)+-[0-9]{2,4}", "a*b?c+", r"\w{3}\.\d", "[^a]", r"^\S\D.\z"),
            *("(?i)[[:alpha:]]{3}", "a{150}", "a{100,}", "(?<n>a){2,200}", "[[:punct:]]"),
        ]
    ),
    st.text(),
)
def test_random_text_fits_its_pattern(pattern: str, seed: str) -> None:
    made = regexes.generate(pattern, chooser(seed), Meter().spend)
    assert found(f"^(?:{pattern})$", made)
    assert all("!" <= character <= "~" for character in made)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [("[a-z0-9]{8}", "q0fzxfnf"), ("[^a]{8}", r"~Z<\]Tc0"), (r"\w{3}", "h0o"), (".{4}", "GYdv")],
)
def test_random_text_is_the_same_in_every_process_and_release(pattern: str, text: str) -> None:
    assert regexes.generate(pattern, chooser("seed"), Meter().spend) == text


@pytest.mark.parametrize(
    "pattern", ["(", "a*" * 900, "[\x00-\U0010ffff]{1000}", r"\pL", r"[^\x00-\x7f]", r"a\Bc\bd"]
)
def test_random_makes_no_text_of_what_it_does_not_understand(pattern: str) -> None:
    with pytest.raises(BadExpression):
        regexes.generate(pattern, chooser("seed"), Meter().spend)
