"""The tenant file as values: what schema.py lets through, and all that other code knows of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

API_VERSION = "ringfence.io/v1alpha1"
KIND = "TenantConfig"
DEFAULT_LABEL_KEY = "ringfence.io/tenant"
DEFAULT_PROTECTED = ("kube-node-lease", "kube-public", "kube-system", "ringfence-system")


class Mode(StrEnum):
    """How the tenant wall acts (design: strict drops, overridable leaves it to NetworkPolicies, audit reports)."""

    STRICT = "strict"
    OVERRIDABLE = "overridable"
    AUDIT = "audit"


class Unassigned(StrEnum):
    """What becomes of the creation of a namespace that belongs to no tenant."""

    IGNORE = "ignore"
    DENY = "deny"


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """A port that a shared component or a grant may use. None = every port of the protocol."""

    protocol: str = "TCP"
    port: int | None = None
    end_port: int | None = None


@dataclass(frozen=True, slots=True)
class Subjects:
    """Requesters. Service accounts are full usernames: `system:serviceaccount:NAMESPACE:NAME`."""

    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    service_accounts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class NamespaceNames:
    """Which namespace names belong: exact names, prefixes, suffixes; sorted."""

    names: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Grant:
    """One side's consent: in `allowFrom`, `tenant` may enter; in `allowTo`, we may enter `tenant`. No ports = all."""

    tenant: str
    ports: tuple[Port, ...] = ()
    line: int = 0


@dataclass(frozen=True, slots=True)
class SharedComponent:
    """A component that may enter every tenant, known by namespace name. No ports = all."""

    name: str
    namespaces: tuple[str, ...]
    ports: tuple[Port, ...] = ()
    host_network: bool = False
    line: int = 0


@dataclass(frozen=True, slots=True)
class Tenant:
    name: str
    namespaces: NamespaceNames = NamespaceNames()
    members: Subjects = Subjects()
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    allow_from: tuple[Grant, ...] = ()
    allow_to: tuple[Grant, ...] = ()
    allow_masked: bool = False
    line: int = 0


@dataclass(frozen=True, slots=True)
class TenantConfig:
    """A whole, valid tenant file. `tenants` is keyed by name in name order."""

    tenants: Mapping[str, Tenant] = field(default_factory=dict, hash=False)
    label_key: str = DEFAULT_LABEL_KEY
    mode: Mode = Mode.STRICT
    admins: Subjects = Subjects()
    protected_namespaces: frozenset[str] = frozenset(DEFAULT_PROTECTED)
    shared: tuple[SharedComponent, ...] = ()
    unassigned: Unassigned = Unassigned.IGNORE
    file: str = ""
    digest: str = ""
    """SHA-256 of the file's bytes in hex: tells in status, metrics and logs which file is in force."""

    def consented(self, tenant: str) -> tuple[Grant, ...]:
        """Grants by which others may enter `tenant`: those of its `allowFrom` that the other side's
        `allowTo` confirms, with the ports that both sides allow; in file order."""
        raise NotImplementedError
