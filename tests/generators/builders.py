"""Small objects for table tests, from the YAML that people would write."""

from __future__ import annotations

from generators.addresses import Family
from generators.cluster import Cluster, from_objects, from_record
from generators.manifests import Documents, read_bytes
from generators.reachability.matrix import PortProtocol, single_question
from generators.reachability.reference import Evaluator
from generators.reachability.verdicts import Cell
from generators.tenants.load import parse_tenants
from generators.tenants.model import TenantConfig

TENANTS = """
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
labelKey: client
shared:
  - name: ingress
    namespaces: {names: [ingress]}
tenants:
  - name: blue
    namespaces: {suffixes: ["-blue"]}
  - name: red
    namespaces: {suffixes: ["-red"]}
"""


def config(text: str = TENANTS) -> TenantConfig:
    """A tenant file."""
    return parse_tenants(text.encode(), "tenants.yaml")


def documents(*texts: str) -> Documents:
    """Objects of YAML documents."""
    return read_bytes("\n---\n".join(texts).encode(), "in.yaml")


def cluster(*texts: str, tenants: str | None = None) -> Cluster:
    """A cluster of YAML documents, labelled and isolated by a tenant file if there is one."""
    return from_objects(documents(*texts), config(tenants) if tenants is not None else None)


def recorded(*texts: str, tenants: str = TENANTS) -> Cluster:
    """A cluster as the enforcer sees it."""
    return from_record(documents(*texts), config(tenants))


def namespace(name: str, labels: str = "", uid: str = "") -> str:
    """A Namespace document."""
    meta = f"{{name: {name}, labels: {{{labels}}}, uid: '{uid}'}}"
    return f"apiVersion: v1\nkind: Namespace\nmetadata: {meta}"


def pod(key: str, ips: str = "", spec: str = "", phase: str = "Running", created: str = "") -> str:
    """A Pod document; `ips` are separated by blanks, without them it has no status."""
    home, name = key.split("/")
    status = ""
    if ips or phase != "Running":
        listed = ", ".join(f"{{ip: '{ip}'}}" for ip in ips.split())
        status = f"\nstatus: {{phase: {phase}, podIPs: [{listed}]}}"
    stamp = f", creationTimestamp: '{created}'" if created else ""
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {home}, "
        f"labels: {{app: {name}}}{stamp}}}\nspec: {{{spec}}}{status}"
    )


def policy(key: str, spec: str = "podSelector: {}", labels: str = "") -> str:
    """A NetworkPolicy document."""
    home, name = key.split("/")
    meta = f"{{name: {name}, namespace: {home}, labels: {{{labels}}}}}"
    return (
        f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {meta}\nspec: {{{spec}}}"
    )


def node(name: str, ips: str, cidrs: str = "") -> str:
    """A Node document."""
    addresses = ", ".join(f"{{type: InternalIP, address: '{ip}'}}" for ip in ips.split())
    ranges = ", ".join(f"'{cidr}'" for cidr in cidrs.split())
    return (
        f"apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n"
        f"spec: {{podCIDRs: [{ranges}]}}\nstatus: {{addresses: [{addresses}]}}"
    )


def ask(
    of: Cluster, source: str, destination: str, port: str = "80/TCP", family: Family | None = None
) -> Cell:
    """The evaluator's answer to one question."""
    question = single_question(of, source, destination, PortProtocol.parse(port), family)
    return Evaluator(of).cell(question)


def said(cell: Cell) -> str:
    """A cell in one line: `DROPPED egress=NOT_ISOLATED ingress=TENANT_WALL`."""
    return f"{cell.verdict} egress={cell.egress.reason} ingress={cell.ingress.reason}"
