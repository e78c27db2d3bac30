"""From a tenant file and live namespaces to a plan: 1,000 tenants with 10 namespaces each.

The baseline writes the very objects that are generated as JSON, which any tool has to do at least.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import orjson
import yaml

from bench.measure import Comparison, Scale, Series, Turn, Unit, alternate, timed
from bench.parts import cluster
from generators.documents.writing import to_yaml
from generators.isolation.plan import Change, plan, wanted_by_name
from generators.manifests import namespace_document, policy_document
from generators.manifests.writing import Document
from generators.objects import Namespace, NetworkPolicy
from generators.tenants.load import parse_tenants

DRIFTED_EACH = 10
"""Every tenth policy has lost its rules, so the plan has something to say."""


def run(scale: Scale) -> Iterator[Comparison]:
    """Time of the whole cluster, not of one namespace."""
    tenants = scale.of(1000, 5)
    file = cluster.tenant_file(tenants)
    config = cluster.config(tenants)
    before = {name: Namespace(name) for name, _ in cluster.namespaces(tenants, 10)}
    first = plan(wanted_by_name(config, before.values()), before, ())
    items = [change.item for change in first if change.item is not None]
    labelled = {item.name: item for item in items if isinstance(item, Namespace)}
    policies = [item for item in items if isinstance(item, NetworkPolicy)]
    live = [
        replace(policy, ingress=()) if number % DRIFTED_EACH == 0 else policy
        for number, policy in enumerate(policies)
    ]
    documents = [_document(item) for item in items]

    def planned() -> tuple[Change, ...]:
        return plan(wanted_by_name(config, labelled.values()), labelled, live)

    subjects: dict[str, Turn] = {
        "the objects as JSON (orjson)": timed(lambda: [orjson.dumps(d) for d in documents]),
        "the objects as YAML (PyYAML, C)": timed(
            lambda: yaml.dump_all(documents, Dumper=yaml.CSafeDumper)
        ),
        "tenant file -> config": timed(lambda: parse_tenants(file, "tenants.yaml")),
        "generate + plan": timed(planned),
        "the objects as our YAML": timed(lambda: to_yaml(documents)),
    }
    samples = alternate(subjects, rounds=scale.of(3, 1))
    yield Comparison(
        f"Generate and plan for {tenants} tenants with 10 namespaces each",
        tuple(Series(name, Unit.SECONDS, found) for name, found in samples.items()),
    )


def _document(item: Namespace | NetworkPolicy) -> Document:
    return namespace_document(item) if isinstance(item, Namespace) else policy_document(item)
