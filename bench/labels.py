"""From a name to the JSON Patch that labels the namespace: 10,000 of them, 1,000 tenants."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from bench.measure import Comparison, Scale, Series, Unit, alternate, timed_each
from bench.parts import cluster
from generators.labels import label_patch
from generators.tenants.assignment import Requester, assign

ROBOT = Requester("system:serviceaccount:robots:provisioner", frozenset({"system:authenticated"}))
LABELS = {"kubernetes.io/metadata.name": "shop", "team": "shop"}


def run(scale: Scale) -> Iterator[Comparison]:
    """`assign` and `label_patch` against what a script of ten lines would do."""
    tenants = scale.of(1000, 5)
    config = cluster.config(tenants)
    names = [name for name, _ in cluster.namespaces(tenants, 10)]
    patterns = [(tenant, re.compile(f".*-{tenant}$")) for tenant in config.tenants]

    def copied(_: str) -> Mapping[str, str]:
        return {**LABELS, cluster.LABEL_KEY: "test01"}

    def searched(name: str) -> Mapping[str, str]:
        found = next(tenant for tenant, pattern in patterns if pattern.match(name))
        return {**LABELS, cluster.LABEL_KEY: found}

    def assigned(name: str) -> object:
        return label_patch(LABELS, assign(config, name, LABELS, ROBOT).labels)

    subjects = {
        "regular expressions in a loop": timed_each(searched, names),
        "copy of a dict, no decision": timed_each(copied, names),
        "assign + label_patch": timed_each(assigned, names),
    }
    samples = alternate(subjects, rounds=scale.of(5, 1))
    yield Comparison(
        f"Label {len(names)} namespaces of {tenants} tenants, time a namespace",
        tuple(
            Series(
                name,
                Unit.SECONDS,
                found,
                {"all of them": f"{sum(found) / scale.of(5, 1) * 1000:.1f} ms"},
            )
            for name, found in samples.items()
        ),
    )
