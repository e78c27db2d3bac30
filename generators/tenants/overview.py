"""Each tenant on a line: its namespaces, members, grants, and which components may enter it.

Pure; printed by `ringfence tenants list` and `get` of a file or of a live cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from generators.objects import Namespace, NetworkPolicy
from generators.tenants.model import Grant, SubjectKind, Tenant, TenantConfig


@dataclass(frozen=True, slots=True)
class TenantOverview:
    """What is known of one tenant; `namespaces` are those that are there and belong to it."""

    tenant: Tenant
    namespaces: tuple[Namespace, ...]
    entered_by: tuple[Grant, ...]
    """Grants that let others in."""
    enters: tuple[tuple[str, Grant], ...]
    """Tenants that let it in, and how."""
    shared: tuple[str, ...]
    policies: tuple[str, ...]

    @property
    def since(self) -> str | None:
        """When its oldest namespace was made, where the objects say so."""
        return min((n.created for n in self.namespaces if n.created), default=None)

    def members(self) -> dict[str, list[str]]:
        """As the tenant file writes them."""
        keys = {
            SubjectKind.USER: "users",
            SubjectKind.GROUP: "groups",
            SubjectKind.SERVICE_ACCOUNT: "serviceAccounts",
        }
        found: dict[str, list[str]] = {key: [] for key in keys.values()}
        for kind, subject in self.tenant.members.each():
            found[keys[kind]].append(subject)
        return found

    def document(self) -> dict[str, object]:
        """As `-o json` prints it."""
        return {
            "tenant": self.tenant.name,
            "namespaces": [namespace.name for namespace in self.namespaces],
            "members": self.members(),
            "grants": [
                *({"from": grant.tenant, **_terms(grant)} for grant in self.entered_by),
                *({"to": other, **_terms(grant)} for other, grant in self.enters),
            ],
            "shared": list(self.shared),
            "policies": list(self.policies),
            "since": self.since,
        }


def _terms(grant: Grant) -> dict[str, object]:
    said = {"agreedIn": list(grant.objects)} if grant.objects else {}
    return {"ports": ports(grant), **said}


def ports(grant: Grant) -> list[str]:
    """`80/TCP`, `8000-8010/TCP`, `UDP` for all of a protocol; none = all ports."""
    return list(map(str, grant.ports))


def overviews(
    config: TenantConfig,
    namespaces: Mapping[str, Namespace],
    tenants: Mapping[str, str],
    policies: Iterable[NetworkPolicy],
) -> Iterator[TenantOverview]:
    """Every tenant of the file, by name; `tenants`: whose each namespace is."""
    listed = list(policies)
    for name, tenant in config.tenants.items():
        own = [namespaces[n] for n in sorted(namespaces) if tenants.get(n) == name]
        names = {namespace.name for namespace in own}
        enters = [
            (other, grant)
            for other in config.tenants
            for grant in config.consented(other)
            if grant.tenant == name
        ]
        yield TenantOverview(
            tenant,
            tuple(own),
            config.consented(name),
            tuple(enters),
            tuple(part.name for part in config.shared),
            tuple(sorted(policy.key for policy in listed if policy.namespace in names)),
        )
