"""A large cluster for benches: tenants with namespaces that each belong by their suffix."""

from __future__ import annotations

from generators.tenants.load import parse_tenants
from generators.tenants.model import TenantConfig

LABEL_KEY = "client"


def tenant_file(tenants: int) -> bytes:
    """A tenant file as a platform team would write it, with `tenants` tenants."""
    head = f"""\
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
labelKey: {LABEL_KEY}
shared:
  - name: ingress
    namespaces: {{names: [ingress]}}
  - name: monitoring
    namespaces: {{names: [monitoring]}}
    ports: [{{port: 9090, protocol: TCP}}]
tenants:
"""
    return (head + "".join(map(_tenant, range(tenants)))).encode()


def _tenant(number: int) -> str:
    name = tenant_name(number)
    return f"""\
  - name: {name}
    namespaces: {{suffixes: ["-{name}"]}}
    members: {{groups: [team-{name}]}}
    labels: {{cost-centre: "{number}"}}
"""


def tenant_name(number: int) -> str:
    """The name of one tenant; all are equally long, so no suffix is the end of another."""
    return f"t{number:05}"


def config(tenants: int) -> TenantConfig:
    """The tenant file as a value."""
    return parse_tenants(tenant_file(tenants), "tenants.yaml")


def namespaces(tenants: int, each: int) -> list[tuple[str, str]]:
    """All (namespace, tenant) pairs."""
    names = map(tenant_name, range(tenants))
    return [(f"app{number}-{name}", name) for name in names for number in range(each)]
