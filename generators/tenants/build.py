"""From the parts of a tenant file to the model; called by load.py on a file without defects."""

from __future__ import annotations

from collections.abc import Callable

from generators.tenants.model import (
    ALWAYS_PROTECTED,
    DEFAULT_LABEL_KEY,
    Grant,
    Grants,
    Mode,
    NameMatch,
    NamespaceNames,
    Port,
    SharedComponent,
    SubjectKind,
    Subjects,
    Tenant,
    TenantConfig,
    Unassigned,
)
from generators.tenants.parts import Part


def service_account(name: str) -> str:
    """`namespace/name` as the username that the API server gives it."""
    namespace, _, account = name.partition("/")
    return f"system:serviceaccount:{namespace}:{account}"


def build_config(root: Part, file: str, digest: str) -> TenantConfig:
    """The whole file as one value."""
    protected = root.field("protectedNamespaces")
    grants = root.field("grants").text(Grants.FILE)
    found = (_tenant(part, grants) for part in root.field("tenants").items())
    tenants = sorted(found, key=lambda tenant: tenant.name)
    return TenantConfig(
        tenants={tenant.name: tenant for tenant in tenants},
        label_key=root.field("labelKey").text(DEFAULT_LABEL_KEY),
        retired_label_keys=frozenset(root.field("retiredLabelKeys").texts()),
        mode=Mode(root.field("mode").text(Mode.STRICT)),
        admins=_subjects(root.field("admins")),
        protected_namespaces=ALWAYS_PROTECTED.union(protected.texts()),
        shared=tuple(map(_shared, root.field("shared").items())),
        encapsulating=frozenset(
            root.field("encapsulation").field("namespaces").field("names").texts()
        ),
        unassigned=Unassigned(root.field("defaults").field("unassigned").text(Unassigned.IGNORE)),
        file=file,
        digest=digest,
        sources=root.document.sources,
    )


def _tenant(part: Part, grants: str) -> Tenant:
    return Tenant(
        name=part.field("name").text(),
        namespaces=_names(part.field("namespaces")),
        members=_subjects(part.field("members")),
        labels={key: value.text() for key, value in sorted(part.field("labels").fields())},
        allow_from=tuple(map(_grant, part.field("allowFrom").items())),
        allow_to=tuple(map(_grant, part.field("allowTo").items())),
        allow_masked=part.field("allowMasked").flag(),
        map_share=part.field("mapShare").number(),
        self_service=part.field("grants").text(grants) == Grants.SELF_SERVICE,
        audited=part.field("mode").text() == Mode.AUDIT,
        line=part.line,
    )


def _shared(part: Part) -> SharedComponent:
    return SharedComponent(
        name=part.field("name").text(),
        namespaces=tuple(sorted(part.field("namespaces").field("names").texts())),
        ports=build_ports(part.field("ports")),
        host_network=part.field("hostNetwork").flag(),
        line=part.line,
    )


def _names(part: Part) -> NamespaceNames:
    lists = (
        (NameMatch.NAME, part.field("names")),
        (NameMatch.PREFIX, part.field("prefixes")),
        (NameMatch.SUFFIX, part.field("suffixes")),
    )
    lines = {(match, item.text()): item.line for match, each in lists for item in each.items()}
    names, prefixes, suffixes = (tuple(sorted(each.texts())) for _, each in lists)
    return NamespaceNames(names, prefixes, suffixes, lines)


def _subjects(part: Part) -> Subjects:
    lines: dict[tuple[SubjectKind, str], int] = {}

    def take(name: str, kind: SubjectKind, full: Callable[[str], str] = str) -> frozenset[str]:
        found = {full(item.text()): item.line for item in part.field(name).items()}
        lines.update({(kind, subject): line for subject, line in found.items()})
        return frozenset(found)

    return Subjects(
        users=take("users", SubjectKind.USER),
        groups=take("groups", SubjectKind.GROUP),
        service_accounts=take("serviceAccounts", SubjectKind.SERVICE_ACCOUNT, service_account),
        lines=lines,
    )


def _grant(part: Part) -> Grant:
    return Grant(part.field("tenant").text(), build_ports(part.field("ports")), part.line)


def build_ports(part: Part) -> tuple[Port, ...]:
    """The ports of a shared component or a grant, in file order."""
    return tuple(
        Port(
            item.field("protocol").text("TCP"),
            item.field("port").number(),
            item.field("endPort").number(),
        )
        for item in part.items()
    )
