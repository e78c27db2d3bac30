"""What a well-shaped tenant file may still get wrong: parts that contradict one another.

Called by load.py. Each rule is one function from the facts of the file to the defects it finds;
RULES and RULES_OF_WHOLE are their table of contents. A rule that argues from what is *not* in the
file ("no consent") runs only on a file without other defects, because what it misses may be the
very part that could not be read.

Names that overlap are no contradiction as long as one match is stronger: a name beats an affix, a
longer affix a shorter one. A prefix of one tenant and a suffix of another, equally long, meet only
in names like `a-x-b` that may never be requested; such a request is refused (Outcome.AMBIGUOUS).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from generators.errors import Problem
from generators.labels import OWN_KEYS
from generators.objects import NAME_LABEL
from generators.tenants.assignment import MASTERS, Requester, is_system
from generators.tenants.build import build_ports, service_account
from generators.tenants.model import ALWAYS_PROTECTED, DEFAULT_LABEL_KEY, NameMatch, common_ports
from generators.tenants.parts import Part
from generators.tenants.schema import MAX_ERRORS, nearest

EVERYBODY = frozenset(
    {"system:authenticated", "system:unauthenticated", "system:serviceaccounts", "system:nodes"}
)
"""Groups that hold far more than admins."""
MOST_SHARES = 90
"""Percent of a map that tenants may be promised together."""


@dataclass(frozen=True, slots=True)
class TenantPart:
    """A tenant's name and its part of the file."""

    name: str
    part: Part


@dataclass(frozen=True, slots=True)
class ClaimPart:
    """An entry of `namespaces` of a tenant."""

    tenant: str
    match: NameMatch
    part: Part

    @property
    def text(self) -> str:
        """The name, prefix or suffix."""
        return self.part.text()


@dataclass(frozen=True, slots=True)
class Facts:
    """The file as the rules look at it."""

    root: Part
    tenants: tuple[TenantPart, ...]
    claims: tuple[ClaimPart, ...]

    @property
    def label_key(self) -> str:
        """The key of the tenant label, as given or by default."""
        return self.root.field("labelKey").text(DEFAULT_LABEL_KEY)


def contradictions(root: Part, *, complete: bool) -> list[Problem]:
    """The defects that the rules find, MAX_ERRORS at most.

    `complete` = nothing of the file was left out before.
    """
    tenants = tuple(
        TenantPart(part.field("name").text(), part) for part in root.field("tenants").items()
    )
    claims = tuple(claim for tenant in tenants for claim in _claims(tenant))
    facts = Facts(root, tenants, claims)
    rules = (*RULES, *RULES_OF_WHOLE) if complete else RULES
    found = (problem for rule in rules for problem in rule(facts))
    return list(islice(found, MAX_ERRORS))


def _claims(tenant: TenantPart) -> Iterator[ClaimPart]:
    namespaces = tenant.part.field("namespaces")
    lists = (
        ("names", NameMatch.NAME),
        ("prefixes", NameMatch.PREFIX),
        ("suffixes", NameMatch.SUFFIX),
    )
    for field, match in lists:
        for part in namespaces.field(field).items():
            yield ClaimPart(tenant.name, match, part)


def _repeated(parts: Iterable[Part], noun: str) -> Iterator[Problem]:
    """Things that may be named only once in the file."""
    first: dict[str, Part] = {}
    for part in parts:
        before = first.setdefault(part.text(), part)
        if before is not part:
            what = f'{noun} "{part.text()}" is already in {before.where}'
            yield part.problem(what, "rename or remove one of them")


def names_are_unique(facts: Facts) -> Iterator[Problem]:
    """Names of tenants, and of shared components, are unique."""
    yield from _repeated((tenant.part.field("name") for tenant in facts.tenants), "tenant")
    shared = facts.root.field("shared").items()
    yield from _repeated((part.field("name") for part in shared), "shared component")


def claims_do_not_collide(facts: Facts) -> Iterator[Problem]:
    """The same name, prefix or suffix is given once: nothing would be stronger."""
    first: dict[tuple[NameMatch, str], ClaimPart] = {}
    for claim in facts.claims:
        before = first.setdefault((claim.match, claim.text), claim)
        if before is claim:
            continue
        where = f"in {before.part.where}"
        if before.tenant == claim.tenant:
            what = f'{claim.match} "{claim.text}" of tenant {claim.tenant} is already {where}'
            yield claim.part.problem(what, "remove one of them")
            continue
        what = (
            f'{claim.match} "{claim.text}" of tenant {claim.tenant} is also that of tenant '
            f"{before.tenant} {where}{_example(claim)}"
        )
        yield claim.part.problem(what, "remove it from one of them or make one longer")


def _example(claim: ClaimPart) -> str:
    if claim.match is NameMatch.NAME:
        return ""
    name = f"{claim.text}x" if claim.match is NameMatch.PREFIX else f"x{claim.text}"
    return f', "{name}" would belong to both'


def reserved_names_are_not_claimed(facts: Facts) -> Iterator[Problem]:
    """Protected and shared namespaces have no tenant."""
    by: dict[tuple[NameMatch, str], list[ClaimPart]] = {}
    for claim in facts.claims:
        by.setdefault((claim.match, claim.text), []).append(claim)
    for name, what, fix in _reserved(facts.root):
        wanted = [(NameMatch.NAME, name)]
        wanted += [(NameMatch.PREFIX, name[:end]) for end in range(1, len(name) + 1)]
        wanted += [(NameMatch.SUFFIX, name[start:]) for start in range(len(name))]
        for claim in (claim for key in wanted for claim in by.get(key, ())):
            verb = "is" if claim.match is NameMatch.NAME else "matches"
            text = f'{claim.match} "{claim.text}" of tenant {claim.tenant} {verb} {what}'
            yield claim.part.problem(text, f"remove it, make it narrower, or {fix}")


def _reserved(root: Part) -> Iterator[tuple[str, str, str]]:
    """Names of protected and shared namespaces, how to speak of them and how to free them."""
    for name in sorted(ALWAYS_PROTECTED):
        what = f'namespace "{name}", which is always protected'
        yield name, what, "name the tenant's namespaces one by one"
    for part in root.field("protectedNamespaces").items():
        if part.text() not in ALWAYS_PROTECTED:
            what = f'protected namespace "{part.text()}" ({part.where})'
            yield part.text(), what, f"unprotect it in {part.where}"
    for component in root.field("shared").items():
        shared = component.field("name").text()
        for part in component.field("namespaces").field("names").items():
            what = f'namespace "{part.text()}" of shared component {shared} ({part.where})'
            yield part.text(), what, f"remove {part.where} from shared"


def label_keys_are_free(facts: Facts) -> Iterator[Problem]:
    """Neither Kubernetes nor Ringfence itself writes the keys that the file makes its own."""
    yield from _free(facts.root.field("labelKey"))
    for part in facts.root.field("retiredLabelKeys").items():
        yield from _free(part)
        if part.text() == facts.label_key:
            what = f'label key "{part.text()}" is retired, and is the labelKey of this file'
            yield part.problem(what, "remove it here, or choose another labelKey")


def _free(part: Part) -> Iterator[Problem]:
    key = part.text()
    prefix = key.rpartition("/")[0]
    if f".{prefix}".endswith((".kubernetes.io", ".k8s.io")):
        what = f'label key "{key}" belongs to Kubernetes'
        yield part.problem(what, f"use a key of your own, such as {DEFAULT_LABEL_KEY}")
    elif key in OWN_KEYS:
        what = f'label key "{key}" marks the objects that Ringfence generates'
        yield part.problem(what, f"use another key, such as {DEFAULT_LABEL_KEY}")
    elif len(prefix) > 253:
        what = f"the prefix of the label key is {len(prefix)} characters long, 253 are allowed"
        yield part.problem(what, "use a shorter one")


def tenant_labels_are_free(facts: Facts) -> Iterator[Problem]:
    """Further labels of a tenant do not touch those that say who it is."""
    taken = {
        facts.label_key: "is the label key, its value is the tenant's name",
        **dict.fromkeys(facts.root.field("retiredLabelKeys").texts(), "is retired"),
        NAME_LABEL: "is set by the API server",
        **dict.fromkeys(OWN_KEYS, "marks the objects that Ringfence generates"),
    }
    for tenant in facts.tenants:
        for key, part in tenant.part.field("labels").fields():
            if key in taken:
                yield part.problem(f'label "{key}" {taken[key]}', "remove it")
            elif len(key.rpartition("/")[0]) > 253:
                what = "the prefix of the label key is longer than the 253 characters allowed"
                yield part.problem(what, "use a shorter one")


def _subjects(part: Part) -> Iterator[tuple[str, Part]]:
    """Every subject below `admins` or `members`: a name that cannot mean two of them, and its part.

    A service account and its full username are the same subject.
    """
    for item in part.field("users").items():
        yield f'user "{item.text()}"', item
    for item in part.field("groups").items():
        yield f'group "{item.text()}"', item
    for item in part.field("serviceAccounts").items():
        yield f'user "{service_account(item.text())}"', item


def admins_are_few(facts: Facts) -> Iterator[Problem]:
    """No admin is a member too, or the whole cluster."""
    admins: dict[str, Part] = {}
    for who, part in _subjects(facts.root.field("admins")):
        admins.setdefault(who, part)
        if part.text() in EVERYBODY:
            what = f"{who} would make every one of its many members an admin"
            yield part.problem(what, "name a group of your own")
    for tenant in facts.tenants:
        for who, part in _subjects(tenant.part.field("members")):
            if who in admins:
                line = admins[who].line
                what = f"{who} is an admin (line {line}) and a member of tenant {tenant.name}"
                yield part.problem(what, f"remove it here or in line {line}")


def members_can_be_members(facts: Facts) -> Iterator[Problem]:
    """A part of the cluster itself never counts as a member, so the entry would do nothing."""
    for tenant in facts.tenants:
        for who, part in _subjects(tenant.part.field("members")):
            username = who.partition('"')[2].rstrip('"')
            if who.startswith("user") and is_system(Requester(username)):
                what = f"{who} is a part of the cluster and never a member of a tenant"
                yield part.problem(what, "remove it")
            elif who == f'group "{MASTERS}"':
                yield part.problem(f"{who} is always an admin, never a member", "remove it")


def port_ranges_are_forward(facts: Facts) -> Iterator[Problem]:
    """`endPort` is not below `port`."""
    owners = [part.field("ports") for part in facts.root.field("shared").items()]
    for tenant in facts.tenants:
        for side in ("allowFrom", "allowTo"):
            owners += [grant.field("ports") for grant in tenant.part.field(side).items()]
    for ports in owners:
        for item in ports.items():
            first, last = item.field("port").number(), item.field("endPort").number()
            if first is not None and last is not None and last < first:
                what = f"endPort {last} is below port {first}"
                yield item.field("endPort").problem(what, "write the smaller number as port")


def shares_leave_room(facts: Facts) -> Iterator[Problem]:
    """A tenth of every map is left for tenants without a share of their own."""
    taken = 0
    for tenant in facts.tenants:
        part = tenant.part.field("mapShare")
        taken += part.number() or 0
        if part.present and taken > MOST_SHARES:
            what = f"with tenant {tenant.name} the mapShares add up to {taken} percent"
            yield part.problem(what, f"lower some: {MOST_SHARES} percent can be given away")


def grants_name_others_once(facts: Facts) -> Iterator[Problem]:
    """A grant is between two tenants, and each side speaks once."""
    for tenant in facts.tenants:
        for side in ("allowFrom", "allowTo"):
            others = [grant.field("tenant") for grant in tenant.part.field(side).items()]
            yield from _repeated(others, f"{side} of tenant {tenant.name} names one twice:")
            for other in others:
                if other.text() == tenant.name:
                    what = f"tenant {tenant.name} grants to itself, which is not needed"
                    yield other.problem(what, "remove the grant or name another tenant")


def tenants_can_have_namespaces(facts: Facts) -> Iterator[Problem]:
    """A tenant that no name and no member leads to is a slip."""
    claiming = {claim.tenant for claim in facts.claims}
    for tenant in facts.tenants:
        if tenant.name not in claiming and not any(_subjects(tenant.part.field("members"))):
            what = f"no namespace can ever belong to tenant {tenant.name}"
            fix = "give it namespaces (names, prefixes or suffixes) or members"
            yield tenant.part.problem(what, fix)


@dataclass(frozen=True, slots=True)
class _Side:
    """The two names of a grant's halves, seen from one of them."""

    ours: str
    theirs: str
    consent: str


_SIDES = (
    _Side("allowFrom", "allowTo", "does not ask to enter"),
    _Side("allowTo", "allowFrom", "does not let in"),
)


def grants_have_two_consents(facts: Facts) -> Iterator[Problem]:
    """Each grant names a tenant that exists and agrees, on at least one port."""
    parts = {tenant.name: tenant for tenant in facts.tenants}
    sides = {
        (tenant.name, side.ours, grant.field("tenant").text()): grant
        for tenant in facts.tenants
        for side in _SIDES
        for grant in tenant.part.field(side.ours).items()
    }
    for (name, ours, other), grant in sides.items():
        side = next(side for side in _SIDES if side.ours == ours)
        answer = sides.get((other, side.theirs, name))
        if other == name:
            continue
        if other not in parts:
            what = f'there is no tenant "{other}"'
            yield grant.field("tenant").problem(what, nearest(other, parts))
        elif answer is None:
            what = f"tenant {other} {side.consent} tenant {name}: one consent is no grant"
            fix = (
                f"add `{side.theirs}: [{{tenant: {name}}}]` to tenant {other} "
                f"({parts[other].part.where}), or remove this"
            )
            yield grant.problem(what, fix)
        elif ours == "allowFrom":
            yield from _ports_meet(grant, answer, other)


def _ports_meet(grant: Part, answer: Part, other: str) -> Iterator[Problem]:
    ports = common_ports(build_ports(grant.field("ports")), build_ports(answer.field("ports")))
    if ports is None:
        what = f"no port is in both this and allowTo of tenant {other} ({answer.where})"
        yield grant.problem(what, "name at least one port on both sides, or none on one side")


Rule = Callable[[Facts], Iterator[Problem]]

RULES: tuple[Rule, ...] = (
    names_are_unique,
    claims_do_not_collide,
    reserved_names_are_not_claimed,
    label_keys_are_free,
    tenant_labels_are_free,
    admins_are_few,
    members_can_be_members,
    port_ranges_are_forward,
    shares_leave_room,
    grants_name_others_once,
)

RULES_OF_WHOLE: tuple[Rule, ...] = (
    tenants_can_have_namespaces,
    grants_have_two_consents,
)
