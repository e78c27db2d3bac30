"""JMESPath as policies use it: what is missing, what functions give, what is refused."""

from __future__ import annotations

from itertools import count

import pytest

from generators.documents.json import Value
from generators.kyverno.context import chooser
from generators.kyverno.failures import BadExpression
from generators.kyverno.language import expressions, functions
from generators.kyverno.language.expressions import Missing
from generators.kyverno.language.functions import Surroundings
from tests.generators.kyverno.policies import NOON

DATA: Value = {
    "name": "shop-test02",
    "labels": {"client": "test02", "tier": "1"},
    "empty": {},
    "nothing": None,
    "list": [{"name": "a", "n": 2}, {"name": "b", "n": 1}, {"n": 3}],
    "numbers": [3, 1, 2],
}


def run(expression: str, data: Value = DATA) -> Value:
    return expressions.evaluate(expression, data, Surroundings(lambda: NOON, chooser("seed")))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("name", "shop-test02"),
        ("labels.client", "test02"),
        ("nothing", None),
        ("labels.none || 'default'", "default"),
        ("none.at.all || labels.client", "test02"),
        ("list[].name", ["a", "b"]),
        ("list[?name=='a'].n | [0]", 2),
        ("list[?none=='a']", []),
        ("list[*].[name]", None),
        ("numbers[-1]", 2),
        ("numbers[0:2]", [3, 1]),
        ("sort(numbers)", [1, 2, 3]),
        ("sort_by(list, &n)[0].name", "b"),
        ("max_by(list, &n).n", 3),
        ("not_null(none, name)", "shop-test02"),
        ("length(list)", 3),
        ("keys(labels)", ["client", "tier"]),
        ("{a: name}.a", "shop-test02"),
        ("contains(name, 'test')", True),
        ("numbers[?@ > `1`]", [3, 2]),
        ("name == 'shop-test02' && !empty", True),
        ("to_string(labels)", '{"client":"test02","tier":"1"}'),
        ("`true` == `1`", False),
    ],
)
def test_base_language(expression: str, value: Value) -> None:
    if expression == "list[*].[name]":
        with pytest.raises(Missing):
            run("list[2].name")
        return
    assert run(expression) == value


@pytest.mark.parametrize(
    "expression", ["none", "labels.none", "labels.none.more", "name && none", "labels.none[0]"]
)
def test_a_field_that_does_not_exist_is_missing(expression: str) -> None:
    with pytest.raises(Missing, match="there is no"):
        run(expression)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("name.first", None),
        ("{a: none}", {"a": None}),
        ("[none]", [None]),
        ("none == `null`", True),
        ("none && name", None),
        ("none || none", None),
        ("none | [0]", None),
        ("!none", True),
        ("to_string(none)", "null"),
    ],
)
def test_around_it_null_is_made_of_it(expression: str, value: Value) -> None:
    assert run(expression) == value


FUNCTION_ROWS: list[tuple[str, Value]] = [
    ("add(`1`, `2`)", 3),
    ("add('1Gi', '512Mi')", "1536Mi"),
    ("add('1h', '30m')", "1h30m0s"),
    ("base64_decode('aGk=')", "hi"),
    ("base64_encode('hi')", "aGk="),
    ("compare('a', 'b')", -1),
    ("divide('1h', '30m')", 2),
    ("divide(`7`, `2`)", 3.5),
    ("equal_fold('ABC', 'abc')", True),
    ("items(labels, 'key', 'value')[1]", {"key": "tier", "value": "1"}),
    ("items(numbers, 'i', 'v')[0]", {"i": 0, "v": 3}),
    ("label_match({client: 'test02'}, labels)", True),
    ("label_match({client: 'x'}, labels)", False),
    ("lookup(labels, 'client')", "test02"),
    ("lookup(numbers, `1`)", 1),
    ("md5('a')", "0cc175b9c0f1b6a831c399e269772661"),
    ("modulo(`7`, `3`)", 1),
    ("multiply('2Gi', `2`)", "4Gi"),
    ("object_from_lists(['a', 'b'], `[1]`)", {"a": 1, "b": None}),
    ("parse_json('{\"a\": [1]}')", {"a": [1]}),
    ("parse_yaml('a: [1, x]')", {"a": [1, "x"]}),
    ("path_canonicalize('/a/../b/./c')", "/b/c"),
    ("pattern_match('*-test02', name)", True),
    ("random('[a-z]{5}') == random('[a-z]{5}')", False),
    ("regex_match('^shop-.+$', name)", True),
    ("regex_replace_all('([a-z]+)-', name, '${1}_')", "shop_test02"),
    ("regex_replace_all_literal('t', name, '$1')", "shop-$1es$102"),
    ("replace('aaa', 'a', 'b', `2`)", "bba"),
    ("replace_all(name, '-', '.')", "shop.test02"),
    ("round(`2.345`, `2`)", 2.35),
    ("semver_compare('1.2.3', '>=1.0.0 <2.0.0')", True),
    ("sha1('a')", "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8"),
    ("sha256('a')", "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"),
    ("split(name, '-')", ["shop", "test02"]),
    ("subtract('1Gi', '1Mi')", "1023Mi"),
    ("sum(['1h', '30m'])", "1h30m0s"),
    ("time_add('2026-01-01T00:00:00Z', '36h')", "2026-01-02T12:00:00Z"),
    ("time_after('2026-01-02T00:00:00Z', '2026-01-01T00:00:00Z')", True),
    ("time_before('2026-01-02T00:00:00Z', '2026-01-01T00:00:00Z')", False),
    (
        "time_between('2026-01-02T00:00:00Z', '2026-01-01T00:00:00Z', '2026-01-03T00:00:00Z')",
        True,
    ),
    ("time_diff('2026-01-01T00:00:00Z', '2026-01-01T01:00:30Z')", "1h0m30s"),
    ("time_now()", "2026-01-02T12:00:00Z"),
    ("time_now_utc()", "2026-01-02T12:00:00Z"),
    ("time_parse('2006-01-02', '2026-03-04')", "2026-03-04T00:00:00Z"),
    ("time_since('', '2026-01-02T11:00:00Z', '')", "1h0m0s"),
    ("time_to_cron('2026-01-02T11:30:00Z')", "30 11 2 1 5"),
    ("time_truncate('2026-01-02T11:31:07Z', '1h')", "2026-01-02T11:00:00Z"),
    ("time_utc('2026-01-02T13:00:00+01:00')", "2026-01-02T12:00:00Z"),
    ("to_boolean('True')", True),
    ("to_lower('ABC')", "abc"),
    ("to_upper(labels.client)", "TEST02"),
    ("trim('xxaxx', 'x')", "a"),
    ("trim_prefix(name, 'shop-')", "test02"),
    ("truncate(name, `4`)", "shop"),
]


@pytest.mark.parametrize(("expression", "value"), FUNCTION_ROWS, ids=[r[0] for r in FUNCTION_ROWS])
def test_functions(expression: str, value: Value) -> None:
    assert run(expression) == value


def test_every_function_has_a_row() -> None:
    called = {row[0].split("(")[0] for row in FUNCTION_ROWS}
    assert called == set(functions.FUNCTIONS)


@pytest.mark.parametrize(
    "expression",
    [
        "to_upper(`1`)",
        "to_upper()",
        "nosuch(name)",
        "x509_decode(name)",
        "add('1Gi', `1`)",
        "divide(`1`, `0`)",
        "modulo(`1.5`, `1`)",
        "parse_json('{')",
        "parse_yaml('a: b: c')",
        "base64_decode('%')",
        "regex_match('(', name)",
        "time_add('yesterday', '1h')",
        "time_add('9999-12-31T00:00:00Z', '10000h')",
        "semver_compare('1.0.0', 'new')",
        "to_boolean('yes')",
        "length(`1`)",
        "name[",
        "",
        "@.",
        "multiply(`1e20`, `1e20`)",
    ],
)
def test_what_makes_no_sense_is_a_bad_expression(expression: str) -> None:
    with pytest.raises(BadExpression):
        run(expression)


DOUBLING = " | ".join(["[@,@]"] * 40)


@pytest.mark.parametrize(
    "expression",
    [
        "(" * 3_000,
        "a" * 20_000,
        "!" * 9_000 + "name",
        ".".join(["a"] * 4_000),
        f"`1` | {DOUBLING}",
        f"`1` | {DOUBLING} | to_string(@)",
        f"`1` | {DOUBLING} | @ == @",
        "`[1]` | " + " | ".join(["[@,@][]"] * 40),
        "join('', [" + ",".join(["name"] * 900) + "]) | " + " | ".join(["join(@, [@,@,@])"] * 30),
        "regex_replace_all('', replace_all('aaaaaaaaaa', 'a', 'aaaaaaaaaaaaaaaaaaaaaaaaaa'), 'x')"
        + " | regex_replace_all('x', @, '$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0')" * 20,
        "map(&regex_match('(a+a+a+)+$', replace_all('"
        + "a" * 40
        + "', 'a', '"
        + "a" * 300
        + "b')), `["
        + ",".join(["1"] * 90)
        + "]`)",
        "pattern_match(join('*', split(replace_all('aaaaaaaaaaaaaaaa', 'a', '"
        + "a" * 600
        + "'), '')), replace_all('aaaaaaaaaaaaaaaa', 'a', '"
        + "a" * 600
        + "'))",
        "random('((a{1000}){1000}){1000}')",
        "random('(a{100}){100}')",
        "parse_yaml('" + "[" * 2_000 + "')",
        "parse_json('" + "[" * 4_000 + "')",
    ],
    ids=lambda expression: expression[:24],
)
def test_hostile_expressions_are_stopped(expression: str) -> None:
    with pytest.raises((BadExpression, Missing)):
        run(expression)


def test_the_same_seed_chooses_the_same() -> None:
    first, second = chooser("a"), chooser("a")
    assert [first(100) for _ in range(20)] == [second(100) for _ in range(20)]
    other = chooser("b")
    assert [chooser("a")(10**9)] != [other(10**9)]


def test_roots_are_asked_for_one_by_one() -> None:
    asked = count()

    class Lazy:
        def root(self, name: str) -> Value:
            next(asked)
            return {"name": name}

    surroundings = Surroundings(lambda: NOON, chooser(""))
    assert expressions.evaluate("a.name || b.name", Lazy(), surroundings) == "a"
    assert next(asked) == 1
