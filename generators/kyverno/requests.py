"""What a policy is asked about: one request, who makes it, and what can be read besides.

`PolicyRequest` is an admission request, or an existing object treated as one. `Lookups` is
everything that engine and context may ask of the outside; the webhook, the controller and the
offline commands each bring their own, and `limits.py` stands in front of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from typing import Protocol

from generators.documents.json import (
    ObjectKey,
    ObjectKind,
    Value,
    annotations_of,
    copy,
    labels_of,
    mapping,
    object_key_of,
)
from generators.kyverno.model import Document, Operation

_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks. Roles are `namespace:name`, resolved from bindings by the caller."""

    username: str = ""
    groups: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    cluster_roles: tuple[str, ...] = ()
    info: Mapping[str, Value] = field(default_factory=dict)
    """`userInfo` as it came."""

    @property
    def account(self) -> tuple[str, str]:
        """(namespace, name) of a ServiceAccount; empty for anyone else."""
        if not self.username.startswith(_ACCOUNT):
            return "", ""
        namespace, _, name = self.username[len(_ACCOUNT) :].partition(":")
        return namespace, name

    def user_info(self) -> Document:
        """`request.userInfo`."""
        if self.info:
            return {key: copy(value) for key, value in self.info.items()}
        return {"username": self.username, "groups": [*self.groups]}


@dataclass(frozen=True, slots=True)
class PolicyRequest:
    """One request; DELETE has no `resource`, CREATE no `old`, background work no `requester`."""

    operation: Operation
    resource: Document
    old: Document
    requester: Asker | None = None
    subresource: str = ""
    dry_run: bool = False
    own: bool = False
    """Made by Ringfence's own account: what `skipBackgroundRequests` skips."""
    key: ObjectKey = field(init=False, compare=False)
    """Which object it is about; every rule asks for it."""
    known: InitVar[ObjectKey | None] = None
    """That object, where it has been made out already."""

    def __post_init__(self, known: ObjectKey | None) -> None:
        object.__setattr__(self, "key", known or object_key_of(self.subject))

    def about(self, document: Document) -> PolicyRequest:
        """The same request about its object as a rule has changed it, which stays the same one."""
        return replace(self, resource=document, known=self.key)

    @property
    def subject(self) -> Document:
        """The object that rules are matched against."""
        return self.resource or self.old

    @property
    def kind(self) -> ObjectKind:
        """Of the object."""
        return self.key.kind

    @property
    def labels(self) -> dict[str, str]:
        """Of the object."""
        return labels_of(self.subject)

    @property
    def annotations(self) -> dict[str, str]:
        """Of the object."""
        return annotations_of(self.subject)

    @property
    def uid(self) -> str:
        """Of the object; empty before the API server has given it one."""
        uid = mapping(self.subject, "metadata").get("uid")
        return uid if isinstance(uid, str) else ""


def existing(document: Document) -> PolicyRequest:
    """An object that is there already, as background rules see it."""
    return PolicyRequest(Operation.CREATE, document, {})


class Lookups(Protocol):
    """Reads of the outside. Each raises LookupFailed if the answer is unknown."""

    def namespace_labels(self, namespace: str) -> Mapping[str, str]:
        """Labels of a namespace."""

    def find(self, key: ObjectKey) -> Document | None:
        """One object; None when there is none."""

    def list(self, kind: ObjectKind, namespace: str) -> Sequence[Document]:
        """All objects of a kind; kind and namespace may hold wildcards, "" = all namespaces."""

    def get(self, path: str) -> Value:
        """The answer of the API server to a GET."""
