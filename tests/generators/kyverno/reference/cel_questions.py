"""Questions in CEL: expressions, and whole MutatingPolicies and GeneratingPolicies on objects.

`cel.txt` holds an expression a line; beside them, every operator between every pair of values.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.generators.kyverno.reference.policy_questions import USER
from tests.generators.kyverno.reference.shapes import Json, Question

HERE = Path(__file__).parent
OBJECT: Json = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "web",
        "namespace": "shop",
        "labels": {"app": "web", "tier": "front"},
        "annotations": {"a.b/c": "1"},
    },
    "spec": {
        "containers": [
            {"name": "main", "image": "nginx:1.27", "resources": {"limits": {"cpu": "100m"}}},
            {"name": "side", "image": "ghcr.io/x/side:v2"},
        ]
    },
}
VALUES = (
    *("1", "2", "0", "-1", "1u", "2u", "1.0", "2.5", "'1'", "'a'", "''", "true", "false", "null"),
    *("[]", "[1]", "['a']", "{}", "{'a': 1}", "b'a'", "duration('1h')"),
    *("timestamp('2026-01-02T03:04:05Z')", "object.metadata.name", "object.metadata.missing"),
)
OPERATORS = ("+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "in", "&&", "||")


def expressions() -> Iterator[Question]:
    """One expression each."""
    for line in (HERE / "cel.txt").read_text().splitlines():
        yield {"op": "cel", "expression": line, "data": OBJECT}
    for sign in OPERATORS:
        for left in VALUES:
            for right in VALUES:
                # Dynamic, so that types are compared when it runs, as those of objects are.
                text = f"dyn({left}) {sign} dyn({right})"
                yield {"op": "cel", "expression": text, "data": OBJECT}


def policies() -> Iterator[Question]:
    """Every policy of a file on every object of it."""
    for path in sorted((HERE / "policies" / "cel").glob("*.yaml")):
        written = list(yaml.safe_load_all(path.read_text()))
        objects = [each for each in written if not _is_policy(each)]
        for policy in filter(_is_policy, written):
            mutates_others = "mutateExisting" in policy["spec"].get("evaluation", {})
            for trigger in objects:
                yield {
                    "op": "celpolicy",
                    "policy": policy,
                    "object": trigger,
                    "operation": "CREATE",
                    "user": USER,
                    "sources": {"around": objects},
                    "objects": objects if mutates_others else [],
                }


def _is_policy(document: Json) -> bool:
    return str(document["apiVersion"]).startswith("policies.kyverno.io/")
