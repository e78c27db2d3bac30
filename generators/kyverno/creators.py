"""Who made a trigger: carried from its admission to the rules that run behind requests.

The webhook writes the annotation while the object is created, for kinds whose background rules ask
who made the request, and keeps everyone else from changing it; the controller reads it. On a
trigger older than the webhook's view of its kind, anyone may have written anything: its creator is
unknown.
"""

from __future__ import annotations

import json

from generators.documents.json import Value, annotations_of, text
from generators.kyverno.failures import BadPatch
from generators.kyverno.model import Document
from generators.kyverno.requests import Asker

ANNOTATION = "ringfence.io/created-by"
MAX_LENGTH = 16 * 1024


def written(requester: Asker) -> str:
    """The annotation's value."""
    told: Document = {
        "username": requester.username,
        "groups": [*sorted(requester.groups)],
        "roles": [*requester.roles],
        "clusterRoles": [*requester.cluster_roles],
    }
    text = json.dumps(told, separators=(",", ":"), sort_keys=True)
    if len(text) > MAX_LENGTH:
        raise BadPatch(f"{requester.username} has too many groups and roles to be recorded")
    return text


def creator_of(document: Document, since: str) -> Asker | None:
    """The creator of an object; None if we did not record it.

    `since`: the second since when every object of the kind is; empty = none is. The API server sets
    the creation time, and no one can change it.
    """
    if not since or text(document, "metadata", "creationTimestamp") <= since:
        return None
    note = annotations_of(document).get(ANNOTATION, "")
    try:
        told: object = json.loads(note) if note else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or not isinstance(told.get("username"), str):
        return None
    return Asker(
        told["username"],
        _texts(told.get("groups")),
        _texts(told.get("roles")),
        _texts(told.get("clusterRoles")),
    )


def _texts(value: Value) -> tuple[str, ...]:
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list) else ()
