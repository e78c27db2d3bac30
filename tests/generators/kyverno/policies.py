"""Policies, requests and clusters for the tests of the engine, from as few words as possible."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from generators.documents.json import ObjectKey, ObjectKind, Value
from generators.kyverno.engine import Environment
from generators.kyverno.limits import DEFAULT_KINDS, Limits
from generators.kyverno.model import Document, Operation, Policy
from generators.kyverno.offline.cluster import DocumentCluster
from generators.kyverno.offline.loading import policies_in
from generators.kyverno.requests import Asker, PolicyRequest

NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
NAMESPACE = ObjectKind("", "v1", "Namespace")
EVERY_KIND = Limits(kinds=None, paths=("*",))


def ns(name: str, **labels: str) -> Document:
    """A namespace; `__` in a label's name stands for `/`."""
    metadata: Document = {"name": name, "uid": f"uid-{name}"}
    if labels:
        metadata["labels"] = {key.replace("__", "/"): value for key, value in labels.items()}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def thing(kind: str, namespace: str, name: str, api_version: str = "v1", **body: Value) -> Document:
    metadata: Document = {"name": name, "namespace": namespace}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **body}


def create(document: Document, requester: Asker | None = None) -> PolicyRequest:
    return PolicyRequest(Operation.CREATE, document, {}, requester)


def update(old: Document, new: Document, requester: Asker | None = None) -> PolicyRequest:
    return PolicyRequest(Operation.UPDATE, new, old, requester)


def delete(document: Document) -> PolicyRequest:
    return PolicyRequest(Operation.DELETE, {}, document)


def policies(text: str) -> tuple[Policy, ...]:
    """Policies of a YAML text that has to be right."""
    loaded = policies_in(textwrap.dedent(text).encode(), "policy.yaml")
    assert loaded.problems == ()
    return loaded.policies


def rule(
    body: str, head: str = "", kind: str = "ClusterPolicy", namespace: str = ""
) -> tuple[Policy, ...]:
    """One policy with one rule; `body` are the rule's fields, `head` those of the spec."""
    home = f"\n  namespace: {namespace}" if namespace else ""
    rule_text = textwrap.indent(textwrap.dedent(body).strip(), "    ")
    spec = textwrap.indent(textwrap.dedent(head).strip(), "  ")
    text = (
        f"apiVersion: kyverno.io/v1\nkind: {kind}\nmetadata:\n  name: policy{home}\nspec:\n{spec}\n"
        f"  rules:\n  - name: rule\n{rule_text}\n"
    )
    return policies(text)


ANY_NAMESPACE = "match: {any: [{resources: {kinds: [Namespace]}}]}"


def mutate_rule(patch: str, more: str = "") -> tuple[Policy, ...]:
    """A rule on namespaces that merges `patch`."""
    inner = textwrap.indent(textwrap.dedent(patch).strip(), "    ")
    extra = f"\n{textwrap.dedent(more).strip()}" if more else ""
    return rule(f"{ANY_NAMESPACE}{extra}\nmutate:\n  patchStrategicMerge:\n{inner}")


def generate_rule(generate: str, more: str = "", **named: str) -> tuple[Policy, ...]:
    """A rule that namespaces trigger."""
    inner = textwrap.indent(textwrap.dedent(generate).strip(), "  ")
    extra = f"\n{textwrap.dedent(more).strip()}" if more else ""
    return rule(f"{ANY_NAMESPACE}{extra}\ngenerate:\n{inner}", **named)


@dataclass
class Values:
    """Values from outside, the same for every rule."""

    values: Mapping[str, Value] = field(default_factory=dict)

    def __call__(self, policy: Policy, rule: object, resource: ObjectKey) -> Mapping[str, Value]:
        return self.values


def environment(
    documents: Sequence[Document] = (),
    limits: Limits | None = None,
    values: Mapping[str, Value] | None = None,
) -> Environment:
    allowed = limits if limits is not None else Limits(kinds=DEFAULT_KINDS, paths=("*",))
    return Environment(DocumentCluster(documents), allowed, lambda: NOON, Values(values or {}))
