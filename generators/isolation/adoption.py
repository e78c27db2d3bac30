"""A first tenant file for an existing cluster: owners by label or name, and who enters whom.

Pure; printed by `ringfence tenants init`. What is written is what the cluster does today: tenants
of the namespaces that there are, by exact name, and as shared components and grants what existing
NetworkPolicies let in. What cannot be known goes into comments: namespaces without a tenant, words
that cannot name a tenant, policies that would let in everybody. The file is in mode audit, which
cuts nothing. Labels are taken as found; the reader must check that they are true, and afterwards
users can no longer set them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from generators.isolation.policies import is_ours
from generators.manifests import names as spelling
from generators.objects import NAME_LABEL, Direction, Namespace, NetworkPolicy, Rule
from generators.selectors import matches
from generators.tenants.model import ALWAYS_PROTECTED, API_VERSION, DEFAULT_LABEL_KEY, KIND

FEWEST = 2
"""So many namespaces share a word of their names before it is taken for a tenant."""
SHOWN = 5

Ports = frozenset[tuple[str, int, int]] | None
"""Protocol, first and last port; None: every port."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What the tenant file will say, and what it cannot."""

    label_key: str
    tenants: Mapping[str, tuple[str, ...]]
    """Tenant -> its namespaces."""
    unowned: tuple[str, ...] = ()
    unusable: Mapping[str, str] = field(default_factory=dict)
    """Namespace -> the word that cannot name a tenant."""
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Namespace -> the words of its name between which nothing decides."""


def by_label(namespaces: Iterable[Namespace], key: str) -> Suggestion:
    """Tenants are the values of a label."""
    found: dict[str, list[str]] = {}
    unowned, unusable = [], {}
    for namespace in _ordinary(namespaces):
        value = namespace.labels.get(key)
        if value is None:
            unowned.append(namespace.name)
        elif spelling.dns_label(value) is not None:
            unusable[namespace.name] = value
        else:
            found.setdefault(value, []).append(namespace.name)
    tenants = {tenant: tuple(sorted(names)) for tenant, names in sorted(found.items())}
    return Suggestion(key, tenants, tuple(sorted(unowned)), unusable)


def by_names(namespaces: Iterable[Namespace]) -> Suggestion:
    """Tenants are the first or last words of names, whichever more namespaces share."""
    names = sorted(namespace.name for namespace in _ordinary(namespaces))
    words = Counter(word for name in names for word in {*_ends(name)})
    found: dict[str, list[str]] = {}
    unowned: list[str] = []
    choices: dict[str, tuple[str, ...]] = {}
    for name in names:
        shared = sorted({word for word in _ends(name) if words[word] >= FEWEST})
        shared.sort(key=lambda word: -words[word])
        if not shared:
            unowned.append(name)
        elif len(shared) > 1 and words[shared[0]] == words[shared[1]]:
            choices[name] = tuple(shared)
        else:
            found.setdefault(shared[0], []).append(name)
    tenants = {tenant: tuple(held) for tenant, held in sorted(found.items())}
    return Suggestion(DEFAULT_LABEL_KEY, tenants, tuple(unowned), choices=choices)


def _ends(name: str) -> tuple[str, ...]:
    first, dash, _ = name.partition("-")
    return (first, name.rpartition("-")[2]) if dash else ()


def _ordinary(namespaces: Iterable[Namespace]) -> Iterator[Namespace]:
    for namespace in namespaces:
        if namespace.name not in ALWAYS_PROTECTED and not namespace.terminating:
            yield namespace


@dataclass(frozen=True, slots=True)
class Entrance:
    """What existing policies let in: `source` is a tenant, or a namespace without one."""

    source: str
    destination: str
    ports: Ports
    policy: str


def entrances(
    suggestion: Suggestion, namespaces: Iterable[Namespace], policies: Iterable[NetworkPolicy]
) -> tuple[list[Entrance], list[str]]:
    """Who enters tenants by which policy; and policies that let in every namespace."""
    spaces = list(_ordinary(namespaces))
    owner = {name: tenant for tenant, held in suggestion.tenants.items() for name in held}
    found: list[Entrance] = []
    everybody: list[str] = []
    for policy in sorted(policies, key=lambda p: p.key):
        tenant = owner.get(policy.namespace)
        if tenant is None or is_ours(policy.labels) or Direction.INGRESS not in policy.directions:
            continue
        for rule in policy.ingress:
            if _is_open(rule):
                everybody.append(policy.key)
                continue
            for space in spaces:
                source = owner.get(space.name, space.name)
                if source != tenant and _lets_in(rule, space):
                    found.append(Entrance(source, tenant, _ports(rule), policy.key))
    return found, sorted(set(everybody))


def _is_open(rule: Rule) -> bool:
    return not rule.peers or any(
        peer.namespace_selector is not None and not peer.namespace_selector.requirements
        for peer in rule.peers
    )


def _lets_in(rule: Rule, namespace: Namespace) -> bool:
    labels = {**namespace.labels, NAME_LABEL: namespace.name}
    selectors = (p.namespace_selector for p in rule.peers if p.namespace_selector is not None)
    return any(matches(selector, labels) for selector in selectors)


def _ports(rule: Rule) -> Ports:
    spans = set()
    for port in rule.ports:
        if not isinstance(port.port, int):
            return None
        spans.add((port.protocol, port.port, port.end_port or port.port))
    return frozenset(spans) or None


def tenant_file(
    suggestion: Suggestion, namespaces: Iterable[Namespace], policies: Iterable[NetworkPolicy]
) -> str:
    """The tenant file as text."""
    spaces = list(namespaces)
    entered, everybody = entrances(suggestion, spaces, policies)
    tenants = suggestion.tenants
    grants = _summed(e for e in entered if e.source in tenants)
    shared = _summed(e for e in entered if e.source not in tenants)
    lines = [
        "# What this cluster looks like today. Nothing is cut while mode is audit. Read the",
        "# comments, add the admins and the members of each tenant, then see what it means:",
        "#   ringfence tenants check FILE && ringfence plan -c FILE --kubeconfig KUBECONFIG",
        f"apiVersion: {API_VERSION}",
        f"kind: {KIND}",
        f"labelKey: {json.dumps(suggestion.label_key)}",
        "mode: audit",
        "# Who may move namespaces between tenants, beside system:masters:",
        "# admins: {groups: [platform-team]}",
        *_shared_lines(shared, tenants),
        "tenants:" if tenants else "tenants: []",
    ]
    for tenant, held in tenants.items():
        lines += _tenant_lines(tenant, held, grants)
    lines += _undecided(suggestion, everybody, {source for source, _ in shared})
    return "\n".join(lines) + "\n"


Sums = Mapping[tuple[str, str], tuple[Ports, tuple[str, ...]]]
"""Source and destination -> ports, and the policies that say so."""


def _summed(entered: Iterable[Entrance]) -> Sums:
    found: dict[tuple[str, str], tuple[Ports, tuple[str, ...]]] = {}
    for item in entered:
        key = item.source, item.destination
        ports, said = found.get(key, (frozenset(), ()))
        both = None if ports is None or item.ports is None else ports | item.ports
        found[key] = both, tuple(sorted({*said, item.policy}))
    return dict(sorted(found.items()))


def _shared_lines(shared: Sums, tenants: Mapping[str, object]) -> Iterator[str]:
    by: dict[str, list[tuple[Ports, tuple[str, ...]]]] = {}
    for (source, _), item in shared.items():
        by.setdefault(source, []).append(item)
    if not by:
        return
    yield "# May enter every tenant, because policies let these namespaces in today:"
    yield "shared:"
    for name, items in by.items():
        said = sorted({policy for _, policies in items for policy in policies})
        if len(items) < len(tenants):
            yield f"  # {name} enters {len(items)} of {len(tenants)} tenants today; as shared, all"
        yield f"  # {_listed(said)}"
        yield f"  - name: {json.dumps(name)}"
        yield f"    namespaces: {{names: {_flow([name])}}}"
        ports = [ports for ports, _ in items]
        if None not in ports:
            yield f"    ports: {_spans(frozenset().union(*(p for p in ports if p)))}"


def _tenant_lines(tenant: str, held: tuple[str, ...], grants: Sums) -> Iterator[str]:
    yield f"  - name: {json.dumps(tenant)}"
    yield f"    namespaces: {{names: {_flow(held)}}}"
    for affix in _affixes(tenant, held):
        yield f"    # all of them have {affix}: it would also claim new ones"
    yield "    # members: {groups: []}"
    entering = [(s, ports, said) for (s, d), (ports, said) in grants.items() if d == tenant]
    if entering:
        yield "    allowFrom:"
    for source, ports, said in entering:
        yield f"      # {_listed(said)}"
        yield f"      - {{tenant: {json.dumps(source)}{_with(ports)}}}"
    entered = [(d, ports) for (s, d), (ports, _) in grants.items() if s == tenant]
    if entered:
        yield "    allowTo:"
    for destination, ports in entered:
        yield f"      - {{tenant: {json.dumps(destination)}{_with(ports)}}}"


def _affixes(tenant: str, held: tuple[str, ...]) -> Iterator[str]:
    if len(held) >= FEWEST and all(name.endswith(f"-{tenant}") for name in held):
        yield f'suffixes: ["-{tenant}"]'
    if len(held) >= FEWEST and all(name.startswith(f"{tenant}-") for name in held):
        yield f'prefixes: ["{tenant}-"]'


def _undecided(suggestion: Suggestion, everybody: list[str], shared: set[str]) -> Iterator[str]:
    key, unowned = suggestion.label_key, [n for n in suggestion.unowned if n not in shared]
    if unowned:
        yield "# Without a tenant: every pod may enter them; they enter no tenant unless shared."
        yield "# Give each to a tenant, to shared, or leave it:"
        yield from (f"#   {name}" for name in unowned)
    if suggestion.choices:
        yield "# Two words of their names could be the tenant; list each where it belongs:"
        for name, words in sorted(suggestion.choices.items()):
            yield f"#   {name}: {' or '.join(words)}"
    if suggestion.unusable:
        yield "# Their label cannot name a tenant (lower-case letters, digits, inner dashes), and"
        yield "# would be removed; name a tenant, and list them there:"
        for name, value in sorted(suggestion.unusable.items()):
            yield f"#   {name}: {key}={json.dumps(value)}"
    if everybody:
        yield "# These policies let in every namespace. Mode strict keeps other tenants out"
        yield "# anyway, unless they have a grant; `ringfence audit report` lists who does:"
        yield from (f"#   {policy}" for policy in everybody)


def _listed(policies: Iterable[str]) -> str:
    named = list(policies)
    more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    return f"NetworkPolicy {', '.join(named[:SHOWN])}{more}"


def _flow(names: Iterable[str]) -> str:
    return json.dumps(list(names))


def _with(ports: Ports) -> str:
    return "" if ports is None else f", ports: {_spans(ports)}"


def _spans(spans: frozenset[tuple[str, int, int]]) -> str:
    items = []
    for protocol, first, last in sorted(spans):
        end = "" if first == last else f", endPort: {last}"
        items.append(f"{{port: {first}{end}, protocol: {protocol}}}")
    return f"[{', '.join(items)}]"
