"""What a Helm release wants of its namespace's labels, and what to say about it. Pure.

Used by `apply.py`. The API server keeps the account, in `managedFields`: each release
owns the labels that it applies, two that want the same value own it together, and a label goes
with its last owner.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from generators.documents.json import Document, mapping, mappings, strings, text
from generators.documents.writing import to_yaml

RELEASE_PREFIX = "ringfence-"
"""A release's field manager is this and its name; `/ALIAS` follows for an aliased subchart."""

ROLE = "ringfence-namespace-label"
KEPT_BY_CLUSTER = "admission of this cluster keeps it"


class Act(Enum):
    """Whether to make it so, or to look whether it is."""

    APPLY = "apply"
    CHECK = "check"


@dataclass(frozen=True, slots=True)
class LabelWish:
    """What one manager wants of one namespace.

    Without `removed`, `labels` is all that it wants: labels it set earlier and no longer names are
    removed. With `removed`, the two are changes to what it has.
    """

    namespace: str
    manager: str
    labels: Mapping[str, str]
    removed: frozenset[str] = frozenset()

    def given(self, owned: Mapping[str, str]) -> dict[str, str]:
        """The labels to apply, when `owned` are those that the manager has now."""
        kept = owned if self.removed else {}
        return {k: v for k, v in kept.items() if k not in self.removed} | dict(self.labels)


@dataclass(frozen=True, slots=True)
class LabelsOutcome:
    """What is true of the namespace now, for people."""

    namespace: str
    carried: Mapping[str, str]
    gone: tuple[str, ...] = ()
    kept: Mapping[str, tuple[str, ...]] | None = None
    """Removed labels that stay, and because of which managers; none: admission keeps them."""

    def lines(self) -> list[str]:
        """One line a label."""
        told = [f"{key}={value} is set" for key, value in sorted(self.carried.items())]
        told += [f"{key} is removed" for key in self.gone]
        told += [
            f"{key} stays: {f'also set by {listed(managers)}' if managers else KEPT_BY_CLUSTER}"
            for key, managers in sorted((self.kept or {}).items())
        ]
        return [f'namespace "{self.namespace}": {line}' for line in told or ["nothing to change"]]


def who(manager: str) -> str:
    """A field manager as a person knows it."""
    if not manager.startswith(RELEASE_PREFIX):
        return f'field manager "{manager}"'
    release, _, alias = manager.removeprefix(RELEASE_PREFIX).partition("/")
    return f'release "{release}" (its "{alias}")' if alias else f'release "{release}"'


def owners(namespace: Document) -> dict[str, tuple[str, ...]]:
    """Label key -> everybody who has set its value, from `managedFields`."""
    found: dict[str, set[str]] = {}
    for entry in mappings(mapping(namespace, "metadata"), "managedFields"):
        fields = mapping(mapping(mapping(entry, "fieldsV1"), "f:metadata"), "f:labels")
        for field in fields:
            if field.startswith("f:"):
                found.setdefault(field[2:], set()).add(text(entry, "manager"))
    return {key: tuple(sorted(managers)) for key, managers in sorted(found.items())}


def contradiction(wish: LabelWish, wanted: Mapping[str, str], namespace: Document) -> str | None:
    """Which other manager's value conflicts with which of ours; None without a conflict."""
    labels = strings(mapping(namespace, "metadata"), "labels")
    by = owners(namespace)
    lines: list[str] = []
    for key, value in sorted(wanted.items()):
        others = [m for m in by.get(key, ()) if m != wish.manager]
        if others and labels.get(key) != value:
            lines.append(
                f"{who(wish.manager)} wants {key}={value}, "
                f"but {listed(others)} has set {key}={labels.get(key, '')}"
            )
    if not lines:
        return None
    return (
        f'namespace "{wish.namespace}": {"; ".join(lines)}; a namespace has one value of a label: '
        "give both the same, or install one of them in another namespace"
    )


def changed_by_admission(wanted: Mapping[str, str], namespace: Document) -> str | None:
    """The labels that the cluster made into something else while it took the request."""
    labels = strings(mapping(namespace, "metadata"), "labels")
    lost = [
        f"{key}={value} (it is {labels[key] or 'empty' if key in labels else 'absent'})"
        for key, value in sorted(wanted.items())
        if labels.get(key) != value
    ]
    if not lost:
        return None
    return (
        f"admission of this cluster did not take {', '.join(lost)}; the tenant file decides which "
        "tenant owns a namespace: leave the label out, or ask the cluster's administrators"
    )


def role_to_ask_for(namespace: str, user: str) -> str:
    """YAML of the Role and RoleBinding that let `user` label this one namespace."""
    account = user.split(":") if user.startswith("system:serviceaccount:") else []
    rbac = "rbac.authorization.k8s.io"
    subject: Document = (
        {"kind": "ServiceAccount", "namespace": account[2], "name": account[3]}
        if len(account) == 4
        else {"kind": "User", "apiGroup": rbac, "name": user}
    )
    head: Document = {"name": ROLE, "namespace": namespace}
    rule: Document = {
        "apiGroups": [""],
        "resources": ["namespaces"],
        "resourceNames": [namespace],
        "verbs": ["get", "patch"],
    }
    reference = {"apiGroup": rbac, "kind": "Role", "name": ROLE}
    return to_yaml(
        [
            {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": head, "rules": [rule]},
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "RoleBinding",
                "metadata": head,
                "subjects": [subject],
                "roleRef": reference,
            },
        ]
    )


def listed(managers: Iterable[str]) -> str:
    """Several field managers in one phrase."""
    return " and ".join(who(manager) for manager in managers)
