"""Tenant file -> the tenant wall as ClusterNetworkPolicies, for engines other than our agents.

One wall a tenant (policy.networking.k8s.io/v1alpha2, tier Admin): who may enter passes on to the
NetworkPolicies, every other pod is denied. A tenant under audit has none, for that kind has no
audit mode; nor has a file whose mode is `overridable`, for no policy overrules that tier. The kind
cannot name nodes or masked addresses as sources, and need not: it judges pods only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TypeVar

from generators.labels import MANAGED_BY, MANAGER, POLICY_LABEL, WALL
from generators.manifests.writing import Document
from generators.objects import NAME_LABEL
from generators.tenants.model import Mode, Port, Tenant, TenantConfig

T = TypeVar("T")
PRIORITY = 500
"""Of 0 to 1000, first to last; admins have room on both sides."""
MOST = 25
"""Rules of a policy, and ports of a rule."""


def walls(config: TenantConfig) -> tuple[Document, ...]:
    """The walls of all tenants, by name of the tenant; the same bytes for the same file."""
    if config.mode is not Mode.STRICT:
        return ()
    return tuple(
        wall
        for name, tenant in sorted(config.tenants.items())
        if not config.audits(name)
        for wall in _wall(config, tenant)
    )


def _wall(config: TenantConfig, tenant: Tenant) -> Iterator[Document]:
    """A policy for each 25 rules, one priority after another; the last rule denies."""
    rules = [*_passing(config, tenant), {"name": "wall", "action": "Deny", "from": [_all()]}]
    subject = {"namespaces": {"matchLabels": {config.label_key: tenant.name}}}
    for number, part in enumerate(_parts(rules)):
        suffix = f".{number + 1}" if number else ""
        yield {
            "apiVersion": "policy.networking.k8s.io/v1alpha2",
            "kind": "ClusterNetworkPolicy",
            "metadata": {
                "name": f"ringfence-wall-{tenant.name}{suffix}",
                "labels": {MANAGED_BY: MANAGER, POLICY_LABEL: WALL},
            },
            "spec": {
                "tier": "Admin",
                "priority": PRIORITY + number,
                "subject": subject,
                "ingress": part,
            },
        }


def _passing(config: TenantConfig, tenant: Tenant) -> Iterator[Document]:
    """Who may enter; those with the same ports in one rule."""
    yield from _rules("own tenant", config.label_key, [tenant.name], ())
    shared = [(c.ports, name) for c in config.shared for name in c.namespaces]
    yield from _grouped("shared components", NAME_LABEL, shared)
    granted = [(grant.ports, grant.tenant) for grant in config.consented(tenant.name)]
    yield from _grouped("grants", config.label_key, granted)


def _grouped(
    name: str, key: str, entries: Iterable[tuple[tuple[Port, ...], str]]
) -> Iterator[Document]:
    ordered = sorted(
        ((tuple(sorted((p.protocol, *p.span) for p in ports)), value) for ports, value in entries)
    )
    for spans, group in groupby(ordered, key=lambda entry: entry[0]):
        yield from _rules(name, key, sorted({value for _, value in group}), spans)


def _rules(
    name: str, key: str, values: Sequence[str], spans: Sequence[tuple[str, int, int]]
) -> Iterator[Document]:
    """A rule, or one for each 25 ports; no ports are all."""
    labels: Document = {"matchExpressions": [{"key": key, "operator": "In", "values": values}]}
    if len(values) == 1:
        labels = {"matchLabels": {key: values[0]}}
    rule: Document = {"name": name, "action": "Pass", "from": [{"namespaces": labels}]}
    if not spans:
        yield rule
    for part in _parts(spans):
        yield {**rule, "protocols": [_protocol(*span) for span in part]}


def _parts(whole: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(whole), MOST):
        yield whole[start : start + MOST]


def _protocol(protocol: str, first: int, last: int) -> Document:
    port = {"number": first} if first == last else {"range": {"start": first, "end": last}}
    return {protocol.lower(): {"destinationPort": port}}


def _all() -> Document:
    return {"namespaces": {}}
