"""Kubernetes documents in and out.

`read` takes users' files, `parse_object` what an API server sends.
"""

from generators.manifests.cilium_closed import closed_cilium
from generators.manifests.reading import (
    Documents,
    Object,
    lint_cilium,
    merge,
    parse_object,
    read,
    read_bytes,
    with_workloads,
)
from generators.manifests.writing import (
    Document,
    namespace_document,
    pod_document,
    policy_document,
    selector_document,
)

__all__ = [
    "Document",
    "Documents",
    "Object",
    "closed_cilium",
    "lint_cilium",
    "merge",
    "namespace_document",
    "parse_object",
    "pod_document",
    "policy_document",
    "read",
    "read_bytes",
    "selector_document",
    "with_workloads",
]
