"""What policies may read and write: one choke point for every lookup, and one for every write.

A namespaced Policy reads and writes in its own namespace only, whatever its expressions say, and by
default only kinds that grant no rights: it acts with more rights than its author. API paths are
read only where the operator's list allows it. Kinds are written only when they are on the list;
namespaces that the operator protects get nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from generators.documents.json import (
    ObjectKey,
    ObjectKind,
    Value,
    equal,
    kind_of,
    mapping,
    split_api_version,
)
from generators.kyverno.failures import NotAllowed
from generators.kyverno.language import wildcards
from generators.kyverno.model import Document
from generators.kyverno.requests import Lookups
from generators.manifests.kinds import CLUSTER_SCOPED, plural_of

DEFAULT_PATHS = (
    "/api/v1/namespaces",
    "/api/v1/namespaces/*",
    "/apis/networking.k8s.io/v1/networkpolicies",
    "/apis/networking.k8s.io/v1/namespaces/*/networkpolicies",
)
_NEVER = ("/secrets", "/token", "/proxy", "/exec", "/log")
_ODD = ("..", "//", "#", "\\", "%", "?")
_QUERY = frozenset({"fieldSelector", "labelSelector", "limit"})
_NAMESPACE = ObjectKind("", "v1", "Namespace")
_RBAC = "rbac.authorization.k8s.io"
DEFAULT_KINDS = frozenset(
    {
        ("", "Namespace"),
        ("", "ConfigMap"),
        ("", "ResourceQuota"),
        ("", "LimitRange"),
        ("", "ServiceAccount"),
        ("networking.k8s.io", "NetworkPolicy"),
        (_RBAC, "Role"),
        (_RBAC, "RoleBinding"),
        ("cilium.io", "CiliumNetworkPolicy"),
        ("security.istio.io", "AuthorizationPolicy"),
    }
)
IN_NAMESPACES = frozenset({("", "ConfigMap"), ("networking.k8s.io", "NetworkPolicy")})


@dataclass(frozen=True, slots=True)
class Limits:
    """The operator's lists."""

    kinds: frozenset[tuple[str, str]] | None = DEFAULT_KINDS
    """(group, kind); None = every kind, which only offline commands use."""
    in_namespaces: frozenset[tuple[str, str]] = IN_NAMESPACES
    """Of these kinds, those that a namespaced Policy may write too."""
    paths: tuple[str, ...] = DEFAULT_PATHS
    protected: frozenset[str] = frozenset(
        {"kube-system", "kube-public", "kube-node-lease", "ringfence-system"}
    )


OFFLINE = Limits(kinds=None, paths=("*",), protected=frozenset())
"""Nothing is written offline, so nothing needs to be held back."""


def allowing(kinds: Iterable[str]) -> Limits:
    """The usual lists and what `--allow-kind` names, which namespaced Policies may write too.

    A kind that is named with group and version may be read by path as well, in that version. The
    core group's never are: Secrets are among them.
    """
    kinds = tuple(kinds)
    named = frozenset(map(parse_kind, kinds))
    paths = tuple(path for kind in readable(kinds) for path in _paths(kind))
    return Limits(
        kinds=DEFAULT_KINDS | named,
        in_namespaces=IN_NAMESPACES | named,
        paths=(*DEFAULT_PATHS, *paths),
    )


def readable(kinds: Iterable[str]) -> tuple[ObjectKind, ...]:
    """Of what `--allow-kind` names, the kinds that policies may read by path."""
    found = set()
    for each in kinds:
        api_version, _, kind = each.rpartition("/")
        group, version = split_api_version(api_version)
        if group and _is_version(version):
            found.add(ObjectKind(group, version, kind))
    return tuple(sorted(found))


def listing(kind: ObjectKind) -> str:
    """The path of all objects of a kind."""
    base = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
    return f"{base}/{plural_of(kind.kind)}"


def _paths(kind: ObjectKind) -> tuple[str, ...]:
    base, plural = f"/apis/{kind.api_version}", plural_of(kind.kind)
    home = f"{base}/namespaces/*/{plural}"
    return f"{base}/{plural}", f"{base}/{plural}/*", home, f"{home}/*"


def parse_kind(text: str) -> tuple[str, str]:
    """`Secret`, `apps/v1/Deployment` or `apps/Deployment` of `--allow-kind`."""
    before, _, kind = text.rpartition("/")
    group, version = split_api_version(before)
    return (group, kind) if _is_version(version) else (before, kind)


def _is_version(text: str) -> bool:
    return text.startswith("v") and text[1:2].isdigit()


def check_write(limits: Limits, policy_namespace: str, key: ObjectKey) -> None:
    """NotAllowed when a policy may not create, change or delete this object."""
    kind = key.kind
    cluster_scoped = kind.kind in CLUSTER_SCOPED
    spelled = (kind.group, kind.kind)
    allow = f"{kind.api_version}/{kind.kind}"
    if limits.kinds is not None and spelled not in limits.kinds:
        raise NotAllowed(f"policies may not write {kind.kind}; start with --allow-kind {allow}")
    if policy_namespace and (cluster_scoped or key.namespace != policy_namespace):
        raise NotAllowed(
            f"a Policy of namespace {policy_namespace} may not write {key}; make it a ClusterPolicy"
        )
    if policy_namespace and limits.kinds is not None and spelled not in limits.in_namespaces:
        raise NotAllowed(
            f"a Policy of namespace {policy_namespace} may not write {kind.kind}; "
            f"make it a ClusterPolicy, or start with --allow-kind {allow}"
        )
    home = key.name if kind.kind == "Namespace" else key.namespace
    if home in limits.protected:
        raise NotAllowed(f"namespace {home} is protected: {key} is not written")


def check_change(limits: Limits, before: Document, after: Document) -> None:
    """NotAllowed for what policies may not change of an object that they may write.

    Of a Namespace they change labels and annotations; anything else of it decides over its life.
    """
    if limits.kinds is None or kind_of(after) != _NAMESPACE:
        return
    if not equal(_without_notes(before), _without_notes(after)):
        raise NotAllowed("policies change only labels and annotations of a Namespace")


def _without_notes(document: Document) -> Document:
    meta = mapping(document, "metadata")
    kept = {key: value for key, value in meta.items() if key not in ("labels", "annotations")}
    return {**document, "metadata": kept}


@dataclass(frozen=True, slots=True)
class GuardedLookups:
    """Lookups of one policy. `namespace` is that of a namespaced Policy, else empty."""

    inner: Lookups
    limits: Limits
    namespace: str = ""

    def _inside(self, namespace: str, what: str) -> None:
        if self.namespace and namespace != self.namespace:
            raise NotAllowed(f"a Policy of namespace {self.namespace} may not read {what}")

    def namespace_labels(self, namespace: str) -> Mapping[str, str]:
        """Labels of a namespace."""
        self._inside(namespace, f"Namespace {namespace}")
        return self.inner.namespace_labels(namespace)

    def find(self, key: ObjectKey) -> Document | None:
        """One object."""
        self._inside(key.namespace, str(key))
        return self.inner.find(key)

    def list(self, kind: ObjectKind, namespace: str) -> Sequence[Document]:
        """All objects of a kind."""
        if self.namespace:
            self._inside(namespace or self.namespace, f"namespace {namespace}")
            namespace = self.namespace
        return self.inner.list(kind, namespace)

    def check_read(self, kind: ObjectKind) -> None:
        """NotAllowed for a kind whose objects an expression may not read: it could write them on.

        Those that policies write may be read, and those of a path on the operator's list.
        """
        allowed = self.limits.kinds
        if allowed is None or (kind.group, kind.kind) in allowed:
            return
        if any(_same_shape(path, listing(kind)) for path in self.limits.paths):
            return
        raise NotAllowed(
            f"policies may not read {kind.kind}; start with --allow-kind "
            f"{kind.api_version}/{kind.kind}"
        )

    def get(self, path: str) -> Value:
        """A GET of an allowed path."""
        return self.inner.get(self.checked(path))

    def checked(self, path: str) -> str:
        """The path, when it may be read. A watch would never end, so policies may not query one."""
        clean = unquote(path.split("?", 1)[0]).rstrip("/")
        odd = any(mark in clean for mark in _ODD) or ";" in path
        if odd or not clean.startswith("/") or not path.isprintable() or " " in path:
            raise NotAllowed(f"{path!r} is not a plain path of the API")
        every = "*" in self.limits.paths
        if not every and any(clean.endswith(end) or f"{end}/" in clean for end in _NEVER):
            raise NotAllowed(f"policies never read {clean}")
        if not any(_same_shape(allowed, clean) for allowed in self.limits.paths):
            raise NotAllowed(
                f"policies may not read {clean}; the operator's list does not have it: "
                "--allow-kind GROUP/VERSION/KIND adds a kind"
            )
        if self.namespace and f"/namespaces/{self.namespace}/" not in f"{clean}/":
            raise NotAllowed(f"a Policy of namespace {self.namespace} may not read {clean}")
        asked = {name for name, _ in parse_qsl(path.partition("?")[2], keep_blank_values=True)}
        if more := sorted(asked - _QUERY):
            known = ", ".join(sorted(_QUERY))
            raise NotAllowed(f"{path!r} asks for {', '.join(more)}; policies may ask for {known}")
        return path


def _same_shape(allowed: str, path: str) -> bool:
    """Stars stand for one part of the path; a lone star for every path."""
    if allowed == "*":
        return True
    wanted, given = allowed.split("/"), path.split("/")
    return len(wanted) == len(given) and all(map(wildcards.matches, wanted, given))
