"""Who has which roles: bindings by their subjects, kept in step as they change.

Fed by the live copies of the bindings, asked while requests wait. A cluster has thousands of
bindings and a requester few subjects: an answer takes as long as the requester has roles.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from generators.documents.json import Document, Key, mapping, mappings, meta_of, text
from generators.tenants.assignment import Requester

_SERVICE_ACCOUNT = "system:serviceaccount:"
Subject = tuple[str, str]
"""(User or Group, name); ServiceAccounts by their usernames."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A RoleBinding or ClusterRoleBinding: one role, and who has it."""

    namespace: str
    kind: str
    role: str
    subjects: frozenset[Subject]


@dataclass(frozen=True, slots=True)
class Roles:
    """What a requester may be, by name."""

    roles: tuple[str, ...] = ()
    """`namespace:name`."""
    cluster_roles: tuple[str, ...] = ()


class BindingIndex:
    """Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[Key, Binding] = {}
        self._of: dict[Subject, dict[Key, Binding]] = {}

    def note(self, key: Key, binding: Binding | None) -> None:
        """A binding as it is now; None = it is gone. Only RoleBindings have a namespace."""
        with self._lock:
            before = self._held.pop(key, None)
            for subject in before.subjects if before is not None else ():
                held = self._of[subject]
                del held[key]
                if not held:
                    del self._of[subject]
            if binding is not None:
                self._held[key] = binding
                for subject in binding.subjects:
                    self._of.setdefault(subject, {})[key] = binding

    def roles_of(self, requester: Requester) -> Roles:
        """The roles that the bindings give a requester."""
        asked = {("User", requester.username), *(("Group", group) for group in requester.groups)}
        roles: set[str] = set()
        cluster_roles: set[str] = set()
        with self._lock:
            for subject in asked:
                for binding in self._of.get(subject, {}).values():
                    if binding.kind == "ClusterRole":
                        cluster_roles.add(binding.role)
                    else:
                        roles.add(f"{binding.namespace}:{binding.role}")
        return Roles(tuple(sorted(roles)), tuple(sorted(cluster_roles)))

    @property
    def subjects(self) -> int:
        """How many subjects have a role."""
        return len(self._of)


def read_binding(document: Document) -> Binding:
    """`reduce` of both kinds of bindings."""
    reference = mapping(document, "roleRef")
    home = meta_of(document).key.namespace
    return Binding(
        home,
        text(reference, "kind"),
        text(reference, "name"),
        frozenset(_subject(item, home) for item in mappings(document, "subjects")),
    )


def _subject(item: Mapping[str, object], home: str) -> Subject:
    kind, name = text(item, "kind"), text(item, "name")
    if kind == "ServiceAccount":
        return "User", f"{_SERVICE_ACCOUNT}{text(item, 'namespace') or home}:{name}"
    return kind, name
