"""Policies that label and isolate namespaces as a first tenant file; what it cannot say is told.

Two shapes are understood: a mutate rule that writes a literal label on Namespaces of some names,
and a generate rule whose NetworkPolicy lets in namespaces by that label or by their name. The file
is in mode audit, which cuts nothing.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from generators.documents.json import Value, as_text, mapping, mappings, text
from generators.kyverno.language.wildcards import has_wildcard
from generators.kyverno.model import (
    Data,
    Downstream,
    Generation,
    Mutation,
    Place,
    Policy,
    PolicyRule,
)
from generators.kyverno.patches.fitting import parse_anchor
from generators.kyverno.variables import has_variable
from generators.manifests import names as spelling
from generators.objects import NAME_LABEL
from generators.tenants.model import ALWAYS_PROTECTED, API_VERSION, DEFAULT_LABEL_KEY, KIND

_PREFIX = re.compile(r"[a-z0-9][-a-z0-9]*")
_SUFFIX = re.compile(r"[-a-z0-9]*[a-z0-9]")


@dataclass(frozen=True, slots=True, order=True)
class Unsaid:
    """Something of a policy that the tenant file does not say."""

    place: Place
    what: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}"


@dataclass(slots=True)
class Names:
    """Which namespaces are a tenant's."""

    names: list[str] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    suffixes: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def claims(self) -> bool:
        """Whether any namespace can be the tenant's: no file names one without."""
        return bool(self.names or self.prefixes or self.suffixes)


@dataclass(frozen=True, slots=True)
class Conversion:
    """What the tenant file says, and what it does not."""

    label_key: str
    tenants: Mapping[str, Names]
    shared: tuple[str, ...]
    unsaid: tuple[Unsaid, ...]


@dataclass(slots=True)
class _Found:
    """What the rules say, before it is known which label is the tenant's."""

    labelled: list[tuple[PolicyRule, dict[str, str], list[str]]] = field(default_factory=list)
    """Rule, the labels that it writes, patterns of names."""
    selected: Counter[str] = field(default_factory=Counter)
    shared: list[str] = field(default_factory=list)
    peers: list[tuple[Place, Mapping[str, Value]]] = field(default_factory=list)
    unsaid: list[Unsaid] = field(default_factory=list)

    def leave(self, place: Place, what: str) -> None:
        self.unsaid.append(Unsaid(place, what))


def convert(policies: Iterable[Policy]) -> Conversion:
    """What the policies say of tenants."""
    found = _Found()
    for policy in policies:
        for rule in policy.rules:
            _read(rule, found)
    written = Counter(key for _, labels, named in found.labelled if named for key in labels)
    both = [key for key, _ in found.selected.most_common() if key in written]
    key = next(iter(both or [k for k, _ in written.most_common()]), DEFAULT_LABEL_KEY)
    for place, labels in found.peers:
        if labels.keys() != {key}:
            found.leave(place, f"lets in namespaces by {_shown(labels)}")
    tenants = _tenants(found, key)
    return Conversion(key, tenants, tuple(dict.fromkeys(found.shared)), tuple(sorted(found.unsaid)))


def _read(rule: PolicyRule, found: _Found) -> None:
    if rule.setting.preconditions.all or rule.setting.preconditions.any:
        found.leave(rule.place, "its preconditions")
    if rule.exclude is not None and rule.exclude.filters:
        found.leave(rule.place, "its exclude; protectedNamespaces may say it")
    match rule.action:
        case Mutation():
            _read_labels(rule, rule.action, found)
        case Generation(downstreams):
            for downstream in downstreams:
                _read_isolation(rule, downstream, found)
        case _:
            found.leave(rule.place, "it is no rule that labels or generates")


def _concerns_namespaces(rule: PolicyRule) -> bool:
    kinds = {kind.kind for one in rule.match.filters for kind in one.kinds}
    return kinds == {"Namespace"}


def _read_labels(rule: PolicyRule, action: Mutation, found: _Found) -> None:
    template = action.patch.strategic
    patch = template.value if template is not None else None
    if not isinstance(patch, dict) or not _concerns_namespaces(rule):
        found.leave(rule.place, "it does more than to merge labels into Namespaces")
        return
    metadata = mapping(patch, "metadata")
    labels = {
        parse_anchor(key)[1]: as_text(value) for key, value in mapping(metadata, "labels").items()
    }
    fixed = {key: value for key, value in labels.items() if not has_variable(value)}
    if fixed.keys() != labels.keys():
        found.leave(rule.place, "labels whose values are variables")
    patterns = [as_text(v) for k, v in metadata.items() if parse_anchor(k)[1] == "name"]
    for one in rule.match.filters if not action.targets else ():
        patterns += [*one.names, *([one.name] if one.name else [])]
    patterns += [
        text(t.fields.value, "name") for t in action.targets if text(t.fields.value, "name")
    ]
    more = [key for key in metadata if parse_anchor(key)[1] not in ("name", "labels")]
    if more or patch.keys() != {"metadata"}:
        found.leave(rule.place, "what it merges beside labels")
    if fixed:
        found.labelled.append((rule, fixed, patterns))


def _read_isolation(rule: PolicyRule, downstream: Downstream, found: _Found) -> None:
    target = downstream.target.value
    content = downstream.source.content.value if isinstance(downstream.source, Data) else None
    if text(target, "kind") != "NetworkPolicy" or content is None or not _concerns_namespaces(rule):
        found.leave(downstream.place, f"the {text(target, 'kind') or 'copies'} that it generates")
        return
    for one in rule.match.filters:
        if one.selector is not None:
            found.selected.update(one.selector.labels.keys())
    spec = mapping(content, "spec")
    if mapping(spec, "podSelector"):
        found.leave(downstream.place, "it isolates some pods of a namespace only")
    if "egress" in spec or "Egress" in [as_text(t) for t in _list(spec.get("policyTypes"))]:
        found.leave(downstream.place, "egress: a NetworkPolicy of yours keeps it")
    for rule_in in mappings(spec, "ingress"):
        if rule_in.get("ports"):
            found.leave(downstream.place, "ports of its rules; shared[].ports may say them")
        if not rule_in.get("from"):
            found.leave(downstream.place, "it lets in everybody")
        for peer in mappings(rule_in, "from"):
            _read_peer(peer, downstream.place, found)


def _list(value: Value) -> Sequence[Value]:
    return value if isinstance(value, list) else ()


def _read_peer(peer: Mapping[str, Value], place: Place, found: _Found) -> None:
    labels = mapping(peer.get("namespaceSelector"), "matchLabels")
    if peer.keys() != {"namespaceSelector"} or not labels:
        what = "ipBlock" if "ipBlock" in peer else "pods of the same namespace, or by their labels"
        found.leave(place, f"lets in {what}: a NetworkPolicy of yours keeps that")
    elif labels.keys() == {NAME_LABEL}:
        found.shared.append(as_text(labels[NAME_LABEL]))
    else:
        found.peers.append((place, labels))


def _shown(labels: Mapping[str, Value]) -> str:
    return ", ".join(f"{key}={as_text(value)}" for key, value in sorted(labels.items()))


def _tenants(found: _Found, key: str) -> dict[str, Names]:
    tenants: dict[str, Names] = {}
    for rule, labels, patterns in found.labelled:
        tenant = labels.get(key)
        if tenant is None:
            found.leave(rule.place, f"labels without {key}: {_shown({**labels})}")
            continue
        if spelling.dns_label(tenant) is not None:
            found.leave(rule.place, f"{key}={tenant} cannot name a tenant")
            continue
        names = tenants.setdefault(tenant, Names())
        names.labels |= {name: value for name, value in labels.items() if name != key}
        if not patterns:
            found.leave(rule.place, f"every Namespace is labelled {key}={tenant}")
        for pattern in patterns:
            _sort_in(pattern, names, rule, found)
    named = {name: held for name, held in tenants.items() if held.claims}
    return dict(sorted(named.items()))


def _sort_in(pattern: str, names: Names, rule: PolicyRule, found: _Found) -> None:
    """Each choice of a pattern as an exact name, a prefix, a suffix."""
    for choice in (part.strip() for part in pattern.split("|")):
        before, star, after = choice.partition("*")
        wild = has_wildcard(before) or has_wildcard(after)
        if not star and not wild and spelling.dns_label(choice) is None:
            names.names.append(choice)
        elif star and not wild and not before and _SUFFIX.fullmatch(after):
            names.suffixes.append(after)
        elif star and not wild and not after and _PREFIX.fullmatch(before):
            names.prefixes.append(before)
        else:
            found.leave(rule.place, f"names that fit {choice!r}: write names, prefixes, suffixes")


def tenant_file(conversion: Conversion) -> str:
    """The tenant file as text."""
    shared = [name for name in conversion.shared if name not in ALWAYS_PROTECTED]
    lines = [
        "# What the policies say of tenants. Nothing is cut while mode is audit. Add the",
        "# admins and the members of each tenant, then see what it means:",
        "#   ringfence tenants check FILE && ringfence plan -c FILE --kubeconfig KUBECONFIG",
        f"apiVersion: {API_VERSION}",
        f"kind: {KIND}",
        f"labelKey: {json.dumps(conversion.label_key)}",
        "mode: audit",
        *(["shared:"] if shared else []),
        *(
            f"  - {{name: {json.dumps(name)}, namespaces: {{names: [{json.dumps(name)}]}}}}"
            for name in shared
        ),
        "tenants:" if conversion.tenants else "tenants: []",
    ]
    for tenant, names in conversion.tenants.items():
        lines += _tenant_lines(tenant, names)
    if conversion.unsaid:
        lines.append("# Not said here:")
        lines += [f"#   {unsaid}" for unsaid in conversion.unsaid]
    return "\n".join(lines) + "\n"


def _tenant_lines(tenant: str, names: Names) -> Iterator[str]:
    yield f"  - name: {json.dumps(tenant)}"
    given = {"names": names.names, "prefixes": names.prefixes, "suffixes": names.suffixes}
    parts = [f"{key}: {json.dumps(sorted(set(held)))}" for key, held in given.items() if held]
    if parts:
        yield f"    namespaces: {{{', '.join(parts)}}}"
    if names.labels:
        pairs = (f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(names.labels.items()))
        yield f"    labels: {{{', '.join(pairs)}}}"
    yield "    # members: {groups: []}"
