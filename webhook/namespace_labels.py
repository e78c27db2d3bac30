"""Labels that a Helm release wants on its namespace, by server-side apply with its own manager.

Called by `namespace_cli.py`, which is what the subchart's hook runs. The API server keeps the
account: each release owns the labels that it applies, two that want the same value own it
together, and a label goes with its last owner. Nothing is forced, so a value that somebody else
has set is refused and both are named. Admission judges the request like anybody's: a label that
says whose the namespace is counts only when the tenant file agrees.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from generators.errors import Refused
from generators.kube.client import Client
from generators.kube.documents import Document, mapping, mappings, strings, text
from generators.kube.errors import Conflict, Forbidden, KubeError, NotFound, Unavailable
from generators.kube.queue import Backoff
from generators.kube.resources import NAMESPACES, SELF_REVIEWS
from generators.manifests import to_yaml

RELEASE_PREFIX = "ringfence-"
"""A release's field manager is this and its name; `/ALIAS` follows for an aliased subchart."""

ROLE = "ringfence-namespace-label"
BACKOFF = Backoff(first=0.25, longest=5.0)
RBAC_SECONDS = 5.0
"""How long a missing right may be news that this API server has not heard yet: the hook's Role is
made a moment before the hook runs."""


class Act(Enum):
    """Whether to make it so, or to look whether it is."""

    APPLY = "apply"
    CHECK = "check"


@dataclass(frozen=True, slots=True)
class Wish:
    """What one manager wants of one namespace.

    Without `removed`, `labels` is all that it wants: what it had set before and does not name any
    more, it gives up. With `removed`, the two are changes to what it has.
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
class Outcome:
    """What is true of the namespace now, for people."""

    namespace: str
    carried: Mapping[str, str]
    gone: tuple[str, ...] = ()
    kept: Mapping[str, tuple[str, ...]] | None = None
    """Labels given up that stay, and the managers because of whom they do."""

    def lines(self) -> list[str]:
        """One line a label."""
        told = [f"{key}={value} is set" for key, value in sorted(self.carried.items())]
        told += [f"{key} is removed" for key in self.gone]
        told += [
            f"{key} stays: {_listed(managers)} sets it too"
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


def contradiction(wish: Wish, wanted: Mapping[str, str], namespace: Document) -> str | None:
    """Which other manager's value stands against which of ours; None when there is none."""
    labels = strings(mapping(namespace, "metadata"), "labels")
    by = owners(namespace)
    lines: list[str] = []
    for key, value in sorted(wanted.items()):
        others = [m for m in by.get(key, ()) if m != wish.manager]
        if others and labels.get(key) != value:
            lines.append(
                f"{who(wish.manager)} wants {key}={value}, "
                f"but {_listed(others)} has set {key}={labels.get(key, '')}"
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
        f"admission of this cluster did not take {', '.join(lost)}; whose a namespace is the "
        "tenant file decides: leave the label out, or ask the cluster's administrators"
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


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to try; `waiting` is told why, before each further attempt."""

    seconds: float
    waiting: Callable[[str], None] = lambda _: None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def label(client: Client, wish: Wish, patience: Patience, act: Act = Act.APPLY) -> Outcome:
    """Make it so; Refused when somebody says no, Unavailable when nobody answers in time."""
    started = patience.clock()
    failures = 0
    while True:
        try:
            return _attempt(client, wish, act)
        except (Unavailable, Forbidden) as error:
            failures += 1
            missing = isinstance(error, Forbidden)
            if missing and not _lacks_a_right(error):
                raise
            pause = BACKOFF.delay(failures)
            limit = min(RBAC_SECONDS, patience.seconds) if missing else patience.seconds
            if patience.clock() - started + pause > limit:
                raise (_forbidden(client, wish, error) if missing else error) from error
            patience.waiting(str(error))
            patience.sleep(pause)


def _attempt(client: Client, wish: Wish, act: Act) -> Outcome:
    try:
        before = client.get(NAMESPACES, wish.namespace)
    except NotFound as error:
        if wish.labels:
            problem = f'there is no namespace "{wish.namespace}"; create it first'
            raise Refused(problem) from error
        return Outcome(wish.namespace, {})
    labels = strings(mapping(before, "metadata"), "labels")
    owned = {k: labels.get(k, "") for k, by in owners(before).items() if wish.manager in by}
    wanted = wish.given(owned)
    if act is Act.CHECK:
        return _checked(wish, wanted, labels)
    if not wanted and not owned:
        return Outcome(wish.namespace, {})
    after = _applied(client, wish, wanted)
    if (refusal := changed_by_admission(wanted, after)) is not None:
        raise Refused(f'namespace "{wish.namespace}": {refusal}')
    left = strings(mapping(after, "metadata"), "labels")
    given_up = [key for key in sorted(owned) if key not in wanted]
    return Outcome(
        wish.namespace,
        wanted,
        gone=tuple(key for key in given_up if key not in left),
        kept={key: owners(after).get(key, ()) for key in given_up if key in left},
    )


def _checked(wish: Wish, wanted: Mapping[str, str], labels: Mapping[str, str]) -> Outcome:
    missing = [f"{k}={v}" for k, v in sorted(wanted.items()) if labels.get(k) != v]
    if missing:
        problem = f'namespace "{wish.namespace}" does not carry {", ".join(missing)}'
        raise Refused(f"{problem}; leave --check out to set it")
    return Outcome(wish.namespace, wanted)


def _applied(client: Client, wish: Wish, wanted: dict[str, str]) -> Document:
    document: Document = {"metadata": {"name": wish.namespace, "labels": wanted}}
    try:
        return client.apply(NAMESPACES, document, manager=wish.manager)
    except Conflict as error:
        refusal = contradiction(wish, wanted, client.get(NAMESPACES, wish.namespace))
        raise Refused(refusal or str(error)) from error


def _lacks_a_right(error: KubeError) -> bool:
    """RBAC's own words; an admission webhook or policy that refuses says other ones."""
    return " cannot " in error.status.message and " resource " in error.status.message


def _forbidden(client: Client, wish: Wish, error: KubeError) -> Refused:
    try:
        review = client.create(SELF_REVIEWS, _SELF_REVIEW, manager=wish.manager)
        user = text(mapping(mapping(review, "status"), "userInfo"), "username")
    except KubeError:
        user = ""
    return Refused(
        f"{error.status.message}; whoever administers the cluster can allow it, for this "
        f"namespace only, with\n{role_to_ask_for(wish.namespace, user or 'USER')}"
    )


_SELF_REVIEW: Document = {
    "apiVersion": SELF_REVIEWS.api_version,
    "kind": SELF_REVIEWS.kind,
    "metadata": {},
}


def _listed(managers: Iterable[str]) -> str:
    return " and ".join(who(manager) for manager in managers)
