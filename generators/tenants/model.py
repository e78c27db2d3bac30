"""The tenant file as values: what load.py accepts, and all that other code sees of it.

A `TenantConfig` answers two questions from indexes that it builds once: which tenants claim a
namespace name (`claims`) and which tenants a requester is a member of (`memberships`).
assignment.py decides with the answers. Lines of the file travel with the values, so that every
reason can say `tenants.yaml:14`; they do not take part in comparison.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from generators.tenants.folder import Sources, located

API_VERSION = "ringfence.io/v1alpha1"
KIND = "TenantConfig"
DEFAULT_LABEL_KEY = "ringfence.io/tenant"
ALWAYS_PROTECTED = frozenset({"kube-node-lease", "kube-public", "kube-system", "ringfence-system"})
"""The system's own namespaces; `protectedNamespaces` adds to them."""
LAST_PORT = 65535


class Mode(StrEnum):
    """How the tenant wall acts: it drops, leaves it to NetworkPolicies, or only reports."""

    STRICT = "strict"
    OVERRIDABLE = "overridable"
    AUDIT = "audit"


class Grants(StrEnum):
    """Who may consent to grants: the tenant file alone, or members of tenants as well."""

    FILE = "file"
    SELF_SERVICE = "self-service"


class Unassigned(StrEnum):
    """What becomes of the creation of a namespace that belongs to no tenant."""

    IGNORE = "ignore"
    DENY = "deny"


class NameMatch(StrEnum):
    """How a tenant claims a namespace name; a name beats every affix."""

    NAME = "name"
    PREFIX = "prefix"
    SUFFIX = "suffix"


class SubjectKind(StrEnum):
    """What a requester is known by."""

    USER = "user"
    GROUP = "group"
    SERVICE_ACCOUNT = "service account"


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """A port that a shared component or a grant may use. None = every port of the protocol."""

    protocol: str = "TCP"
    port: int | None = None
    end_port: int | None = None

    def __str__(self) -> str:
        """`80/TCP`, `8000-8010/TCP`, `UDP` for all of a protocol."""
        if self.port is None:
            return self.protocol
        last = f"-{self.end_port}" if self.end_port else ""
        return f"{self.port}{last}/{self.protocol}"

    @property
    def span(self) -> tuple[int, int]:
        """First and last port number."""
        if self.port is None:
            return 1, LAST_PORT
        return self.port, self.end_port or self.port


@dataclass(frozen=True, slots=True)
class Subjects:
    """Requesters. Service accounts are full usernames: `system:serviceaccount:NAMESPACE:NAME`."""

    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    service_accounts: frozenset[str] = frozenset()
    lines: Mapping[tuple[SubjectKind, str], int] = field(
        default_factory=dict, compare=False, repr=False
    )

    def each(self) -> tuple[tuple[SubjectKind, str], ...]:
        """Every subject with its kind, sorted."""
        kinds = (
            (SubjectKind.USER, self.users),
            (SubjectKind.GROUP, self.groups),
            (SubjectKind.SERVICE_ACCOUNT, self.service_accounts),
        )
        return tuple((kind, subject) for kind, subjects in kinds for subject in sorted(subjects))


@dataclass(frozen=True, slots=True)
class NamespaceNames:
    """Which namespace names belong: exact names, prefixes, suffixes; sorted."""

    names: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    lines: Mapping[tuple[NameMatch, str], int] = field(
        default_factory=dict, compare=False, repr=False
    )

    def each(self) -> tuple[tuple[NameMatch, str], ...]:
        """Every name and affix with its kind: names, prefixes, suffixes."""
        kinds = (
            (NameMatch.NAME, self.names),
            (NameMatch.PREFIX, self.prefixes),
            (NameMatch.SUFFIX, self.suffixes),
        )
        return tuple((match, text) for match, texts in kinds for text in texts)


@dataclass(frozen=True, slots=True)
class Grant:
    """One side's consent. In `allowFrom`, `tenant` may enter us; in `allowTo`, we may enter it.

    No ports = all.
    """

    tenant: str
    ports: tuple[Port, ...] = ()
    line: int = 0
    objects: tuple[str, ...] = field(default=(), compare=False)
    """Namespaces in which tenants say so themselves, beside or instead of the file."""


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
    """One tenant; its name is the value of the tenant label."""

    name: str
    namespaces: NamespaceNames = NamespaceNames()
    members: Subjects = Subjects()
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    allow_from: tuple[Grant, ...] = ()
    allow_to: tuple[Grant, ...] = ()
    allow_masked: bool = False
    map_share: int | None = None
    """Percent of every map on a node that is kept for it; None: an equal part of the rest."""
    self_service: bool = False
    """Its members may consent to grants by themselves."""
    audited: bool = False
    """Its wall and its generated policies only report, whatever the file's mode."""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """Why a namespace name belongs to a tenant: the entry of the file that matches it."""

    tenant: str
    match: NameMatch
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Membership:
    """Why a requester belongs to a tenant: the entry of `members` that names them."""

    tenant: str
    kind: SubjectKind
    subject: str
    line: int


class ClaimIndex:
    """Finds the strongest claims on a name, in time that does not grow with the tenants."""

    __slots__ = ("_by", "_lengths")

    def __init__(self, tenants: Iterable[Tenant]) -> None:
        self._by: dict[NameMatch, dict[str, list[Claim]]] = {match: {} for match in NameMatch}
        for tenant in tenants:
            for match, text in tenant.namespaces.each():
                line = tenant.namespaces.lines.get((match, text), tenant.line)
                claim = Claim(tenant.name, match, text, line)
                self._by[match].setdefault(text, []).append(claim)
        affixes = (*self._by[NameMatch.PREFIX], *self._by[NameMatch.SUFFIX])
        self._lengths = sorted({len(affix) for affix in affixes}, reverse=True)

    def strongest(self, name: str) -> tuple[Claim, ...]:
        """The exact name's claims; without any, those of the longest affix that matches."""
        if exact := self._by[NameMatch.NAME].get(name):
            return tuple(exact)
        for length in self._lengths:
            if length > len(name):
                continue
            prefixed = self._by[NameMatch.PREFIX].get(name[:length], [])
            suffixed = self._by[NameMatch.SUFFIX].get(name[-length:], [])
            if prefixed or suffixed:
                return (*prefixed, *suffixed)
        return ()


class MemberIndex:
    """Finds the tenants of a requester by username and groups."""

    __slots__ = ("_groups", "_names")

    def __init__(self, tenants: Iterable[Tenant]) -> None:
        self._names: dict[str, list[Membership]] = {}
        self._groups: dict[str, list[Membership]] = {}
        for tenant in tenants:
            for kind, subject in tenant.members.each():
                line = tenant.members.lines.get((kind, subject), tenant.line)
                index = self._groups if kind is SubjectKind.GROUP else self._names
                member = Membership(tenant.name, kind, subject, line)
                index.setdefault(subject, []).append(member)

    def of(self, username: str, groups: frozenset[str]) -> tuple[Membership, ...]:
        """One Membership a tenant, by tenant name; the username's comes before a group's."""
        found: dict[str, Membership] = {}
        for membership in self._names.get(username, ()):
            found.setdefault(membership.tenant, membership)
        for group in sorted(groups):
            for membership in self._groups.get(group, ()):
                found.setdefault(membership.tenant, membership)
        return tuple(found[tenant] for tenant in sorted(found))


@dataclass(frozen=True, slots=True)
class TenantConfig:
    """A whole, valid tenant file. `tenants` is keyed by name in name order."""

    tenants: Mapping[str, Tenant] = field(default_factory=dict, hash=False)
    label_key: str = DEFAULT_LABEL_KEY
    mode: Mode = Mode.STRICT
    admins: Subjects = Subjects()
    protected_namespaces: frozenset[str] = ALWAYS_PROTECTED
    shared: tuple[SharedComponent, ...] = ()
    encapsulating: frozenset[str] = frozenset()
    """Namespaces whose pods may send encapsulated packets to nodes."""
    unassigned: Unassigned = Unassigned.IGNORE
    file: str = ""
    digest: str = ""
    """SHA-256 of the file's bytes in hex: status, metrics and logs tell which file is in force."""
    sources: Sources = field(default=(), compare=False)
    """Of a folder: which file each line is of."""
    retired_label_keys: frozenset[str] = frozenset()
    """Keys of the tenant label in former files: namespaces no longer carry them."""
    _claims: ClaimIndex = field(init=False, repr=False, compare=False)
    _members: MemberIndex = field(init=False, repr=False, compare=False)
    _components: Mapping[str, SharedComponent] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Frozen means that nobody changes the value later; the indexes are part of making it.
        object.__setattr__(self, "_claims", ClaimIndex(self.tenants.values()))
        object.__setattr__(self, "_members", MemberIndex(self.tenants.values()))
        components = {name: part for part in reversed(self.shared) for name in part.namespaces}
        object.__setattr__(self, "_components", components)

    def located(self, line: int) -> tuple[str, int]:
        """The file that a line of a tenant, component or claim stands in, and its line there."""
        return located(self.sources, self.file, line)

    def place(self, line: int) -> str:
        """The same as `FILE:LINE`."""
        return ":".join(map(str, self.located(line)))

    def retiring(self, keys: frozenset[str]) -> TenantConfig:
        """The same file with further retired keys of the tenant label."""
        return replace(self, retired_label_keys=self.retired_label_keys | keys)

    def audits(self, tenant: str | None) -> bool:
        """Whether nothing is cut of a tenant's traffic, only reported; None: in quarantine."""
        known = self.tenants.get(tenant) if tenant is not None else None
        return self.mode is Mode.AUDIT or (known is not None and known.audited)

    def claims(self, namespace: str) -> tuple[Claim, ...]:
        """The strongest claims on a namespace name; those of two tenants are a tie."""
        return self._claims.strongest(namespace)

    def tied(self, namespace: str) -> bool:
        """Whether two tenants claim a namespace name equally well."""
        return len({claim.tenant for claim in self.claims(namespace)}) > 1

    def tenant(self, name: str) -> Tenant:
        """A tenant by name; one that has left the file has a name and nothing else."""
        return self.tenants.get(name) or Tenant(name)

    def memberships(self, username: str, groups: frozenset[str]) -> tuple[Membership, ...]:
        """The tenants that name this requester as a member, one entry each, by tenant name."""
        return self._members.of(username, groups)

    def component(self, namespace: str) -> SharedComponent | None:
        """The shared component that lives in a namespace, the first in file order."""
        return self._components.get(namespace)

    def consented(self, tenant: str) -> tuple[Grant, ...]:
        """The grants by which others may enter `tenant`, in file order.

        Those of its `allowFrom` that the other side's `allowTo` confirms, with the ports that both
        sides allow.
        """
        grants = []
        for ours in self.tenant(tenant).allow_from:
            other = self.tenants.get(ours.tenant)
            for theirs in other.allow_to if other else ():
                if theirs.tenant != tenant:
                    continue
                ports = common_ports(ours.ports, theirs.ports)
                if ports is not None:
                    said = (*ours.objects, *theirs.objects)
                    grants.append(Grant(ours.tenant, ports, ours.line, said))
        return tuple(grants)


def common_ports(ours: tuple[Port, ...], theirs: tuple[Port, ...]) -> tuple[Port, ...] | None:
    """The ports that both lists allow, where an empty list allows all; None = not a single one.

    None and the empty tuple differ on purpose: to take "nothing" for "everything" would open a
    grant.
    """
    if not ours or not theirs:
        return ours or theirs
    spans: set[tuple[str, int, int]] = set()
    for mine in ours:
        for other in theirs:
            low = max(mine.span[0], other.span[0])
            high = min(mine.span[1], other.span[1])
            if mine.protocol == other.protocol and low <= high:
                spans.add((mine.protocol, low, high))
    return tuple(_port(*span) for span in _merged(spans)) or None


def all_ports(lists: Iterable[tuple[Port, ...]]) -> tuple[Port, ...]:
    """The ports that any of the lists allows; empty = all."""
    every = list(lists)
    if not all(every):
        return ()
    spans = {(port.protocol, *port.span) for ports in every for port in ports}
    return tuple(_port(*span) for span in _merged(spans))


def _merged(spans: Iterable[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Sorted spans in which none touches another of its protocol."""
    merged: list[tuple[str, int, int]] = []
    for protocol, low, high in sorted(spans):
        if merged and merged[-1][0] == protocol and low <= merged[-1][2] + 1:
            _, start, end = merged.pop()
            merged.append((protocol, start, max(end, high)))
        else:
            merged.append((protocol, low, high))
    return merged


def _port(protocol: str, low: int, high: int) -> Port:
    if (low, high) == (1, LAST_PORT):
        return Port(protocol)
    return Port(protocol, low, None if low == high else high)
