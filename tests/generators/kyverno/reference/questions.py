"""What the reference was asked: every operator on every pair of kinds of values, every function,
every place where a field can be missing, every anchor, every list that merges.

A question is one JSON object as `tests/testbed/go/kyverno` reads it. The tables in this folder hold
its answers in this order; `python -m tests.generators.kyverno.reference` asks and writes them anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

from tests.generators.kyverno.reference import cel_questions
from tests.generators.kyverno.reference.patch_questions import json_patches, merges
from tests.generators.kyverno.reference.policy_questions import policies
from tests.generators.kyverno.reference.shapes import Json, Question

HERE = Path(__file__).parent

OPERATORS = [
    "Equals",
    "Equal",
    "NotEquals",
    "NotEqual",
    "In",
    "AnyIn",
    "AllIn",
    "NotIn",
    "AnyNotIn",
    "AllNotIn",
    "GreaterThan",
    "GreaterThanOrEquals",
    "LessThan",
    "LessThanOrEquals",
    "DurationGreaterThan",
    "DurationGreaterThanOrEquals",
    "DurationLessThan",
    "DurationLessThanOrEquals",
]

VALUES: tuple[Json, ...] = (
    *(None, True, False, 0, 1, -1, 10, 300, 1.5, -0.5, 1000000),
    *("", "0", "1", "10", "-1", "1.5", "1e3", "true", "null", "abc", "abd", "a*", "*", "?b?", "??"),
    *("0s", "5m", "300s", "1h", "1h30m", "1d", "10Mi", "1Gi", "1024Mi", "1000m", "1k", "1Ki"),
    *("1-10", "5-400", "1!-10", "10Mi-2Gi", "1m-10m", ">5", "!abc", "abc|abd", "1.2.3", "1.10.0"),
    *("1.2.3-rc1", "v1.2.3", '["abc","abd"]', '["a*"]', "[1,2]", '{"a":"b"}', "a b"),
    *([], ["abc"], ["a*"], ["abc", "abd"], ["abc", "xyz"], [1, 2], ["1", "10"], [None], [True]),
    *([[1]], ["5", "300"], [1.5], ["*"], {}, {"a": "b"}, {"a": 1}, [{"a": "b"}]),
)

DATA: Json = {
    "text": "abc",
    "number": 5,
    "half": 0.5,
    "yes": True,
    "no": False,
    "nothing": None,
    "empty": "",
    "list": [3, 1, 2],
    "texts": ["b", "a", "c"],
    "mixed": [1, "a", None, True, [1], {"a": 1}],
    "nested": [[1, 2], [3], 4],
    "none": [],
    "map": {"b": 1, "a": "x", "nothing": None, "deep": {"c": [1, {"d": 2}]}},
    "void": {},
    "people": [
        {"name": "ann", "age": 3, "tags": ["x", "y"]},
        {"name": "bob", "tags": []},
        {"name": "cid", "age": 30, "tags": None},
    ],
    "request": {
        "operation": "CREATE",
        "namespace": "web",
        "object": {
            "metadata": {
                "name": "one",
                "namespace": "web",
                "labels": {"app": "shop", "a.b/c": "d", "n": "5"},
                "annotations": {},
            },
            "spec": {"replicas": 3, "weight": 1.5, "on": True, "args": ["-a", "b c"], "gone": None},
        },
    },
}

HOLES = [
    "text",
    "number",
    "yes",
    "nothing",
    "empty",
    "list",
    "people",
    "map",
    "void",
    "absent",
    "map.absent",
    "absent.absent",
    "map.nothing",
    "nothing.absent",
    "text.absent",
    "list[9]",
    "absent[0]",
    "people[*].age",
    "people[0].age",
    "people[1].age",
    "absent[*]",
    "absent.absent[]",
    "map.*.absent",
    "people[?age].name",
    "people[].absent",
    "(absent)",
]

FORMS = (HERE / "forms.txt").read_text().splitlines()
"""What is done with a value; X is one of HOLES."""
SINGLE = (HERE / "expressions.txt").read_text().splitlines()

EDGES: tuple[str, ...] = (
    *(
        "'abc'",
        "''",
        "'a*'",
        "'1.5'",
        "'10Mi'",
        "'1h30m'",
        "'é日本'",
        "`0`",
        "`3`",
        "`-1`",
        "`1.5`",
    ),
    *("`null`", "`true`", "`[]`", '`["b","a"]`', "`[1,2]`", '`{"a":1}`', "absent"),
)

ONE = [
    "to_upper",
    "to_lower",
    "base64_encode",
    "base64_decode",
    "to_boolean",
    "parse_json",
    "parse_yaml",
    "random",
    "path_canonicalize",
    "sha1",
    "sha256",
    "md5",
    "time_to_cron",
    "time_utc",
    "sum",
    "abs",
    "ceil",
    "floor",
    "avg",
    "max",
    "min",
    "length",
    "keys",
    "values",
    "type",
    "to_string",
    "to_number",
    "to_array",
    "reverse",
    "sort",
    "not_null",
    "items",
    "round",
]
TWO = [
    "compare",
    "equal_fold",
    "split",
    "trim",
    "trim_prefix",
    "truncate",
    "pattern_match",
    "regex_match",
    "label_match",
    "add",
    "subtract",
    "multiply",
    "divide",
    "modulo",
    "round",
    "lookup",
    "object_from_lists",
    "semver_compare",
    "contains",
    "starts_with",
    "ends_with",
    "join",
    "merge",
    "not_null",
    "time_add",
    "time_diff",
    "time_before",
]


def conditions() -> Iterator[Question]:
    """Every operator on every pair."""
    for operator, key, value in product(OPERATORS, VALUES, VALUES):
        yield {"op": "condition", "key": key, "operator": operator, "value": value}


SIDES = (
    "{{ text }}",
    "{{ absent }}",
    "{{ map.absent }}",
    "{{ absent || '' }}",
    "{{ list }}",
    "{{ nothing }}",
    "{{ number }}",
    "x-{{ number }}",
    "{{ absent.a[0] }}",
    "{{ list[9] }}",
    "{{ map.{{ text }} }}",
    "{{ people[*].absent }}",
    "{{ to_upper(absent) }}",
    "abc",
    "",
)


def unresolved() -> Iterator[Question]:
    """Variables in conditions, of which some lead nowhere."""
    for operator in ("Equals", "NotEquals", "AnyIn", "AllNotIn", "GreaterThan"):
        for key, value in product(SIDES, SIDES):
            yield {
                "op": "condition",
                "key": key,
                "operator": operator,
                "value": value,
                "data": DATA,
            }


def _query(expression: str) -> Iterator[Question]:
    yield {"op": "query", "expression": expression, "data": DATA}


def absences() -> Iterator[Question]:
    """Every form of expression on everything that can be there or not."""
    for form, hole in product(FORMS, HOLES):
        yield from _query(form.replace("X", hole))


def functions() -> Iterator[Question]:
    """Every function on its edge values."""
    for name, argument in product(ONE, EDGES):
        yield from _query(f"{name}({argument})")
    for name, first, second in product(TWO, EDGES, EDGES):
        yield from _query(f"{name}({first}, {second})")
    for expression in SINGLE:
        yield from _query(expression)


TEMPLATES: Json = json.loads((HERE / "templates.json").read_text())


def substitutions() -> Iterator[Question]:
    """Variables, references and escapes, alone, inside texts, as keys."""
    data = {**DATA, "lower": "a", "label": "app", "written": "a {{ text }} b"}
    for template in TEMPLATES:
        yield {"op": "substitute", "template": template, "data": data}
        deleted = {
            **data,
            "request": {"operation": "DELETE", "oldObject": data["request"]["object"]},
        }
        yield {"op": "substitute", "template": template, "data": deleted}


def schema() -> Iterator[Question]:
    """How every list of every built-in kind merges."""
    yield {"op": "schema"}


TABLES: dict[str, Callable[[], Iterator[Question]]] = {
    "conditions": conditions,
    "unresolved": unresolved,
    "absences": absences,
    "functions": functions,
    "substitutions": substitutions,
    "schema": schema,
    "merges": merges,
    "jsonpatches": json_patches,
    "policies": policies,
    "cel": cel_questions.expressions,
    "celpolicies": cel_questions.policies,
}
