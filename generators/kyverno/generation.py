"""What a generate rule wants to exist for one trigger: finished objects with their owner's marks.

Pure: whether they exist already, and what happens when trigger, policy or source change, is decided
in `synchronize.py`. Every write passes the guard here; a loop (an object that would trigger the
rule that makes it) is refused before it starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from generators.documents.json import (
    ObjectKey,
    ObjectKind,
    Value,
    compact,
    copied,
    items,
    labels_of,
    mapping,
    object_key_of,
    split_api_version,
    text,
)
from generators.kyverno import expressed
from generators.kyverno.conditions import first_unmet
from generators.kyverno.context import ContextScope
from generators.kyverno.failures import BadPatch, LookupFailed, NotAllowed
from generators.kyverno.language.functions import ELEMENT_STEPS
from generators.kyverno.limits import Limits, check_write
from generators.kyverno.matching import expanded, selector_pattern
from generators.kyverno.model import (
    Clone,
    CloneList,
    Data,
    Document,
    Downstream,
    Expressed,
    Generation,
    Policy,
    PolicyRule,
    Rendered,
    Source,
)
from generators.kyverno.mutation import check_metadata, element_scope, elements_of, textual
from generators.kyverno.ownership import Mark, Owner, marked
from generators.kyverno.requests import PolicyRequest
from generators.kyverno.variables import fill
from generators.manifests import names
from generators.manifests.kinds import CLUSTER_SCOPED
from generators.selectors import matches

_LIVE_ONLY = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generateName",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
)
MAX_ITEMS = 10_000


@dataclass(frozen=True, slots=True)
class WantedObject:
    """One object that should exist, and how closely it is to be kept."""

    document: Document
    mark: Mark
    server_side: bool = False

    @property
    def key(self) -> ObjectKey:
        """Which object."""
        return object_key_of(self.document)

    @property
    def owner(self) -> Owner:
        """The rule and trigger that own it."""
        return self.mark.owner

    @property
    def synchronize(self) -> bool:
        """Whether it is kept as it should be."""
        return self.mark.synchronize

    @property
    def source(self) -> ObjectKey | None:
        """What it is a copy of."""
        return self.mark.source


@dataclass(frozen=True, slots=True)
class _Run:
    """What stays the same for all objects of one rule and trigger."""

    policy: Policy
    rule: PolicyRule
    action: Generation
    request: PolicyRequest
    limits: Limits


def wanted_objects(
    policy: Policy,
    rule: PolicyRule,
    action: Generation,
    request: PolicyRequest,
    scope: ContextScope,
) -> tuple[WantedObject, ...]:
    """All objects that the rule makes for the trigger."""
    run = _Run(policy, rule, action, request, scope.world.lookups.limits)
    made: list[WantedObject] = []
    for number, downstream in enumerate(action.downstreams):
        for item, inner in _items(downstream, scope, number):
            made += _objects(run, downstream, inner, item)
            if len(made) > MAX_ITEMS:
                raise BadPatch(f"the rule generates more than {MAX_ITEMS} objects")
    keys: set[ObjectKey] = set()
    for wanted in made:
        if wanted.key in keys:
            raise BadPatch(f"the rule generates {wanted.key} twice")
        keys.add(wanted.key)
    return tuple(made)


def _items(
    downstream: Downstream, scope: ContextScope, number: int
) -> Iterator[tuple[str, ContextScope]]:
    """The pattern once, or for each element whose preconditions hold."""
    if downstream.list is None:
        yield f"{number}", scope
        return
    for index, element in elements_of(downstream.list, scope):
        scope.world.surroundings.meter.spend(ELEMENT_STEPS)
        inner = element_scope(scope, element, index, 0).with_entries(downstream.setting.context)
        if not first_unmet(downstream.setting.preconditions, inner):
            yield f"{number}.{_named(element, index)}", inner


def _named(element: Value, index: int) -> str:
    """A list that changes its order keeps its objects, where elements have names."""
    if isinstance(element, str):
        return element
    return text(element, "name") or text(element, "key") or str(index)


def _objects(
    run: _Run, downstream: Downstream, scope: ContextScope, item: str
) -> Iterator[WantedObject]:
    target = fill(downstream.target, scope)
    match downstream.source:
        case Data(content):
            body = textual(content.written, fill(content, scope))
            if not isinstance(body, dict):
                raise BadPatch("data must be an object")
            yield _finished(run, _addressed(run, body, target), item, None)
        case Clone(source):
            yield from _clone(run, target, fill(source, scope), scope, item)
        case CloneList(fields):
            yield from _clone_list(run, target, fill(fields, scope), scope, item)
        case Expressed() | Rendered():
            for namespace, document in expressed.generated(downstream.source, scope):
                yield _expressed(run, namespace, document, item)


def _expressed(run: _Run, namespace: str, document: Document, item: str) -> WantedObject:
    """An object that an expression made, often of one that is there: without what is only its."""
    bare = _bare(document)
    kind = text(document, "kind")
    address: Value = {
        "apiVersion": text(document, "apiVersion"),
        "kind": kind,
        "name": text(document, "metadata", "name"),
        "namespace": "" if kind in CLUSTER_SCOPED else namespace,
    }
    made = _addressed(run, bare, address)
    key = object_key_of(made)
    elsewhere = text(document, "metadata", "namespace") not in ("", key.namespace)
    owners = mapping(document, "metadata").get("ownerReferences")
    if owners is not None and not elsewhere:
        made["metadata"] = {**mapping(made, "metadata"), "ownerReferences": owners}
    return _finished(run, made, f"{item}.{kind}.{key.namespace}.{key.name}", None)


def _addressed(run: _Run, body: Document, target: Value) -> Document:
    """The body under the kind, name and namespace that the rule gives it."""
    group, version = split_api_version(text(target, "apiVersion"))
    kind = text(target, "kind")
    metadata: Document = dict(mapping(body, "metadata"))
    metadata["name"] = text(target, "name")
    namespace = text(target, "namespace")
    if kind in CLUSTER_SCOPED:
        metadata.pop("namespace", None)
        if namespace:
            raise BadPatch(f"{kind} belongs to no namespace; remove namespace {namespace}")
    elif namespace:
        metadata["namespace"] = namespace
    elif run.policy.namespace:
        metadata["namespace"] = run.policy.namespace
    else:
        raise BadPatch(f"{kind} {metadata['name']} has no namespace; its variable may be empty")
    kept = {k: v for k, v in body.items() if k not in ("apiVersion", "kind", "metadata")}
    address: Document = {
        "apiVersion": f"{group}/{version}" if group else version,
        "kind": kind,
        "metadata": metadata,
    }
    return {**address, **kept}


def _finished(run: _Run, document: Document, item: str, source: ObjectKey | None) -> WantedObject:
    key = object_key_of(document)
    where = f"{key.kind.kind} {key.name!r}"
    if (why := names.dns_subdomain(key.name)) is not None:
        raise BadPatch(f"{where}: name {why}")
    if key.namespace and (why := names.dns_label(key.namespace)) is not None:
        raise BadPatch(f"{where}: namespace {key.namespace!r} {why}")
    check_metadata(document)
    trigger = run.request.key
    if key == trigger:
        raise NotAllowed(f"{key} would generate itself")
    if key.kind == trigger.kind:
        raise NotAllowed(
            f"a rule that {key.kind.kind} triggers may not generate {key.kind.kind}: it would loop"
        )
    check_write(run.limits, run.policy.namespace, key)
    mark = Mark(
        Owner(run.policy.key, run.rule.name, trigger, run.request.uid, item),
        synchronize=run.action.synchronize,
        orphan=run.action.orphan,
        source=source,
        pattern=pattern_digest(run.action) if source is not None else "",
    )
    return WantedObject(marked(document, mark), mark, run.policy.server_side)


def pattern_digest(action: Generation) -> str:
    """Changes with what the rule generates and from where, not with its switches."""
    whole = sha256()
    for downstream in action.downstreams:
        parts: list[Value] = [downstream.target.value, *_contents(downstream.source)]
        if downstream.list is not None:
            parts.append(downstream.list.value)
        whole.update(compact(parts).encode(errors="replace"))
    return whole.hexdigest()[:16]


def _contents(source: Source) -> list[Value]:
    match source:
        case Data(template) | Clone(template) | CloneList(template):
            return [template.value]
        case Expressed(expression):
            return [expression.text]
        case Rendered(documents):
            return [template.value for template in documents]


def _clone(
    run: _Run, target: Value, source: Value, scope: ContextScope, item: str
) -> Iterator[WantedObject]:
    group, version = split_api_version(text(target, "apiVersion"))
    kind = ObjectKind(group, version, text(target, "kind"))
    origin = ObjectKey(kind, text(source, "namespace"), text(source, "name"))
    found = scope.world.lookups.find(origin)
    if found is None:
        raise LookupFailed(f"the source {origin} is not there")
    copy = _addressed(run, _bare(found), target)
    if object_key_of(copy) != origin:
        yield _finished(run, copy, item, origin)


def _clone_list(
    run: _Run, target: Value, fields: Value, scope: ContextScope, item: str
) -> Iterator[WantedObject]:
    """Objects keep their names; those already in the target's namespace are not touched."""
    home, goal = text(fields, "namespace"), text(target, "namespace")
    selector = expanded(selector_pattern(mapping(fields, "selector")), {})
    for spelled in items(fields, "kinds"):
        api_version, _, name = str(spelled).rpartition("/")
        kind = ObjectKind(*split_api_version(api_version or "v1"), name)
        for found in scope.world.lookups.list(kind, home):
            origin = object_key_of(found)
            if home == goal or not matches(selector, labels_of(found)):
                continue
            address: Value = {
                "apiVersion": kind.api_version,
                "kind": kind.kind,
                "name": origin.name,
                "namespace": goal,
            }
            copy = _addressed(run, _bare(found), address)
            yield _finished(run, copy, f"{item}.{kind.kind}.{origin.name}", origin)


def _bare(document: Document) -> Document:
    """A source without what belongs to the live object only, and without owners elsewhere."""
    result = copied(document)
    metadata = {
        key: value
        for key, value in mapping(result, "metadata").items()
        if key not in (*_LIVE_ONLY, "ownerReferences", "finalizers", "namespace")
    }
    result["metadata"] = metadata
    result.pop("status", None)
    return result
