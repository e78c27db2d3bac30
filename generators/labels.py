"""Label keys and the namespace that Ringfence owns, and the JSON Patch that labels an object.

The webhook answers with `label_patch`; generation marks its objects with the constants. The patch
is written by hand because its shape matters: `add` below a missing labels map fails the user's
request with a 500 (RFC 6902, section 4.1), so an object without labels gets the whole map at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypedDict

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "ringfence"
OURS = f"{MANAGED_BY}={MANAGER}"
"""Selects all that Ringfence generates or keeps."""
POLICY_LABEL = "ringfence.io/policy"
WALL = "tenant-wall"
"""Its value at a ClusterNetworkPolicy."""
WALL_LABELS = f"{OURS},{POLICY_LABEL}={WALL}"
RULE_LABEL = "ringfence.io/rule"

MODE_ANNOTATION = "ringfence.io/mode"
"""On a namespace; `audit`: what would be dropped of its pods' traffic is reported and passes."""
AUDIT_MODE = "audit"
GRANTS_ANNOTATION = "ringfence.io/grants"
"""On a namespace: what its tenant consents to by itself; generators/tenants/consents.py."""

RECORD_NAMESPACE = "ringfence-system"
"""Where Ringfence keeps what is its own, if no other namespace is named."""

OWN_KEYS = frozenset({MANAGED_BY, POLICY_LABEL, RULE_LABEL})
"""Keys that mark generated objects; no tenant file may use them for something else."""


class AddLabels(TypedDict):
    """One operation of the patch; `value` is a label's value or the whole map."""

    op: str
    path: str
    value: str | dict[str, str]


class RemoveLabel(TypedDict):
    """One operation of the patch; the label is there."""

    op: str
    path: str


def label_patch(
    labels: Mapping[str, str] | None, wanted: Mapping[str, str], unwanted: Collection[str] = ()
) -> list[AddLabels | RemoveLabel]:
    """The JSON Patch that makes an object with `labels` carry `wanted` too, and not `unwanted`.

    None = the object has no labels map. Empty when nothing changes; other labels stay untouched.
    """
    present = labels or {}
    removed: list[RemoveLabel] = [
        {"op": "remove", "path": pointer(key)}
        for key in sorted(unwanted)
        if key in present and key not in wanted
    ]
    missing = {key: wanted[key] for key in sorted(wanted) if present.get(key) != wanted[key]}
    if missing and not present:
        whole: AddLabels = {"op": "add", "path": "/metadata/labels", "value": missing}
        return [whole]
    added: list[AddLabels] = [
        {"op": "add", "path": pointer(key), "value": value} for key, value in missing.items()
    ]
    return [*removed, *added]


def pointer(key: str) -> str:
    """JSON Pointer of a label (RFC 6901): `~` is escaped first, or `/` would be escaped twice."""
    return "/metadata/labels/" + key.replace("~", "~0").replace("/", "~1")
