"""Small builders for the lab's tests, and the example that most of them play with."""

from __future__ import annotations

from pathlib import Path

from generators.manifests import Documents, read, read_bytes
from generators.tenants.load import load_tenants
from generators.tenants.model import TenantConfig

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/two-clients"
TENANTS = EXAMPLE / "tenants.yaml"
CLUSTER = EXAMPLE / "cluster.yaml"


def example() -> Documents:
    """The objects of examples/two-clients."""
    return read([str(CLUSTER)])


def tenants() -> TenantConfig:
    """The tenant file of examples/two-clients."""
    return load_tenants(TENANTS)


def objects(text: str) -> Documents:
    """Documents written in a test."""
    return read_bytes(text.encode(), "test.yaml")


def namespace(name: str, **labels: str) -> str:
    """A Namespace document."""
    return f"""
---
apiVersion: v1
kind: Namespace
metadata: {{name: {name}, labels: {_flow(labels)}}}
"""


def pod(key: str, port: int = 80, extra: str = "", **labels: str) -> str:
    """A Pod document; `extra` are further top-level lines."""
    namespace, name = key.split("/")
    return f"""
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {_flow(labels)}}}
spec: {{containers: [{{name: main, image: main, ports: [{{containerPort: {port}}}]}}]}}
{extra}
"""


def _flow(labels: dict[str, str]) -> str:
    pairs = (f'{key}: "{value}"' for key, value in labels.items())
    return "{" + ", ".join(pairs) + "}"
