"""`match` and `exclude` blocks -> filters. The other half of `parsing.py`, which calls it."""

from __future__ import annotations

from generators.kyverno.language.wildcards import has_wildcard
from generators.kyverno.model import (
    Combine,
    Filter,
    KindPattern,
    Match,
    Operation,
    Place,
    SelectorPattern,
    Subject,
)
from generators.manifests.fields import Cursor
from generators.objects import Operator, Requirement

RESOURCES = (
    "kinds",
    "name",
    "names",
    "namespaces",
    "annotations",
    "selector",
    "namespaceSelector",
    "operations",
)
USERS = ("subjects", "roles", "clusterRoles")
_SUBJECT_KINDS = ("User", "Group", "ServiceAccount")


def parse_match(block: Cursor, file: str, required: bool = False) -> Match:
    """`any`, `all`, or the older form with one filter; an empty one is refused where required."""
    given = [c for c in Combine if block.child(c.value) is not None]
    if not given:
        return _single(block, file, required)
    block.only(*(c.value for c in Combine), *(("resources",) if required else ()), *USERS)
    if len(given) > 1:
        block.fail("any and all are both given", "write one of them")
    combine = given[0]
    filters = tuple(_filter(item, file) for item in block.children(combine.value))
    return Match(combine, filters)


def _single(block: Cursor, file: str, required: bool) -> Match:
    bare = block.child("resources") is not None or any(
        block.child(key) is not None for key in USERS
    )
    if bare:
        return Match(Combine.ALL, (_filter(block, file),))
    if required:
        block.fail("Required value: any, all or resources", "say which objects trigger the rule")
    return Match(Combine.ALL, ())


def _filter(cursor: Cursor, file: str) -> Filter:
    cursor.only("resources", *USERS)
    place = Place(file, cursor.line, cursor.path)
    subjects = tuple(_subject(item) for item in cursor.children("subjects"))
    roles = tuple(item.text() for item in cursor.children("roles"))
    clusters = tuple(item.text() for item in cursor.children("clusterRoles"))
    resources = cursor.child("resources")
    if resources is None:
        if not (clusters or subjects or roles):
            cursor.fail("an empty filter", "write resources, subjects, roles or clusterRoles")
        return Filter(place, subjects=subjects, roles=roles, cluster_roles=clusters)
    resources.only(*RESOURCES)
    return Filter(
        place=place,
        kinds=tuple(kind_pattern(item.text()) for item in resources.children("kinds")),
        operations=_operations(resources),
        name=resources.string("name"),
        names=tuple(item.text() for item in resources.children("names")),
        namespaces=tuple(item.text() for item in resources.children("namespaces")),
        annotations=_texts(resources, "annotations"),
        selector=selector(resources.child("selector")),
        namespace_selector=selector(resources.child("namespaceSelector")),
        subjects=subjects,
        roles=roles,
        cluster_roles=clusters,
    )


def kind_pattern(text: str) -> KindPattern:
    """`Kind`, `v1/Kind`, `apps/v1/Kind`, each with `/sub` or `.sub` behind; `*` anywhere.

    Groups hold dots and kinds begin with a capital letter: that tells `apps/v1/Deployment` from
    `v1/Pod/exec` and `Pod/exec`.
    """
    parts = text.split("/")
    place = next((n for n, part in enumerate(parts) if _is_kind(part, n, parts)), len(parts) - 1)
    before, kind, after = parts[:place], parts[place], parts[place + 1 :]
    kind, _, sub = kind.partition(".")
    version = before[-1] if before else "*"
    group = before[0] if len(before) > 1 else "*"
    return KindPattern(group, version, kind, after[0] if after else sub)


def _is_kind(part: str, place: int, parts: list[str]) -> bool:
    """The first capitalised part; of stars alone the one that leaves the most on its left."""
    if part[:1].isupper():
        return True
    if any(other[:1].isupper() for other in parts):
        return False
    return place == min(len(parts) - 1, 2)


def _operations(resources: Cursor) -> frozenset[Operation] | None:
    if resources.child("operations") is None:
        return None
    found = set()
    for item in resources.children("operations"):
        word = item.text()
        if word in Operation.__members__:
            found.add(Operation(word))
        else:
            known = ", ".join(Operation)
            item.fail(f'Unsupported value: "{word}"', f"write one of {known}")
    return frozenset(found)


def _texts(cursor: Cursor, key: str) -> dict[str, str]:
    child = cursor.child(key)
    return {name: item.text() for name, item in child.entries()} if child is not None else {}


def selector(cursor: Cursor | None) -> SelectorPattern | None:
    """A label selector, where there is one."""
    if cursor is None:
        return None
    cursor.only("matchLabels", "matchExpressions")
    return SelectorPattern(
        _texts(cursor, "matchLabels"),
        tuple(_requirement(item) for item in cursor.children("matchExpressions")),
    )


def _requirement(cursor: Cursor) -> Requirement:
    cursor.only("key", "operator", "values")
    word = cursor.string("operator")
    operator = next((o for o in Operator if o.value == word), None)
    values = tuple(item.text() for item in cursor.children("values"))
    if operator is None:
        known = ", ".join(Operator)
        cursor.fail(f'Unsupported operator: "{word}"', f"write one of {known}")
        operator = Operator.EXISTS
    needs = operator in (Operator.IN, Operator.NOT_IN)
    if needs is not bool(values):
        wanted = "at least one value" if needs else "no values"
        cursor.fail(f"operator {operator} takes {wanted}", "correct values")
    return Requirement(cursor.string("key"), operator, values)


def _subject(cursor: Cursor) -> Subject:
    cursor.only("kind", "name", "namespace", "apiGroup")
    subject = Subject(cursor.string("kind"), cursor.string("name"), cursor.string("namespace"))
    if subject.kind not in _SUBJECT_KINDS:
        cursor.fail(f'Unsupported kind: "{subject.kind}"', "write User, Group or ServiceAccount")
    account = subject.kind == "ServiceAccount"
    if account and not subject.namespace and not has_wildcard(subject.name):
        cursor.fail("a ServiceAccount needs a namespace", "write namespace")
    return subject
