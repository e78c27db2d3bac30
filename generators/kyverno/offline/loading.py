"""Files -> policies, and files -> plain objects, for the offline commands and `--policies PATH`.

A broken policy does not keep the others from loading: its problems are returned beside them. A file
that is not YAML is one of the problems.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from generators.documents.json import object_key_of, text
from generators.documents.yaml import Field, documents, from_sent, plain
from generators.errors import InputError, Problem
from generators.kyverno import celparsing, parsing
from generators.kyverno.model import Document, Policy
from generators.manifests.fields import Cursor, Report
from generators.manifests.files import Files
from generators.objects import Origin

_OTHER_KINDS = {
    "CleanupPolicy": "cleanup policies are not carried out",
    "ClusterCleanupPolicy": "cleanup policies are not carried out",
    "PolicyException": "policy exceptions are not supported",
    "ValidatingPolicy": "validation is not carried out",
    "NamespacedValidatingPolicy": "validation is not carried out",
    "ImageValidatingPolicy": "image verification is not carried out",
    "NamespacedImageValidatingPolicy": "image verification is not carried out",
    "DeletingPolicy": "cleanup policies are not carried out",
    "NamespacedDeletingPolicy": "cleanup policies are not carried out",
    "GlobalContextEntry": "global context entries are not read",
}
_LEAVE = "leave it to Kyverno"


@dataclass(frozen=True, slots=True)
class _FrontEnd:
    """Who reads a kind of policy, and in which versions; the first is the one to write."""

    versions: tuple[str, ...]
    parse: Callable[[Cursor, Origin], Policy]


_FRONT_ENDS = {
    **{
        ("kyverno.io", kind): _FrontEnd(parsing.API_VERSIONS, parsing.parse_policy)
        for kind in parsing.KINDS
    },
    **{
        (celparsing.GROUP, kind): _FrontEnd(celparsing.API_VERSIONS, celparsing.parse_policy)
        for kind in celparsing.KINDS
    },
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """All policies that are right, and everything that is not."""

    policies: tuple[Policy, ...]
    problems: tuple[Problem, ...]
    skipped: int = 0
    """Documents that are not policies."""


def is_left_to_kyverno(problem: Problem) -> bool:
    """Whether the problem is a document of another kind, which is not a mistake of its author."""
    return problem.fix == _LEAVE


def load_policies(paths: Iterable[str]) -> Loaded:
    """Read policy files; documents of other kinds are counted, never taken for policies."""
    files = Files()
    policies: list[Policy] = []
    problems: list[Problem] = []
    skipped = 0
    for path in paths:
        for file, data in files.contents(path):
            loaded = policies_in(data, file)
            policies += loaded.policies
            problems += loaded.problems
            skipped += loaded.skipped
    problems += files.problems + _twice(policies)
    return Loaded(tuple(policies), tuple(sorted(problems)), skipped)


def _twice(policies: Sequence[Policy]) -> list[Problem]:
    first: dict[str, Policy] = {}
    problems = []
    for policy in policies:
        before = first.setdefault(policy.key, policy)
        if before is not policy:
            origin = policy.origin
            what = f"policy {policy.key} is given twice, first at {before.origin}"
            problems.append(Problem(origin.file, origin.line, "", what, "keep one"))
    return problems


def policies_in(data: bytes, file: str) -> Loaded:
    """The policies of one file's content."""
    policies: list[Policy] = []
    problems: list[Problem] = []
    skipped = 0
    try:
        for root in documents(data, file):
            for item in _flat(root):
                known = _read_policy(item, file, policies, problems)
                skipped += 0 if known else 1
    except InputError as error:
        problems += error.problems
    return Loaded(tuple(policies), tuple(problems), skipped)


def policy_from(document: Mapping[str, object], origin: Origin) -> Policy:
    """A policy as the API server sends it; InputError when it is wrong."""
    policies: list[Policy] = []
    problems: list[Problem] = []
    root = from_sent(document, origin.file, origin.line)
    if not _read_policy(root, origin.file, policies, problems):
        problems.append(Problem(origin.file, origin.line, "", "is not a policy", "leave it out"))
    if problems:
        raise InputError(problems)
    return policies[0]


def _flat(root: Field) -> Iterable[Field]:
    """The document, or the items of a List."""
    value = root.value
    if isinstance(value, Mapping) and "items" in value and _text(value, "kind").endswith("List"):
        items = value["items"].value
        return items if isinstance(items, tuple) else ()
    return (root,)


def _text(value: Mapping[str, Field], key: str) -> str:
    return value[key].text if key in value else ""


def _read_policy(root: Field, file: str, policies: list[Policy], problems: list[Problem]) -> bool:
    value = root.value
    if not isinstance(value, Mapping):
        what, fix = "not a Kubernetes object", "write apiVersion, kind and metadata"
        problems.append(Problem(file, root.line, "", what, fix))
        return True
    api_version, kind = _text(value, "apiVersion"), _text(value, "kind")
    group = api_version.partition("/")[0]
    if kind in _OTHER_KINDS and group.endswith("kyverno.io"):
        problems.append(Problem(file, root.line, kind, _OTHER_KINDS[kind], _LEAVE))
        return True
    front = _FRONT_ENDS.get((group, kind))
    if front is None:
        return False
    if api_version not in front.versions or _is_older(api_version, kind):
        what = f"apiVersion {api_version} is not supported"
        problems.append(Problem(file, root.line, kind, what, f"write {front.versions[0]}"))
        return True
    report = Report(file, _subject(value, kind))
    policy = front.parse(Cursor(root, "", report), Origin(file, root.line))
    problems += report.problems
    if not report.problems:
        policies.append(policy)
    return True


def _is_older(api_version: str, kind: str) -> bool:
    """The first version of the group had no namespaced policies."""
    return api_version.endswith("/v1alpha1") and kind.startswith("Namespaced")


def _subject(value: Mapping[str, Field], kind: str) -> str:
    meta = value["metadata"].value if "metadata" in value else None
    name = _text(meta, "name") if isinstance(meta, Mapping) else ""
    return f"{kind} {name}".strip()


@dataclass(frozen=True, slots=True)
class LoadedObject:
    """An object of any kind, and where it was read."""

    document: Document
    origin: Origin


def load_resources(paths: Iterable[str]) -> tuple[tuple[LoadedObject, ...], tuple[str, ...]]:
    """Objects of all kinds, each once, and warnings about those that were given twice."""
    files = Files()
    found: list[LoadedObject] = []
    problems: list[Problem] = []
    for path in paths:
        for file, data in files.contents(path):
            try:
                for root in documents(data, file):
                    found += _resources(root, file, problems)
            except InputError as error:
                problems += error.problems
    problems += files.problems
    if problems:
        raise InputError(problems)
    return _once(found)


def _resources(root: Field, file: str, problems: list[Problem]) -> list[LoadedObject]:
    found = []
    for item in _flat(root):
        document = plain(item)
        if not isinstance(document, dict) or not text(document, "kind"):
            what, fix = "not a Kubernetes object", "write apiVersion, kind and metadata"
            problems.append(Problem(file, item.line, "", what, fix))
            continue
        found.append(LoadedObject(document, Origin(file, item.line)))
    return found


def _once(found: Sequence[LoadedObject]) -> tuple[tuple[LoadedObject, ...], tuple[str, ...]]:
    kept: dict[str, LoadedObject] = {}
    warnings = []
    for resource in found:
        key = f"{object_key_of(resource.document).kind} {object_key_of(resource.document)}"
        if key in kept:
            warnings.append(f"{resource.origin}: {key} is given twice; the first is used")
        else:
            kept[key] = resource
    return tuple(kept.values()), tuple(warnings)
