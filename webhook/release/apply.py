"""Sets labels of a namespace by server-side apply, as one field manager of several.

Called by `commands/namespace.py`, which is what the subchart's hook runs. Nothing is forced, so a
value that another manager has set is refused and both are named. Admission judges the request like
any other: a tenant label counts only when the tenant file agrees, and what admission does not let
go stays when its release goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from generators.documents.json import Document, mapping, strings, text
from generators.errors import Refused
from generators.kube.client import Client
from generators.kube.errors import Conflict, Forbidden, Invalid, KubeError, NotFound, Unavailable
from generators.kube.queue import Backoff
from generators.kube.resources import NAMESPACES, SELF_REVIEWS
from webhook.release.labels import (
    Act,
    LabelsOutcome,
    LabelWish,
    changed_by_admission,
    contradiction,
    owners,
    role_to_ask_for,
)

BACKOFF = Backoff(first=0.25, longest=5.0)
RBAC_SECONDS = 5.0
"""How long this API server may not know a right yet: the hook's Role is made a moment before the
hook runs."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to try; `waiting` is called with the reason before each further attempt."""

    seconds: float
    waiting: Callable[[str], None] = lambda _: None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def label(
    client: Client, wish: LabelWish, patience: Patience, act: Act = Act.APPLY
) -> LabelsOutcome:
    """Apply the wish; Refused when the cluster says no, Unavailable without an answer in time."""
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


def _attempt(client: Client, wish: LabelWish, act: Act) -> LabelsOutcome:
    try:
        before = client.get(NAMESPACES, wish.namespace)
    except NotFound as error:
        if wish.labels:
            problem = f'there is no namespace "{wish.namespace}"; create it first'
            raise Refused(problem) from error
        return LabelsOutcome(wish.namespace, {})
    labels = strings(mapping(before, "metadata"), "labels")
    owned = {k: labels.get(k, "") for k, by in owners(before).items() if wish.manager in by}
    wanted = wish.given(owned)
    if act is Act.CHECK:
        return _checked(wish, wanted, labels)
    if not wanted and not owned:
        return LabelsOutcome(wish.namespace, {})
    given_up = {key: value for key, value in owned.items() if key not in wanted}
    after = _applied_as_far_as_allowed(client, wish, wanted, given_up)
    if (refusal := changed_by_admission(wanted, after)) is not None:
        raise Refused(f'namespace "{wish.namespace}": {refusal}')
    left = strings(mapping(after, "metadata"), "labels")
    return LabelsOutcome(
        wish.namespace,
        wanted,
        gone=tuple(sorted(key for key in given_up if key not in left)),
        kept={
            key: tuple(m for m in owners(after).get(key, ()) if m != wish.manager)
            for key in sorted(given_up)
            if key in left
        },
    )


def _checked(
    wish: LabelWish, wanted: Mapping[str, str], labels: Mapping[str, str]
) -> LabelsOutcome:
    missing = [f"{k}={v}" for k, v in sorted(wanted.items()) if labels.get(k) != v]
    if missing:
        problem = f'namespace "{wish.namespace}" does not carry {", ".join(missing)}'
        raise Refused(f"{problem}; leave --check out to set it")
    return LabelsOutcome(wish.namespace, wanted)


def _applied_as_far_as_allowed(
    client: Client, wish: LabelWish, wanted: dict[str, str], given_up: Mapping[str, str]
) -> Document:
    """Set what is wanted; remove what admission lets go, each label separately.

    The last release that asked for a tenant's label may not remove it.
    """
    try:
        return _applied(client, wish, wanted)
    except (Forbidden, Invalid) as error:
        if not given_up or _lacks_a_right(error):
            raise
    kept = dict(given_up)
    # Refused also when nothing is given up: then what is wanted is not allowed.
    after = _applied(client, wish, wanted | kept)
    for key in sorted(given_up):
        fewer = {k: v for k, v in kept.items() if k != key}
        try:
            after = _applied(client, wish, wanted | fewer)
        except (Forbidden, Invalid):
            continue
        kept = fewer
    return after


def _applied(client: Client, wish: LabelWish, wanted: dict[str, str]) -> Document:
    document: Document = {"metadata": {"name": wish.namespace, "labels": wanted}}
    try:
        return client.apply(NAMESPACES, document, manager=wish.manager)
    except Conflict as error:
        refusal = contradiction(wish, wanted, client.get(NAMESPACES, wish.namespace))
        raise Refused(refusal or str(error)) from error


def _lacks_a_right(error: KubeError) -> bool:
    """RBAC's own words; admission webhooks and policies refuse with other ones."""
    return " cannot " in error.status.message and " resource " in error.status.message


def _forbidden(client: Client, wish: LabelWish, error: KubeError) -> Refused:
    try:
        review = client.create(SELF_REVIEWS, _SELF_REVIEW, manager=wish.manager)
        user = text(mapping(mapping(review, "status"), "userInfo"), "username")
    except KubeError:
        user = ""
    return Refused(
        f"{error.status.message}; a cluster administrator can allow it, for this "
        f"namespace only, with\n{role_to_ask_for(wish.namespace, user or 'USER')}"
    )


_SELF_REVIEW: Document = {
    "apiVersion": SELF_REVIEWS.api_version,
    "kind": SELF_REVIEWS.kind,
    "metadata": {},
}
