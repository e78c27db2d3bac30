"""Which tenant a namespace belongs to: decided by the requester and the name.

Called by the webhook for each request (`assign`), and by the controller and the offline commands
for namespaces without a request (`assign_by_name`). A label in the request is a wish, never a
proof.

    requester              | tenant
    -----------------------|---------------------------------------------------------------------
    admin                  | the label if one is given, else the name
    member of one tenant   | that tenant; a name or a label of another is refused
    member of several      | the name chooses among them, else the label; neither: refused
    no tenant's member     | the name; a label that says something else is refused

Before the table: protected and shared namespaces have no tenant. Exact names beat affixes, the
longest affix wins, a tie is refused with both tenants named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from generators.objects import Labels
from generators.tenants.model import Claim, Membership, NameMatch, TenantConfig, Unassigned

MASTERS = "system:masters"
SYSTEM_USERS = (
    "system:serviceaccount:kube-system:",
    "system:node:",
    "system:kube-",
)
"""Beginnings of usernames that are parts of the cluster, whatever groups they are in."""
API_SERVER = "system:apiserver"


class Outcome(StrEnum):
    """What was decided about a namespace; the first three let its creation pass."""

    ASSIGNED = "ASSIGNED"
    UNASSIGNED = "UNASSIGNED"
    RESERVED = "RESERVED"
    DENIED = "DENIED"
    AMBIGUOUS = "AMBIGUOUS"


ALLOWED = frozenset({Outcome.ASSIGNED, Outcome.UNASSIGNED, Outcome.RESERVED})


@dataclass(frozen=True, slots=True)
class Requester:
    """Who asks, as the API server authenticated them."""

    username: str
    groups: frozenset[str] = frozenset()


NOBODY = Requester("")
"""A requester who is no tenant's member: offline questions about a name alone."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The decision about one namespace, with a sentence for the person who asked.

    `labels` are all that the namespace should carry for its tenant; empty without one.
    """

    namespace: str
    tenant: str | None
    outcome: Outcome
    reason: str
    labels: Labels = field(default_factory=dict, hash=False)

    @property
    def allowed(self) -> bool:
        """Whether a namespace may be created like this."""
        return self.outcome in ALLOWED


def is_admin(config: TenantConfig, requester: Requester) -> bool:
    """Whether the requester may give a namespace to any tenant, and move it."""
    admins = config.admins
    return (
        MASTERS in requester.groups
        or requester.username in admins.users
        or requester.username in admins.service_accounts
        or not admins.groups.isdisjoint(requester.groups)
    )


def is_system(requester: Requester) -> bool:
    """Whether the requester is a part of the cluster itself, and so no tenant's member."""
    return requester.username == API_SERVER or requester.username.startswith(SYSTEM_USERS)


def assign(
    config: TenantConfig,
    name: str,
    labels: Mapping[str, str],
    requester: Requester,
    *,
    generated: bool = False,
) -> Assignment:
    """Decide the tenant of a namespace that `requester` creates with these labels.

    `generated`: the name is still to be made from `generateName`, so only what does not need the
    name is decided; ask again when it is known.
    """
    wish = labels.get(config.label_key)
    ask = _Question(config, name, wish, generated, () if generated else config.claims(name))
    members: tuple[Membership, ...] = ()
    admin = is_admin(config, requester)
    if not admin and not is_system(requester):
        members = config.memberships(requester.username, requester.groups)
    if not generated and (owner := reserved(config, name)):
        return _reserved(ask, owner, members)
    if admin:
        return _for_admin(ask)
    if len(members) == 1:
        return _for_member(ask, members[0])
    if members:
        return _for_member_of_several(ask, members)
    return _for_nobodys_member(ask)


def assign_by_name(config: TenantConfig, name: str) -> Assignment:
    """The tenant by name alone: for namespaces that existed before, and offline.

    What exists cannot be refused: without a match it is UNASSIGNED, whatever the defaults say.
    """
    ask = _Question(config, name, None, False, config.claims(name))
    if owner := reserved(config, name):
        return ask.without_tenant(Outcome.RESERVED, f"{owner}; it belongs to no tenant")
    return ask.tie() or ask.by_name() or ask.unmatched()


def reserved(config: TenantConfig, name: str) -> str | None:
    """Why a namespace can belong to no tenant (`namespace "x" is protected`), or None."""
    if name in config.protected_namespaces:
        return f'namespace "{name}" is protected (protectedNamespaces)'
    if component := config.component(name):
        where = config.place(component.line)
        return f'namespace "{name}" is that of shared component {component.name} ({where})'
    return None


@dataclass(frozen=True, slots=True)
class _Question:
    """One namespace to decide on, and the answers that all requesters share."""

    config: TenantConfig
    name: str
    wish: str | None
    generated: bool
    claims: tuple[Claim, ...]

    @property
    def claim(self) -> Claim | None:
        """The claim that decides the name; a tie has been answered before."""
        return next(iter(self.claims), None)

    @property
    def asked(self) -> str:
        """The wish as its author wrote it."""
        return f'label {self.config.label_key}: "{self.wish}"'

    def assigned(self, tenant: str, reason: str) -> Assignment:
        labels = {self.config.label_key: tenant, **self.config.tenants[tenant].labels}
        return Assignment(self.name, tenant, Outcome.ASSIGNED, reason, dict(sorted(labels.items())))

    def without_tenant(self, outcome: Outcome, reason: str) -> Assignment:
        return Assignment(self.name, None, outcome, reason)

    def denied(self, reason: str) -> Assignment:
        return self.without_tenant(Outcome.DENIED, reason)

    def by_name(self) -> Assignment | None:
        claim = self.claim
        return self.assigned(claim.tenant, f"name {self.why(claim)}") if claim else None

    def unmatched(self) -> Assignment:
        if self.generated:
            reason = "the name is not generated yet; the tenant is decided when it is"
        else:
            reason = "name matches no name, prefix or suffix of any tenant"
        return self.without_tenant(Outcome.UNASSIGNED, reason)

    def tie(self) -> Assignment | None:
        """The refusal of a name that two tenants claim equally well."""
        claims = self.claims
        if len({claim.tenant for claim in claims}) < 2:
            return None
        both = " and ".join(self.why(claim) for claim in claims)
        reason = f"name {both}; neither is longer, choose a name that only one of them matches"
        return self.without_tenant(Outcome.AMBIGUOUS, reason)

    def why(self, claim: Claim) -> str:
        """`matches suffix "-x" of tenant x (tenants.yaml:14)`."""
        verb = "is name" if claim.match is NameMatch.NAME else f"matches {claim.match}"
        where = self.config.place(claim.line)
        return f'{verb} "{claim.text}" of tenant {claim.tenant} ({where})'

    def membership(self, member: Membership) -> str:
        """`requester is a member of tenant x by group "y" (tenants.yaml:20)`."""
        where = self.config.place(member.line)
        by = f'{member.kind} "{member.subject}"'
        return f"requester is a member of tenant {member.tenant} by {by} ({where})"


def _reserved(ask: _Question, owner: str, members: tuple[Membership, ...]) -> Assignment:
    if members:
        return ask.denied(f"{owner}; {ask.membership(members[0])} and may not create it")
    if ask.wish is not None:
        return ask.denied(f"{owner}; it belongs to no tenant, remove {ask.asked}")
    return ask.without_tenant(Outcome.RESERVED, f"{owner}; it belongs to no tenant")


def _for_admin(ask: _Question) -> Assignment:
    if ask.wish is None:
        return ask.tie() or ask.by_name() or ask.unmatched()
    if ask.wish not in ask.config.tenants:
        known = ", ".join(ask.config.tenants) or "there are none"
        return ask.denied(f"{ask.asked} names no tenant of {ask.config.file}; known: {known}")
    return ask.assigned(ask.wish, f"an admin asked for it by {ask.asked}")


def _for_member(ask: _Question, member: Membership) -> Assignment:
    tenant = member.tenant
    if tie := ask.tie():
        return tie
    if ask.claim and ask.claim.tenant != tenant:
        return ask.denied(f"name {ask.why(ask.claim)}, but {ask.membership(member)}")
    if ask.wish not in (None, tenant):
        return ask.denied(f"{ask.asked} asks for another tenant, but {ask.membership(member)}")
    return ask.assigned(tenant, ask.membership(member))


def _for_member_of_several(ask: _Question, members: tuple[Membership, ...]) -> Assignment:
    choices = {member.tenant: member for member in members}
    theirs = f"requester is a member of tenants {', '.join(choices)}"
    if tie := ask.tie():
        return tie
    if claim := ask.claim:
        if claim.tenant not in choices:
            return ask.denied(f"name {ask.why(claim)}, but {theirs}")
        if ask.wish not in (None, claim.tenant):
            return ask.denied(f"{ask.asked} contradicts the name, which {ask.why(claim)}")
        return ask.assigned(claim.tenant, f"{theirs}; name {ask.why(claim)}")
    if ask.wish in choices:
        return ask.assigned(choices[ask.wish].tenant, f"{theirs}; chosen by {ask.asked}")
    if ask.wish is not None:
        return ask.denied(f"{ask.asked} asks for another tenant, but {theirs}")
    if ask.generated:
        return ask.unmatched()
    return ask.denied(
        f"{theirs} and the name chooses none; set label {ask.config.label_key} to one of them"
    )


def _for_nobodys_member(ask: _Question) -> Assignment:
    if ask.generated:
        return ask.unmatched()
    if tie := ask.tie():
        return tie
    if claim := ask.claim:
        if ask.wish not in (None, claim.tenant):
            return ask.denied(f"{ask.asked} contradicts the name, which {ask.why(claim)}")
        return ask.assigned(claim.tenant, f"name {ask.why(claim)}")
    unmatched = ask.unmatched()
    if ask.wish is not None:
        fix = f"leave the label out, or make the requester an admin of {ask.config.file}"
        return ask.denied(f"{ask.asked} proves nothing: {unmatched.reason}; {fix}")
    if ask.config.unassigned is Unassigned.DENY:
        return ask.denied(f"{unmatched.reason}, and defaults.unassigned is deny")
    return unmatched
