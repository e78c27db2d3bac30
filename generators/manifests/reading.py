"""`-f`: files, directories and standard input -> `Documents`, with every defect at once.

Called by each offline command, the lab and the agent; the API client uses `parse_object`.
Kinds that decisions do not depend on are skipped, and named in a warning.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from generators.documents.yaml import Field, documents, from_sent
from generators.errors import InputError, Problem
from generators.manifests import cilium, core, policies, services
from generators.manifests.fields import Cursor, Report
from generators.manifests.files import Files
from generators.manifests.kinds import unknown_to_the_server
from generators.manifests.overruled import overruled
from generators.objects import (
    CiliumPolicy,
    ConfigMap,
    EndpointSlice,
    Namespace,
    NetworkPolicy,
    Node,
    Origin,
    Pod,
    PodTemplate,
    PolicyKind,
    Service,
)

Object = (
    Namespace
    | Pod
    | PodTemplate
    | NetworkPolicy
    | CiliumPolicy
    | Node
    | ConfigMap
    | Service
    | EndpointSlice
)

OWN_VERSION = "ringfence.io/v1alpha1"
_KUSTOMIZATION = ("kustomization.yaml", "kustomization.yml")
_NETWORKING = "networking.k8s.io/v1"
_CILIUM = "cilium.io/v2"
_CILIUM_KINDS = (PolicyKind.CILIUM.value, PolicyKind.CILIUM_CLUSTERWIDE.value)
_PARSERS: Mapping[tuple[str, str], Callable[[Cursor, Origin], Object]] = {
    ("v1", "Namespace"): core.parse_namespace,
    ("v1", "Pod"): core.parse_pod,
    ("v1", "Node"): core.parse_node,
    ("v1", "ConfigMap"): core.parse_config_map,
    ("v1", "Service"): services.parse_service,
    ("discovery.k8s.io/v1", "EndpointSlice"): services.parse_slice,
    (_NETWORKING, "NetworkPolicy"): policies.parse_policy,
    **{(_CILIUM, kind): cilium.parse_cilium for kind in _CILIUM_KINDS},
    ("v1", "ReplicationController"): core.parse_workload,
    **{
        ("apps/v1", kind): core.parse_workload
        for kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")
    },
    **{("batch/v1", kind): core.parse_workload for kind in ("Job", core.CRON_JOB)},
}
_VERSIONS = {kind: api_version for api_version, kind in _PARSERS}
_TEMPLATE = re.compile(
    rb"\{\{-?\s*(\.(Values|Release|Chart|Capabilities|Files)\b|\$|(include|template|toYaml|tpl)\b"
    rb"|(if|range|with|define|end|else)\b)"
)
_CLUSTER_SCOPED = (Namespace, Node)


@dataclass(frozen=True, slots=True)
class Documents:
    """All objects of the input, in its order, and what was left out."""

    namespaces: tuple[Namespace, ...] = ()
    pods: tuple[Pod, ...] = ()
    policies: tuple[NetworkPolicy, ...] = ()
    cilium_policies: tuple[CiliumPolicy, ...] = ()
    nodes: tuple[Node, ...] = ()
    config_maps: tuple[ConfigMap, ...] = ()
    services: tuple[Service, ...] = ()
    slices: tuple[EndpointSlice, ...] = ()
    templates: tuple[PodTemplate, ...] = ()
    """Nothing decides by them until `with_workloads` makes pods of them."""
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class _Collection:
    """What has been read so far."""

    objects: list[Object] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    first_skipped: dict[str, Origin] = field(default_factory=dict)
    places: dict[tuple[str, str, str], Origin] = field(default_factory=dict)
    unrendered: list[str] = field(default_factory=list)
    """Kustomizations: what they would make of the files beside them is not known."""

    def add(self, item: Object) -> None:
        """Take an object, unless it was given before."""
        namespace = "" if isinstance(item, _CLUSTER_SCOPED) else item.namespace
        kind = item.kind.value if isinstance(item, CiliumPolicy) else type(item).__name__
        key = (kind, namespace, item.name)
        first = self.places.setdefault(key, item.origin)
        if first is not item.origin:
            subject = f"{key[0]} {namespace}/{item.name}" if namespace else f"{key[0]} {item.name}"
            what = f"is given twice, first at {first}"
            origin = item.origin
            self.problems.append(
                Problem(origin.file, origin.line, subject, what, "keep one, or rename one")
            )
        self.objects.append(item)

    def skip(self, api_version: str, kind: str, origin: Origin) -> None:
        """Note an object of a kind that is not known here."""
        name = f"{api_version} {kind}".strip()
        self.skipped[name] += 1
        self.first_skipped.setdefault(name, origin)

    def documents(self) -> Documents:
        """All that was read; InputError when anything was wrong."""
        if self.problems:
            hints = (Problem(file, 1, "", _UNRENDERED, _render(file)) for file in self.unrendered)
            raise InputError([*hints, *self.problems])
        return Documents(
            namespaces=tuple(o for o in self.objects if isinstance(o, Namespace)),
            pods=tuple(o for o in self.objects if isinstance(o, Pod)),
            policies=tuple(o for o in self.objects if isinstance(o, NetworkPolicy)),
            cilium_policies=tuple(o for o in self.objects if isinstance(o, CiliumPolicy)),
            nodes=tuple(o for o in self.objects if isinstance(o, Node)),
            config_maps=tuple(o for o in self.objects if isinstance(o, ConfigMap)),
            services=tuple(o for o in self.objects if isinstance(o, Service)),
            slices=tuple(o for o in self.objects if isinstance(o, EndpointSlice)),
            templates=tuple(o for o in self.objects if isinstance(o, PodTemplate)),
            warnings=tuple(f"{f}:1: {_UNRENDERED}; {_render(f)}" for f in self.unrendered)
            + tuple(
                f"{self.first_skipped[kind]}: kind {kind} is not known here, skipped"
                + (f" ({count} objects)" if count > 1 else "")
                for kind, count in sorted(self.skipped.items())
            ),
        )


_UNRENDERED = "a kustomization is not applied, the files beside it are taken as they are"


def _render(file: str) -> str:
    return f"render it first: kubectl kustomize {Path(file).parent} | ringfence ... -f -"


def with_workloads(documents: Documents) -> Documents:
    """One pod for each workload that has none in the input: all of its pods are alike to policies.

    For questions about files: git and `helm template` hold no pods, but those of `helm test`, which
    nothing installs.
    """
    templates = documents.templates
    there = {(pod.namespace, pod.workload) for pod in documents.pods if pod.workload is not None}
    known = {(template.namespace, template.workload) for template in templates}
    made = tuple(
        template.pod
        for template in templates
        if (template.namespace, template.owner) not in known
        and not {(template.namespace, w) for w in (template.workload, template.owner)} & there
    )
    pods = (pod for pod in documents.pods if not _is_helm_test(pod))
    return replace(documents, pods=(*pods, *made))


def _is_helm_test(pod: Pod) -> bool:
    hooks = pod.annotations.get("helm.sh/hook", "").split(",")
    return any(hook.strip() in ("test", "test-success", "test-failure") for hook in hooks)


def read(paths: Sequence[str]) -> Documents:
    """Read files, directories (recursively) and `-`; InputError with every problem of them."""
    collection = _Collection()
    files = Files(collection.problems)
    for path in paths:
        for file, data in files.contents(path):
            if Path(file).name in _KUSTOMIZATION:
                collection.unrendered.append(file)
            else:
                _read_file(data, file, collection)
    return collection.documents()


def read_bytes(data: bytes, file: str) -> Documents:
    """The objects of one file's content; `file` is its name in messages."""
    collection = _Collection()
    _read_file(data, file, collection)
    return collection.documents()


@dataclass(frozen=True, slots=True)
class CiliumFindings:
    """What `policy lint` says of policies of Cilium's kinds."""

    refused: tuple[Problem, ...]
    overruled: tuple[Problem, ...]
    """Rules that judge HTTP in vain."""


def lint_cilium(paths: Iterable[str]) -> CiliumFindings:
    """What is wrong with policies of Cilium's kinds in files; other kinds are not told about."""
    refused: list[Problem] = []
    policies: list[NetworkPolicy] = []
    for path in paths:
        for file, data in Files([]).contents(path):
            try:
                found = read_bytes(data, file)
            except InputError as error:
                refused += (p for p in error.problems if p.path.startswith(_CILIUM_KINDS))
                continue
            policies += found.policies
            policies += (part for policy in found.cilium_policies for part in policy.parts)
    return CiliumFindings(tuple(refused), tuple(overruled(policies)))


def merge(parts: Iterable[Documents]) -> Documents:
    """What several files hold together; InputError where an object is given twice."""
    collection = _Collection()
    warnings: list[str] = []
    for part in parts:
        kinds: tuple[Iterable[Object], ...] = (
            *(part.namespaces, part.pods, part.policies, part.cilium_policies),
            *(part.nodes, part.config_maps, part.services, part.slices, part.templates),
        )
        for item in chain.from_iterable(kinds):
            collection.add(item)
        warnings += part.warnings
    return replace(collection.documents(), warnings=tuple(warnings))


def parse_object(document: Mapping[str, object], origin: Origin) -> Object | None:
    """One decoded JSON object, e.g. from an API server; None when its kind is not known here."""
    collection = _Collection()
    _read_object(from_sent(document, origin.file, origin.line), origin, collection)
    if collection.problems:
        raise InputError(collection.problems)
    return collection.objects[0] if collection.objects else None


def _read_file(data: bytes, file: str, collection: _Collection) -> None:
    before = len(collection.problems)
    try:
        for root in documents(data, file):
            _read_object(root, Origin(file, root.line), collection)
    except InputError as error:
        collection.problems.extend(error.problems)
    template = _TEMPLATE.search(data) if len(collection.problems) > before else None
    if template is not None:
        line = data.count(b"\n", 0, template.start()) + 1
        fix = "render it first: helm template CHART | ringfence ... -f -"
        hint = Problem(file, line, "", "is a Helm template, not a manifest", fix)
        collection.problems.insert(before, hint)


def _read_object(
    root: Field, origin: Origin, collection: _Collection, implied: tuple[str, str] = ("", "")
) -> None:
    report = Report(origin.file)
    cursor = Cursor(root, "", report)
    if isinstance(root.value, Mapping):
        api_version = cursor.string("apiVersion", implied[0])
        kind = cursor.string("kind", implied[1])
        parser = _PARSERS.get((api_version, kind))
        if not kind or not api_version:
            report.add(root.line, "", "no apiVersion and kind", "add both")
        elif (wrong := unknown_to_the_server(api_version, kind, _VERSIONS)) and kind != "List":
            report.add(root.line, "", *wrong)
        elif kind.endswith("List") and "items" in root.value:
            _read_list(cursor, (api_version, kind), origin, collection)
        elif api_version == OWN_VERSION:
            return  # a tenant file or expectations beside the manifests
        elif parser is None:
            collection.skip(api_version, kind, origin)
        else:
            report.subject = _subject(cursor, kind)
            item = parser(cursor, origin)
            if not report.problems:
                collection.add(item)
    else:
        report.add(root.line, "", "not a Kubernetes object", "write apiVersion, kind and metadata")
    collection.problems.extend(report.problems)


def _read_list(
    root: Cursor, kind: tuple[str, str], origin: Origin, collection: _Collection
) -> None:
    """Items of a `List`; those of a typed list (`PodList`) may leave out what the list says."""
    item_kind = kind[1].removesuffix("List")
    implied = (kind[0], item_kind) if item_kind else ("", "")
    for item in root.children("items"):
        _read_object(item.field, Origin(origin.file, item.line), collection, implied)


def _subject(root: Cursor, kind: str) -> str:
    meta = root.field.value.get("metadata") if isinstance(root.field.value, Mapping) else None
    if meta is None or not isinstance(meta.value, Mapping):
        return kind
    parts = [meta.value[key].text for key in ("namespace", "name") if key in meta.value]
    return f"{kind} {'/'.join(part for part in parts if part)}".strip()
