"""`ringfence policy lint`: what is unsupported, and what can never work.

refused       the document is wrong; no rule of it runs
unsupported   the rule is not carried out here
expression    a variable that no context has, a function that does not exist, broken syntax
empty         a name, namespace or label that is an empty text: a template was rendered away
overruled     HTTP rules that judge nothing, as another rule allows the packets
never         a selector that cannot match what the policies beside it write
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum

from generators.documents.json import Value, leaves, mapping, text
from generators.documents.yaml import documents, plain
from generators.errors import InputError, Problem
from generators.kyverno.failures import BadExpression
from generators.kyverno.language import expressions
from generators.kyverno.language.wildcards import overlap
from generators.kyverno.model import (
    Clone,
    CloneList,
    ContextEntry,
    Data,
    Downstream,
    Filter,
    ForEachPatch,
    Generation,
    Mutation,
    Patch,
    Place,
    Policy,
    PolicyRule,
    Target,
    Template,
    Unsupported,
)
from generators.kyverno.offline.loading import Loaded
from generators.kyverno.patches.fitting import parse_anchor
from generators.kyverno.variables import bare, expressions_in, has_variable


class Sort(StrEnum):
    """What kind of trouble a finding is."""

    REFUSED = "refused"
    UNSUPPORTED = "unsupported"
    EXPRESSION = "expression"
    EMPTY = "empty"
    OVERRULED = "overruled"
    NEVER = "never"


@dataclass(frozen=True, slots=True, order=True)
class LintFinding:
    """One line of the report."""

    place: Place
    sort: Sort
    policy: str
    rule: str
    what: str
    fix: str

    def __str__(self) -> str:
        rule = f"{self.policy}/{self.rule}: " if self.rule else ""
        return f"{self.place}: {rule}{self.what}; {self.fix}"


_ROOTS = frozenset({"request", "serviceAccountName", "serviceAccountNamespace", "target", "images"})
_ELEMENTS = ("element", "elementIndex")
_EMPTY_FIX = "write it, or the intended variable; templating tools render {{ }} away"


def lint(
    loaded: Loaded, refused: Iterable[Problem] = (), overruled: Iterable[Problem] = ()
) -> tuple[LintFinding, ...]:
    """All findings, in file order; `refused` and `overruled` are about policies of other kinds."""
    sorts = {Sort.REFUSED: (*loaded.problems, *refused), Sort.OVERRULED: tuple(overruled)}
    found = [
        LintFinding(Place(p.file, p.line, p.path), sort, "", "", p.what, p.fix)
        for sort, problems in sorts.items()
        for p in problems
    ]
    for policy in loaded.policies:
        for rule in policy.rules:
            found += _rule_findings(policy, rule)
    found += _never(loaded.policies)
    return tuple(sorted(set(found)))


def _rule_findings(policy: Policy, rule: PolicyRule) -> Iterator[LintFinding]:
    action = rule.action
    if isinstance(action, Unsupported):
        for reason in action.reasons:
            yield LintFinding(
                reason.place, Sort.UNSUPPORTED, policy.key, rule.name, reason.what, reason.fix
            )
    for template, scoped in _templates(rule, frozenset()):
        for place, problem in _expression_problems(template, scoped):
            fix = "correct the expression"
            yield LintFinding(place, Sort.EXPRESSION, policy.key, rule.name, problem, fix)
    for place, what in _empty(rule):
        yield LintFinding(place, Sort.EMPTY, policy.key, rule.name, what, _EMPTY_FIX)


_Scoped = tuple[Template, frozenset[str]]


def _templates(part: object, names: frozenset[str]) -> Iterator[_Scoped]:
    """Every template under a part of a rule, with the names that it can see."""
    if isinstance(part, Template):
        yield part, names
        return
    if isinstance(part, tuple):
        for item in part:
            yield from _templates(item, names)
        return
    if not is_dataclass(part) or isinstance(part, Place | Filter):
        return
    known = names | _named(part)
    for field in fields(part):
        yield from _templates(getattr(part, field.name), known)


def _named(part: object) -> frozenset[str]:
    """Names that a part adds for everything below it."""
    entries: tuple[ContextEntry, ...] = ()
    added: frozenset[str] = frozenset()
    if isinstance(part, PolicyRule | Target | ForEachPatch | Downstream):
        entries = part.setting.context
    if isinstance(part, ForEachPatch) or (isinstance(part, Downstream) and part.list is not None):
        added = frozenset(_ELEMENTS) | {f"{e}{n}" for e in _ELEMENTS for n in range(6)}
    return added | {entry.name.split(".")[0] for entry in entries}


def _expression_problems(template: Template, names: frozenset[str]) -> Iterator[tuple[Place, str]]:
    for path, leaf in leaves(template.value):
        if not isinstance(leaf, str):
            continue
        bare_query = not path and template.place.path.endswith((".jmesPath", ".list"))
        found = expressions_in(leaf)
        if bare_query and not has_variable(leaf):
            found = [leaf]
        for expression in found:
            if expression == "@" or "{{" in expression:
                continue
            place = template.place_of(path)
            for problem in expressions.check(expression):
                yield place, problem
            if bare_query and template.place.path.endswith(".jmesPath"):
                continue
            for name in _unknown_roots(expression, names):
                yield place, f"no context entry is called {name!r}"


def _unknown_roots(expression: str, names: frozenset[str]) -> list[str]:
    try:
        roots = expressions.first_fields(expression)
    except BadExpression:
        return []
    return sorted(roots - _ROOTS - names)


def _empty(rule: PolicyRule) -> Iterator[tuple[Place, str]]:
    action = rule.action
    for one in (*rule.match.filters, *(rule.exclude.filters if rule.exclude else ())):
        for selector in (one.selector, one.namespace_selector):
            for key, value in selector.labels.items() if selector is not None else ():
                if value == "":
                    yield one.place, f"matchLabels.{key} is empty"
    if isinstance(action, Mutation):
        for patch in _patches(action.patch):
            if patch.strategic is not None:
                yield from _empty_labels(patch.strategic)
    if isinstance(action, Generation):
        for downstream in action.downstreams:
            yield from _empty_address(downstream.target)
            match downstream.source:
                case Data(content):
                    yield from _empty_labels(content)
                case Clone(source):
                    yield from _empty_address(source)
                case CloneList(fields):
                    yield from _empty_address(fields)


def _empty_address(template: Template) -> Iterator[tuple[Place, str]]:
    for key in ("name", "namespace"):
        if mapping(template.value).get(key) == "":
            yield template.place_of((key,)), f"{key} is empty"


def _empty_labels(template: Template) -> Iterator[tuple[Place, str]]:
    for path, leaf in leaves(template.value):
        inside = [part for part in path[:-1] if part in ("labels", "matchLabels")]
        if leaf == "" and inside:
            yield template.place_of(path), f"{path[-1]} is empty"


def _patches(patch: Patch) -> Iterator[Patch]:
    yield patch
    for each in patch.foreach:
        yield from _patches(each.patch)


@dataclass(frozen=True, slots=True)
class _Label:
    """A label that a policy writes or selects."""

    policy: Policy
    rule: PolicyRule
    place: Place
    key: str
    value: str


def _written(policies: Iterable[Policy]) -> Iterator[_Label]:
    for policy in policies:
        for rule in policy.rules:
            if not isinstance(rule.action, Mutation):
                continue
            for patch in _patches(rule.action.patch):
                for place, key, value in _patch_labels(patch):
                    yield _Label(policy, rule, place, key, value)


def _patch_labels(patch: Patch) -> Iterator[tuple[Place, str, str]]:
    if patch.strategic is not None:
        for path, leaf in leaves(patch.strategic.value):
            if len(path) == 3 and [bare(str(p)) for p in path[:2]] == ["metadata", "labels"]:
                anchor, key = parse_anchor(str(path[2]))
                if isinstance(leaf, str) and leaf != path[2] and anchor in (None, "+"):
                    yield patch.strategic.place_of(path), key, leaf
    if patch.json6902 is not None:
        yield from _operation_labels(patch.json6902)


def _operation_labels(template: Template) -> Iterator[tuple[Place, str, str]]:
    given = template.value
    try:
        operations = _decoded(given) if isinstance(given, str) else given
    except InputError:
        return
    for item in operations if isinstance(operations, list) else []:
        path = text(item, "path")
        prefix = "/metadata/labels/"
        if path.startswith(prefix) and text(item, "op") in ("add", "replace"):
            key = path[len(prefix) :].replace("~1", "/").replace("~0", "~")
            yield template.place, key, text(item, "value")


def _selected(policies: Iterable[Policy]) -> Iterator[_Label]:
    for policy in policies:
        for rule in policy.rules:
            for one in rule.match.filters:
                for key, value in one.selector.labels.items() if one.selector else ():
                    yield _Label(policy, rule, one.place, key, value)


def _never(policies: tuple[Policy, ...]) -> Iterator[LintFinding]:
    """Selectors whose value is written, but under another key only."""
    written = list(_written(policies))
    for selected in _selected(policies):
        fitting = [w for w in written if _may_be(w.value, selected.value)]
        if not fitting or any(overlap(w.key, selected.key) for w in fitting):
            continue
        for writer in fitting:
            if writer.policy is selected.policy and writer.rule is selected.rule:
                continue
            what = (
                f"selects {selected.key}={selected.value}, which can never match what "
                f"{writer.policy.key}/{writer.rule.name} writes: {writer.key}={writer.value} "
                f"({writer.place.file}:{writer.place.line})"
            )
            yield LintFinding(
                selected.place,
                Sort.NEVER,
                selected.policy.key,
                selected.rule.name,
                what,
                f"write the same key in both: {selected.key} or {writer.key}",
            )


def _may_be(written: str, selected: str) -> bool:
    """Whether a written value is the selected one; unknown for a variable."""
    return bool(written) and not has_variable(written) and overlap(written, selected)


def _decoded(text: str) -> Value:
    read = list(documents(text.encode(errors="replace"), "patch"))
    return plain(read[0]) if read else None
