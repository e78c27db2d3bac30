"""What a new tenant file would change before it is in force: for the file, and for a namespace.

Pure; printed by `plan`. docs/tenant-file.md says the same moment by moment. Durations are not
guessed: each sentence names the event that ends it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from generators.objects import NetworkPolicy
from generators.tenants.model import Mode, Port, Subjects, Tenant, TenantConfig, Unassigned

AGENTS = "once each node's agent has read the file"
FOLLOWED = "once `synchronized` is true in ConfigMap ringfence-status"
NAMED = 10
"""How many names a sentence lists."""


def consequences(
    old: TenantConfig, new: TenantConfig, policies: Iterable[NetworkPolicy] = ()
) -> tuple[str, ...]:
    """One sentence for each kind of change between two files, in a fixed order."""
    return (
        *_key(old, new, policies),
        *_mode(old, new),
        *_admins(old, new),
        *_tenants(old, new),
        *_members(old, new),
        *_names(old, new),
        *_shared(old, new),
        *_grants(old, new),
        *_rest(old, new),
    )


def effect(old: TenantConfig, new: TenantConfig, former: str | None, latter: str | None) -> str:
    """Who reaches the namespace's pods from now on; empty where that stays as it is."""
    if latter is not None and latter not in new.tenants:
        return (
            f"stays {latter}'s, in quarantine: closed to everybody but {latter}'s namespaces and"
            " shared components until it is deleted, moved or released"
        )
    if former == latter:
        if latter is None or old.label_key == new.label_key:
            return ""
        between = f"until all namespaces of {latter} carry {new.label_key}"
        return f"opens to no one new; {between}, its pods and theirs may be refused by one another"
    if latter is None:
        gone = f"leaves tenant {former} and belongs to no tenant"
        return f"{gone}: its isolation policy goes, and every pod may enter it {FOLLOWED}"
    if former is None:
        joined = f"becomes tenant {latter}'s: closes to everybody but {latter}"
        return f"{joined}, shared components and grants"
    return f"moves from {former} to {latter}: opens to {latter} and closes to {former}, {FOLLOWED}"


def _key(old: TenantConfig, new: TenantConfig, policies: Iterable[NetworkPolicy]) -> Iterator[str]:
    before, after = old.label_key, new.label_key
    if before != after:
        yield (
            f"labelKey {before} becomes {after}: for some seconds namespaces can be neither"
            f" created nor relabelled; then each namespace of a tenant gets {after} and loses"
            f" {before}; what {after} says on namespaces today is ignored"
        )
        if before not in new.retired_label_keys:
            yield (
                f"labels {before} are removed while this file is in force, but a new namespace may"
                f" carry one for a moment: add retiredLabelKeys: [{before}] to refuse them"
            )
    for key in sorted(({before} | old.retired_label_keys) - {after}):
        selecting = [p.key for p in policies if key in _selected_keys(p)]
        if selecting:
            yield f"select label {key}, which no namespace will carry: {_listed(selecting)}"
    for key in sorted(old.retired_label_keys - new.retired_label_keys - {after}):
        yield f"retiredLabelKeys no longer has {key}: anyone may label namespaces with it"


def _selected_keys(policy: NetworkPolicy) -> set[str]:
    """Label keys of namespaces that a policy asks for."""
    peers = [peer for rule in (*policy.ingress, *policy.egress) for peer in rule.peers or ()]
    selectors = [p.namespace_selector for p in peers if p.namespace_selector is not None]
    return {requirement.key for each in selectors for requirement in each.requirements}


def _mode(old: TenantConfig, new: TenantConfig) -> Iterator[str]:
    if old.mode is new.mode:
        return
    means = {
        Mode.STRICT: "no policy of a tenant can let another tenant in",
        Mode.OVERRIDABLE: "a tenant's own NetworkPolicies may let other tenants in",
        Mode.AUDIT: "nothing is cut, only reported",
    }
    yield f"mode {old.mode.value} becomes {new.mode.value}: {means[new.mode]}, {AGENTS}"


def _admins(old: TenantConfig, new: TenantConfig) -> Iterator[str]:
    come, gone = _difference(old.admins, new.admins)
    if come:
        yield f"new admins, who may move every namespace: {_listed(come)}"
    if gone:
        yield f"no admins any more: {_listed(gone)}; what they moved stays where it is"


def _tenants(old: TenantConfig, new: TenantConfig) -> Iterator[str]:
    come, gone = new.tenants.keys() - old.tenants.keys(), old.tenants.keys() - new.tenants.keys()
    renamed = {
        former: latter
        for former in sorted(gone)
        for latter in sorted(come)
        if _same_but_for_the_name(old.tenants[former], new.tenants[latter])
    }
    for name in sorted(gone):
        if name in renamed:
            yield (
                f"tenant {name} is {renamed[name]} from now on: namespaces that its names claim"
                f" follow; those that are {name}'s by who made them stay {name}'s, in quarantine,"
                " until an admin labels them"
            )
        else:
            yield (
                f"tenant {name} leaves the file: its namespaces become those of whose names claim"
                " them; the others go into quarantine, closed to everybody but each other and"
                " shared components, until they are deleted, moved or released"
            )
    for name in sorted(come - set(renamed.values())):
        yield f"tenant {name} is new: namespaces that its names claim close to everybody else"


def _same_but_for_the_name(former: Tenant, latter: Tenant) -> bool:
    """Whether one tenant can be taken for the other: names or members are equal."""
    names = former.namespaces.each() and former.namespaces == latter.namespaces
    return bool(names) or bool(former.members.each() and former.members == latter.members)


def _both(old: TenantConfig, new: TenantConfig) -> Iterator[tuple[str, Tenant, Tenant]]:
    for name in sorted(old.tenants.keys() & new.tenants.keys()):
        yield name, old.tenants[name], new.tenants[name]


def _members(old: TenantConfig, new: TenantConfig) -> Iterator[str]:
    for name, former, latter in _both(old, new):
        come, gone = _difference(former.members, latter.members)
        if come:
            yield f"new members of {name}: {_listed(come)}; what they made stays with its tenant"
        if gone:
            yield f"no members of {name} any more: {_listed(gone)}; what they made stays {name}'s"


def _names(old: TenantConfig, new: TenantConfig) -> Iterator[str]:
    for name, former, latter in _both(old, new):
        come = [f'{m} "{t}"' for m, t in latter.namespaces.each()]
        gone = [f'{m} "{t}"' for m, t in former.namespaces.each()]
        for what in sorted(set(come) - set(gone)):
            yield f"{what} is {name}'s: namespaces recorded by name follow, others stay"
        for what in sorted(set(gone) - set(come)):
            yield f"{what} is {name}'s no more: namespaces recorded by name leave, others stay"
        if former.labels != latter.labels:
            yield f"further labels of {name} change; former ones stay where no namespace moves"


def _shared(old: TenantConfig, new: TenantConfig) -> Iterator[str]:
    before, after = _components(old), _components(new)
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) == after.get(name):
            continue
        if name not in after:
            yield f"shared {name} goes: it may enter no tenant any more, {FOLLOWED}"
        else:
            yield f"shared {name}: {after[name]} may enter every tenant, {FOLLOWED}"


def _components(config: TenantConfig) -> Mapping[str, str]:
    return {
        c.name: f"namespaces {', '.join(c.namespaces)} {_on(c.ports)}"
        f"{' and their nodes' if c.host_network else ''}"
        for c in config.shared
    }


def _grants(old: TenantConfig, new: TenantConfig) -> Iterator[str]:
    before, after = _consented(old), _consented(new)
    for pair in sorted(before.keys() | after.keys()):
        source, destination = pair
        if before.get(pair) == after.get(pair):
            continue
        if pair not in after:
            yield f"{source} may not enter {destination} any more, {FOLLOWED}"
        else:
            yield f"{source} may enter {destination} {after[pair]}, {FOLLOWED}"


def _consented(config: TenantConfig) -> Mapping[tuple[str, str], str]:
    return {
        (g.tenant, name): _on(g.ports) for name in config.tenants for g in config.consented(name)
    }


def _on(ports: tuple[Port, ...]) -> str:
    spans = (p.span for p in ports)
    texts = [
        f"{p.protocol} {first}" if first == last else f"{p.protocol} {first}-{last}"
        for p, (first, last) in zip(ports, spans, strict=True)
    ]
    return f"on {', '.join(texts)}" if texts else "on every port"


def _rest(old: TenantConfig, new: TenantConfig) -> Iterator[str]:
    come = new.protected_namespaces - old.protected_namespaces
    gone = old.protected_namespaces - new.protected_namespaces
    if come:
        yield f"protected, and without a tenant from now on: {_listed(sorted(come))}"
    if gone:
        yield f"not protected any more: {_listed(sorted(gone))}; their names decide"
    if old.unassigned is not new.unassigned:
        denied = new.unassigned is Unassigned.DENY
        word = "refused" if denied else "accepted without a tenant"
        yield f"new namespaces that no tenant claims are {word}"
    for name, former, latter in _both(old, new):
        if former.allow_masked != latter.allow_masked:
            word = "may" if latter.allow_masked else "may not"
            yield f"senders behind a node's address {word} enter {name}, {AGENTS}"


def _difference(former: Subjects, latter: Subjects) -> tuple[list[str], list[str]]:
    before, after = set(former.each()), set(latter.each())
    return _said(after - before), _said(before - after)


def _said(subjects: Iterable[tuple[object, str]]) -> list[str]:
    return [f"{kind} {subject}" for kind, subject in sorted((str(k), s) for k, s in subjects)]


def _listed(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
