"""Who made a trigger: carried from its admission to the rules that run behind requests.

The webhook writes the annotation while the object is created, for kinds whose background rules ask
who made the request, and keeps everybody else from changing it; the controller reads it. On a
trigger that was there before the webhook saw its kind, anybody may have written anything: nobody is
known to have made it.
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
        raise BadPatch(f"{requester.username} has too many groups and roles to be noted down")
    return text


def creator_of(document: Document, since: str) -> Asker | None:
    """Who made an object; None when that was not noted down by us.

    `since`: the second since when every object of the kind is; empty = none is. The moment at which
    an object was made is the API server's to say, and nobody can change it.
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
