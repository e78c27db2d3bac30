"""charts/ringfence as its tests see it: where it is, its cases, and renders as objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import yaml

from generators.documents.json import Document, mapping, mappings, text
from tests.charts.helm import Helm

CHECKOUT = Path(__file__).resolve().parents[3]
CHART = CHECKOUT / "charts/ringfence"
SYSTEM = "ringfence-system"
CASES: Mapping[str, tuple[str, ...]] = {
    "default": (),
    **{path.stem: ("--values", str(path)) for path in sorted((CHART / "ci").glob("*.yaml"))},
}
"""Name of a case -> what helm is told."""
FOREIGN = ("cert-manager.io/v1", "monitoring.coreos.com/v1")
"""API groups whose owners are not part of the tests' cluster."""


@cache
def render(helm: Helm, case: str) -> str:
    """The same for all tests that only look."""
    return helm.template("ringfence", CHART, *CASES[case], namespace=SYSTEM)


def documents(rendered: str) -> list[Document]:
    """In the order of the text."""
    return [d for d in yaml.safe_load_all(rendered) if d]


def name(document: Document) -> str:
    return f"{text(document, 'kind')}/{text(mapping(document, 'metadata'), 'name')}"


def find(found: list[Document], wanted: str) -> Document:
    """The object `Kind/name`."""
    (only,) = [d for d in found if name(d) == wanted]
    return only


def pod_specs(found: list[Document]) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Every pod that would run, by the object it comes from."""
    for document in found:
        spec = mapping(document, "spec")
        if text(document, "kind") == "Pod":
            yield name(document), spec
        elif template := mapping(spec, "template"):
            yield name(document), mapping(template, "spec")


def containers(spec: Mapping[str, object]) -> list[Mapping[str, object]]:
    return [*mappings(spec, "initContainers"), *mappings(spec, "containers")]
