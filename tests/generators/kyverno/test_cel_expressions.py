"""CEL expressions: read by Google's parser, run here, and stopped where they would not end."""

from __future__ import annotations

from contextlib import suppress

import pytest

from generators.documents.json import Value
from generators.kyverno.cel import functions, syntax
from generators.kyverno.cel.checking import findings
from generators.kyverno.cel.evaluating import CelRun
from generators.kyverno.cel.syntax import parse
from generators.kyverno.cel.templates import Piece, pieces
from generators.kyverno.cel.values import to_json
from generators.kyverno.failures import BadExpression
from generators.kyverno.language.functions import Meter, Surroundings
from generators.kyverno.model import MAX_TEXT
from tests.generators.kyverno.policies import NOON

TEN = "[1,2,3,4,5,6,7,8,9,10]"
BIG = "object.big"
LOOPS = f"{TEN}.all(a, {TEN}.all(b, {TEN}.all(c, {TEN}.all(d, {TEN}.all(e, {TEN}.all(f, true))))))"


def value_of(expression: str, data: Value = None, steps: int = 1_000_000) -> Value:
    surroundings = Surroundings(lambda: NOON, lambda below: 0, Meter(steps))
    run = CelRun({"object": lambda: data}, {}, surroundings)
    return to_json(run.evaluate(parse(expression)), surroundings.meter.spend)


@pytest.mark.parametrize(
    "hostile",
    [
        LOOPS,
        f"cel.bind(a, {'+'.join([BIG] * 20)}, cel.bind(b, {'+'.join(['a'] * 20)}, b.size()))",
        f"cel.bind(a, [{BIG}, {BIG}], a.join({BIG}).replace('x', {BIG}).size())",
        f"cel.bind(a, {BIG}.split(''), a.map(x, a).map(x, x.map(y, a)).size())",
        f"cel.bind(a, {BIG}.split(''), a.distinct().size() + a.filter(x, x in a).size())",
        "lists.range(100000000).size()",
        "[1].map(x, lists.range(9000)).map(x, x + x + x + x).map(x, x.map(y, x)).size()",
        f"regex.replace({BIG}, '(x*)*', {BIG})",
        f"{BIG}.matches('(x+x+)+y')",
        f"{'[' * 20}{BIG}{']' * 20} == [{BIG}]",
    ],
)
def test_an_expression_that_would_not_end_or_fill_the_memory_is_stopped(hostile: str) -> None:
    data: Value = {"big": "x" * 100_000}
    with suppress(BadExpression):
        assert len(str(value_of(hostile, data))) < 10 * MAX_TEXT


@pytest.mark.parametrize(
    "unreadable",
    [
        "(" * 5_000 + "1" + ")" * 5_000,
        "[" * 5_000 + "]" * 5_000,
        "!" * 20_000 + "true",
        "1" + "+1" * 9_000,
        "a" + ".b" * 9_000,
        "x" * 20_001,
        "\ud800",
        "1 +",
        "'",
        "",
        "}",
    ],
)
def test_what_is_no_expression_is_told_with_row_and_column(unreadable: str) -> None:
    with pytest.raises(BadExpression) as told:
        value_of(unreadable)
    assert "\n" not in str(told.value)
    assert "input" not in str(told.value).lower() or "mismatched" in str(told.value)


def test_the_error_of_a_side_that_does_not_decide_is_none() -> None:
    assert value_of("object.a == 1 || true", {}) is True
    assert value_of("object.a == 1 && false", {}) is False
    with pytest.raises(BadExpression, match="no such key: a"):
        value_of("object.a == 1 || false", {})


def test_no_error_of_a_side_hides_that_the_steps_are_over() -> None:
    with pytest.raises(BadExpression, match="steps"):
        value_of(f"{LOOPS} || true", {}, steps=1_000)
    with pytest.raises(BadExpression, match="steps"):
        value_of(f"[1].exists(x, {LOOPS}) || true", {}, steps=1_000)


def test_optional_values_end_no_process() -> None:
    """The library's own evaluator ends the process on the first of these."""
    assert value_of("{'a': [optional.of(1)]}") == {"a": [1]}
    with pytest.raises(BadExpression, match="optional_type is not JSON"):
        value_of("[optional.none()]")
    assert value_of("{?'a': object.?b, ?'c': optional.of(1)}", {}) == {"c": 1}


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("object.a", []),
        ("[1].map(x, x + y)", ["undeclared reference to 'y'"]),
        ("{'a': 1}.all(k, v, k != v)", []),
        ("{'a': 1}.all(k, v, w)", ["undeclared reference to 'w'"]),
        ("cel.bind(x, 1, x) + x", ["undeclared reference to 'x'"]),
        (
            "variables.a + variables.b",
            ["undefined field 'b' of variables: they see those before them"],
        ),
        ("undeclared(1)", ["undeclared reference to function 'undeclared'"]),
        ("'a'.undeclared()", ["undeclared reference to function 'undeclared'"]),
        ("math.undeclared(1)", ["undeclared reference to 'math.undeclared'"]),
        ("resource.get('v1', 'pods', 'x')", ["resource.get takes 4 arguments here, not 3"]),
        ("http.get('x')", ["http.get: policies read the API only"]),
        ("image('x').tag()", ["undeclared reference to function 'image'"]),
        ("Other{a: 1}", ["undeclared reference to type 'Other'"]),
        ("Object{a: Object.a{b: 1}}", []),
    ],
)
def test_names_that_there_are_not_are_found_before_it_runs(
    expression: str, told: list[str]
) -> None:
    host = {"resource.get": (4, 4)}
    found = [each.what for each in findings(parse(expression), {"a"}, host)]
    assert [each for each in found if "tag" not in each] == told


def test_placeholders_end_where_their_own_parentheses_do() -> None:
    assert pieces("a-(( f(x) ))-\\((b))") == (
        Piece("a-", expression=False),
        Piece("f(x)", expression=True),
        Piece("-((b))", expression=False),
    )
    assert pieces("(( ':)'.size() ))") == (Piece("':)'.size()", expression=True),)
    for wrong in ("(( a", "(( ))", "(( a ) b ))x", '(( "a ))'):
        with pytest.raises(BadExpression):
            pieces(wrong)


def test_without_the_package_expressions_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(syntax, "installed", lambda: False)
    with pytest.raises(BadExpression, match=r"pip install 'ringfence\[cel\]'"):
        parse("1 + 41")


def test_every_function_that_is_left_out_has_a_reason() -> None:
    assert all(functions.LEFT_OUT.values())
    assert not {name.partition(".")[0] for name in functions.NAMES} & functions.LEFT_OUT.keys()
