"""`kyverno-test.yaml` files: found by name, run unchanged, judged as upstream judges them.

    a rule gave no result for an object that is there   "excluded": passes
    an object is not there                              a failure
    a comparison of patched or generated objects fails  a failure, unless `result: fail` is expected
    everything else                                     the result must be the expected one

Objects are compared without empty values and without the marks of who generated them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from generators.documents.json import (
    ObjectKey,
    Value,
    equal,
    items,
    mapping,
    mappings,
    object_key_of,
    text,
)
from generators.errors import InputError, Problem
from generators.kyverno.language import wildcards
from generators.kyverno.model import Document, Policy
from generators.kyverno.offline.applying import (
    Applied,
    Values,
    apply,
    load_requester,
    load_values,
    parse_values,
)
from generators.kyverno.offline.cluster import as_stored
from generators.kyverno.offline.loading import load_policies, load_resources
from generators.kyverno.ownership import unmarked
from generators.kyverno.results import RuleOutcome, RuleResult
from generators.kyverno.synchronize import tidy

FILE_NAME = "kyverno-test.yaml"
IGNORED = ("exceptions", "paramResources", "jsonPayload", "checks")
_AROUND = ("Context", "ClusterResource")
"""Kinds whose spec.resources are objects of the cluster around."""
_EXCLUDED = "excluded"


@dataclass(frozen=True, slots=True)
class CaseSelector:
    """`--test-case-selector`: wildcards for policy, rule and resource."""

    policy: str = "*"
    rule: str = "*"
    resource: str = "*"

    def takes(self, policy: str, rule: str, resource: str) -> bool:
        """Whether a case is to be run."""
        return (
            wildcards.matches(self.policy, policy)
            and wildcards.matches(self.rule, rule)
            and wildcards.matches(self.resource, resource)
        )


@dataclass(frozen=True, slots=True)
class Expectation:
    """One item of `results`."""

    policy: str
    rule: str
    kind: str
    resources: tuple[str, ...]
    result: str
    patched: str = ""
    generated: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """One judged case."""

    file: str
    policy: str
    rule: str
    resource: str
    expected: str
    actual: str
    ok: bool
    message: str


@dataclass(frozen=True, slots=True)
class TestReport:
    """All cases of the files, and what had to be left out."""

    cases: tuple[Case, ...]
    warnings: tuple[str, ...]


def find_files(paths: Iterable[str], name: str = FILE_NAME) -> list[Path]:
    """Test files: those named, and in folders those of the name."""
    found: dict[Path, None] = {}
    for given in paths:
        path = Path(given)
        if path.is_dir():
            found |= dict.fromkeys(sorted(p for p in path.rglob(name) if p.is_file()))
        elif path.is_file():
            found[path] = None
        else:
            raise InputError([Problem(given, 1, "", "is not there", "check the path")])
    return list(found)


def run_files(files: Sequence[Path], selector: CaseSelector) -> TestReport:
    """Run test files one after the other."""
    cases: list[Case] = []
    warnings: list[str] = []
    for file in files:
        cases += _run_file(file, selector, warnings)
    return TestReport(tuple(cases), tuple(warnings))


def _run_file(file: Path, selector: CaseSelector, warnings: list[str]) -> Iterator[Case]:
    for resource in load_resources([str(file)])[0]:
        if text(resource.document, "kind") != "Test":
            warnings.append(f"{resource.origin}: is not a Test, skipped")
            continue
        yield from _Test(file, resource.document, warnings).run(selector)


class _Test:
    """One document of a test file."""

    def __init__(self, file: Path, document: Document, warnings: list[str]) -> None:
        self.file = file
        self.document = document
        self.warnings = warnings
        for key in IGNORED:
            if document.get(key):
                warnings.append(f"{file}: {key} is not supported and ignored")

    def path(self, text: str) -> str:
        return str(self.file.parent / text)

    def texts(self, key: str) -> list[str]:
        found = self.document.get(key)
        given = [found] if isinstance(found, str) else found
        return [str(item) for item in given] if isinstance(given, list) else []

    def documents(self, paths: Iterable[str]) -> list[Document]:
        found, warnings = load_resources([self.path(text) for text in paths])
        self.warnings.extend(warnings)
        return [resource.document for resource in found]

    def around(self) -> list[Document]:
        """Objects that expressions find: those of `context` and `clusterResources`."""
        given = self.documents((*self.texts("context"), *self.texts("clusterResources")))
        found: list[Document] = []
        for document in given:
            if text(document, "kind") in _AROUND:
                found += mappings(document, "spec", "resources")
            else:
                found.append(document)
        return found

    def policies(self) -> tuple[Policy, ...]:
        loaded = load_policies([self.path(text) for text in self.texts("policies")])
        self.warnings.extend(str(problem) for problem in loaded.problems)
        return loaded.policies

    def values(self) -> Values:
        named = text(self.document, "variables")
        if named:
            return load_values(self.path(named))
        return parse_values(mapping(self.document, "values"))

    def run(self, selector: CaseSelector) -> Iterator[Case]:
        results = mappings(self.document, "results")
        sources = [text(each, "cloneSourceResource") for each in results]
        user = text(self.document, "userinfo")
        resources = self.documents(self.texts("resources"))
        others = self.documents(self.texts("targetResources"))
        others += self.documents(dict.fromkeys(filter(None, sources)))
        others += self.around()
        applied = apply(
            self.policies(),
            resources,
            others,
            self.values(),
            load_requester(self.path(user)) if user else None,
        )
        present = [object_key_of(as_stored(document)) for document in (*resources, *others)]
        for item in results:
            expectation = _expectation(item)
            yield from self.judge_all(expectation, applied, present, selector)

    def judge_all(
        self,
        expectation: Expectation,
        applied: Applied,
        present: Sequence[ObjectKey],
        selector: CaseSelector,
    ) -> Iterator[Case]:
        names = expectation.resources or tuple(
            dict.fromkeys(
                f"{key.namespace}/{key.name}" if key.namespace else key.name
                for key in _concerned(expectation, applied)
            )
        )
        for name in names:
            if selector.takes(expectation.policy, expectation.rule, name):
                yield self.judge(expectation, name, applied, present)

    def judge(
        self, wanted: Expectation, name: str, applied: Applied, present: Sequence[ObjectKey]
    ) -> Case:
        there = [key for key in present if _is_named(key, wanted.kind, name)]
        if not there:
            return self.case(wanted, name, "not found", False, "the object is in no file")
        results = _about(_results(wanted, applied), wanted.kind, name)
        if not results:
            return self.case(wanted, name, _EXCLUDED, True, "the rule does not apply to it")
        result = _weightiest(results)
        why = self.compare(wanted, name, applied)
        if why:
            return self.case(wanted, name, result.outcome, wanted.result == "fail", why)
        return self.case(
            wanted, name, result.outcome, result.outcome == wanted.result, result.message
        )

    def case(self, wanted: Expectation, name: str, actual: str, ok: bool, message: str) -> Case:
        return Case(
            file=str(self.file),
            policy=wanted.policy,
            rule=wanted.rule,
            resource=f"{wanted.kind} {name}".strip(),
            expected=wanted.result,
            actual=str(actual),
            ok=ok,
            message=message,
        )

    def compare(self, wanted: Expectation, name: str, applied: Applied) -> str:
        """How objects differ from the expected ones; empty when they do not."""
        if wanted.patched:
            actual = _patched(wanted, applied)
            expected = [
                d for d in self.documents([wanted.patched]) if _is_named(object_key_of(d), "", name)
            ] or self.documents([wanted.patched])
            return _first_difference(expected, actual, wanted.patched)
        if wanted.generated:
            made = [
                w.document
                for w in applied.generated
                if w.owner.policy == wanted.policy
                and wanted.rule in ("", w.owner.rule)
                and _is_named(w.owner.trigger, wanted.kind, name)
            ]
            return _first_difference(self.documents([wanted.generated]), made, wanted.generated)
        return ""


def _expectation(item: Document) -> Expectation:
    names = [str(each) for each in items(item, "resources")]
    if not names and (single := text(item, "resource")):
        home = text(item, "namespace")
        names = [f"{home}/{single}" if home else single]
    return Expectation(
        policy=text(item, "policy"),
        rule=text(item, "rule"),
        kind=text(item, "kind").rpartition("/")[2],
        resources=tuple(names),
        result=text(item, "result") or text(item, "status"),
        patched=text(item, "patchedResources") or text(item, "patchedResource"),
        generated=text(item, "generatedResource"),
    )


def _is_named(key: ObjectKey, kind: str, name: str) -> bool:
    """`name`, or `namespace/name`; no kind means any."""
    namespace, slash, bare = name.rpartition("/")
    if kind and key.kind.kind != kind:
        return False
    return key.name == bare and (not slash or key.namespace == namespace)


def _about(results: Sequence[RuleResult], kind: str, name: str) -> list[RuleResult]:
    """Results on that object as a target, else as the trigger."""
    targets = [r for r in results if r.target is not None and _is_named(r.target, kind, name)]
    return targets or [r for r in results if _is_named(r.resource, kind, name)]


def _results(wanted: Expectation, applied: Applied) -> list[RuleResult]:
    return [
        r
        for r in applied.results
        if r.policy == wanted.policy
        and wanted.rule in ("", r.rule)
        and r.outcome is not RuleOutcome.EXCLUDED
    ]


_WEIGHT = (
    RuleOutcome.SKIP,
    RuleOutcome.PASS,
    RuleOutcome.WARN,
    RuleOutcome.FAIL,
    RuleOutcome.ERROR,
)


def _weightiest(results: Sequence[RuleResult]) -> RuleResult:
    """The same target may have been looked at for several triggers."""
    return max(results, key=lambda r: _WEIGHT.index(r.outcome))


def _concerned(wanted: Expectation, applied: Applied) -> Iterator[ObjectKey]:
    for result in _results(wanted, applied):
        for key in (result.target or result.resource,):
            if not wanted.kind or key.kind.kind == wanted.kind:
                yield key


def _patched(wanted: Expectation, applied: Applied) -> list[Document]:
    """Objects as the policy left them: changed ones, and those that stayed."""
    latest: dict[ObjectKey, Document] = dict(applied.final)
    for change in (*applied.mutated, *applied.targets):
        if change.policy == wanted.policy:
            latest[object_key_of(change.after)] = change.after
    return list(latest.values())


def _first_difference(expected: Sequence[Document], actual: Sequence[Document], file: str) -> str:
    for document in expected:
        stored = as_stored(document)
        key = object_key_of(stored)
        found = next((a for a in actual if object_key_of(a) == key), None)
        if found is None:
            return f"{key} of {file} was not made"
        where = difference(tidy(unmarked(stored)), tidy(unmarked(found)))
        if where:
            return f"{key} differs from {file}: {where}"
    return ""


def difference(expected: Value, actual: Value, path: str = "") -> str:
    """The first place where two values differ; empty when they are equal."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key in sorted(expected.keys() | actual.keys()):
            below = f"{path}.{key}" if path else key
            if key not in actual or key not in expected:
                return f"{below} is {'missing' if key in expected else 'too much'}"
            if found := difference(expected[key], actual[key], below):
                return found
        return ""
    if isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for index, (one, other) in enumerate(zip(expected, actual, strict=True)):
            if found := difference(one, other, f"{path}[{index}]"):
                return found
        return ""
    return "" if equal(expected, actual) else f"{path} is {actual!r:.80}, not {expected!r:.80}"
