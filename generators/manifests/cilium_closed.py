"""What holds in place of a CiliumNetworkPolicy that is invalid, where an API server has taken it.

It never opens: each of its parts closes the directions that it speaks about and allows nothing,
for the pods that it selects, or for all that it could select where its selector cannot be read.
Rules that deny stay where all of them can be read, else everybody is denied. A part with a
nodeSelector is about no pod.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from generators.documents.json import Document, key_of
from generators.documents.yaml import from_sent
from generators.errors import InputError
from generators.manifests.cilium import FIELDS_OF_A_PART, parse_rules, parse_selected
from generators.manifests.fields import Cursor, Report
from generators.objects import (
    CiliumPolicy,
    Direction,
    NetworkPolicy,
    Origin,
    PolicyKind,
    Rule,
)

_ALL = frozenset(Direction)
_LISTS = ("", "Deny")


def closed_cilium(document: Document, origin: Origin) -> CiliumPolicy:
    """The stand-in of an object of one of Cilium's kinds, under its name."""
    key, kind = key_of(document), PolicyKind(str(document.get("kind")))
    namespace = key.namespace if kind is PolicyKind.CILIUM else ""
    whole = NetworkPolicy(namespace, key.name, kind=kind, directions=_ALL, origin=origin)
    try:
        root = _cursor({name: document.get(name) for name in ("spec", "specs")})
        parts = [_closed(item, replace(whole, part=part)) for part, item in _parts(root)]
    except InputError:  # nested too deeply to be looked at
        parts = [whole]
    found = tuple(part for part in parts if part is not None)
    return CiliumPolicy(namespace, key.name, kind, found, origin=origin)


def _cursor(document: Document) -> Cursor:
    return Cursor(from_sent(document, "", 0), "", Report(""))


def _parts(root: Cursor) -> Iterator[tuple[str, Cursor]]:
    if (spec := root.child("spec")) is not None:
        yield "", spec
    for index, item in enumerate(root.children("specs")):
        yield f"specs[{index}]", item


def _closed(spec: Cursor, whole: NetworkPolicy) -> NetworkPolicy | None:
    """One part; `whole`: what it is where nothing can be read. None: it is about nodes."""
    written = spec.field.value
    if not isinstance(written, Mapping):
        return whole
    if "nodeSelector" in written and "endpointSelector" not in written:
        return None
    report = Report("")
    pods, namespaces = parse_selected(replace(spec, report=report), whole.namespace)
    if not report.problems:
        whole = replace(whole, pod_selector=pods, namespace_selector=namespaces)
    speaks = {d: any(_is_filled(spec, f"{d.lower()}{deny}") for deny in _LISTS) for d in Direction}
    if written.keys() - set(FIELDS_OF_A_PART) or not any(speaks.values()):
        speaks = dict.fromkeys(Direction, True)
    return replace(
        whole,
        directions=frozenset(d for d in Direction if speaks[d] and not _is_off(spec, d)),
        ingress=_denying(spec, Direction.INGRESS, whole.namespace),
        egress=_denying(spec, Direction.EGRESS, whole.namespace),
    )


def _is_filled(spec: Cursor, key: str) -> bool:
    at = spec.child(key)
    return at is not None and at.field.value != ()


def _is_off(spec: Cursor, direction: Direction) -> bool:
    """Whether the policy is not to close a direction: it only allows more there."""
    switch = spec.child("enableDefaultDeny")
    at = switch.child(direction.lower()) if switch is not None else None
    return at is not None and at.field.value is False


def _denying(spec: Cursor, direction: Direction, namespace: str) -> tuple[Rule, ...]:
    report = Report("")
    heard = replace(spec, report=report)
    rules = tuple(parse_rules(heard, direction, namespace, deny=True))
    name = f"{direction.lower()}Deny[0]"
    return (Rule(deny=True, name=name),) if report.problems else rules
