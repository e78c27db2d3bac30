"""Questions about whole policies: each of a file's policies on each of its other objects.

`policies/` holds policies as people write them, by the kinds they are about; ../samples the public
ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.generators.kyverno.reference.shapes import Json, Question

HERE = Path(__file__).parent / "policies"
SAMPLES = Path(__file__).parent.parent / "samples"
USER = {
    "userInfo": {"username": "ann", "groups": ["team-red", "system:authenticated"]},
    "clusterRoles": ["view"],
}


def policies() -> Iterator[Question]:
    """Every policy on every object of its file, then the samples on namespaces."""
    namespaces: list[Json] = []
    for path in sorted(HERE.glob("*.yaml")):
        written = list(yaml.safe_load_all(path.read_text()))
        objects = [each for each in written if not _is_policy(each)]
        namespaces += [each for each in objects if each["kind"] == "Namespace"]
        for policy in filter(_is_policy, written):
            for trigger in objects:
                for operation in _operations(policy):
                    yield _question(policy, trigger, objects, operation)
    for path in sorted(SAMPLES.glob("*.yaml")):
        for policy in yaml.safe_load_all(path.read_text()):
            for trigger in namespaces:
                yield _question(policy, trigger, namespaces, "CREATE")


def _is_policy(document: Json) -> bool:
    return bool(document["kind"] == "ClusterPolicy")


def _has_targets(policy: Json) -> bool:
    return any("targets" in rule.get("mutate", {}) for rule in policy["spec"]["rules"])


def _operations(policy: Json) -> tuple[str, ...]:
    generates = any("generate" in rule for rule in policy["spec"]["rules"])
    return ("CREATE",) if generates else ("CREATE", "UPDATE")


def _question(policy: Json, trigger: Json, objects: list[Json], operation: str) -> Question:
    sources = {
        rule["name"]: [each for each in objects if each is not trigger]
        for rule in policy["spec"]["rules"]
        if "clone" in rule.get("generate", {})
    }
    # What the API server says in a request, and the command line does not.
    home = {"request.namespace": trigger["metadata"]["name"]}
    return {
        "op": "policy",
        "policy": policy,
        "object": trigger,
        "operation": operation,
        "user": USER,
        "sources": sources,
        "objects": objects if _has_targets(policy) else [],
        "values": home if trigger["kind"] == "Namespace" else {},
    }
