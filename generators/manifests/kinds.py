"""The kinds of a current API server: a misspelt one is refused, not skipped as foreign.

Asked by the reader for documents that it does not parse. Custom resources may have any kind; the
groups below are the API server's own. Checked against its discovery by a test.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

SERVED: Mapping[str, frozenset[str]] = {
    "v1": frozenset(
        (
            *("Binding", "ComponentStatus", "ConfigMap", "Endpoints", "Event", "LimitRange"),
            *("Namespace", "Node", "PersistentVolume", "PersistentVolumeClaim", "Pod"),
            *("PodTemplate", "ReplicationController", "ResourceQuota", "Secret", "Service"),
            "ServiceAccount",
        )
    ),
    "discovery.k8s.io/v1": frozenset({"EndpointSlice"}),
    "networking.k8s.io/v1": frozenset(
        {"IPAddress", "Ingress", "IngressClass", "NetworkPolicy", "ServiceCIDR"}
    ),
}
"""Kinds by apiVersion, where any kind that decisions depend on lives."""
CLUSTER_SCOPED = frozenset(
    {
        "APIService",
        "CertificateSigningRequest",
        "ClusterCleanupPolicy",
        "ClusterPolicy",
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "IngressClass",
        "MutatingWebhookConfiguration",
        "Namespace",
        "Node",
        "PersistentVolume",
        "PriorityClass",
        "RuntimeClass",
        "StorageClass",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingWebhookConfiguration",
    }
)
"""Kinds without a namespace; any other kind counts as namespaced."""
_PLURAL = frozenset({"endpoints"})
_OWN_GROUPS = frozenset(
    f"{name}.k8s.io"
    for name in (
        *("admissionregistration", "apiextensions", "apiregistration", "authentication"),
        *("certificates", "coordination", "discovery", "events", "flowcontrol.apiserver"),
        *("internal.apiserver", "networking", "node", "rbac.authorization", "resource"),
        *("authorization", "scheduling", "storage", "storagemigration"),
    )
)


def plural_of(kind: str) -> str:
    """As kinds are usually spelled in paths and roles: `networkpolicies` for NetworkPolicy."""
    name = kind.lower()
    if name in _PLURAL:
        return name
    if name.endswith("y") and name[-2:-1] not in "aeiou":
        return f"{name[:-1]}ies"
    return f"{name}es" if name.endswith(("s", "x", "ch", "sh")) else f"{name}s"


def kind_of_plural(group: str, plural: str) -> str:
    """The kind that a plural of a path names; empty for one that is not well known."""
    return _WELL_KNOWN.get((group, plural), "")


def unknown_to_the_server(
    api_version: str, kind: str, read: Mapping[str, str]
) -> tuple[str, str] | None:
    """The problem of a kind that no API server accepts, and what to do; None for other kinds.

    `read` says under which apiVersion each kind lives that decisions depend on.
    """
    item = kind.removesuffix("List")
    right = read.get(item)
    served = SERVED.get(api_version)
    misplaced = right is not None and right != api_version and _is_own(api_version)
    if not misplaced and (served is None or item in served):
        return None
    what = f'no matches for kind "{kind}" in version "{api_version}"'
    if right is not None:
        return what, f"write apiVersion: {right}"
    near = difflib.get_close_matches(item, served or (), n=1)
    return what, f'did you mean "{near[0]}"?' if near else "correct apiVersion or kind"


def _is_own(api_version: str) -> bool:
    """Whether a group is the API server's own: one of a custom resource has a dot in its name."""
    group, slash, _ = api_version.partition("/")
    return not slash or "." not in group or group in _OWN_GROUPS


_WELL_KNOWN: Mapping[tuple[str, str], str] = {
    (group, plural_of(kind)): kind
    for group, kinds in (
        ("", "v1"),
        ("networking.k8s.io", "networking.k8s.io/v1"),
        ("discovery.k8s.io", "discovery.k8s.io/v1"),
    )
    for kind in SERVED[kinds]
} | {
    (group, plural_of(kind)): kind
    for group, kinds in (
        ("apps", "ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet"),
        ("autoscaling", "HorizontalPodAutoscaler"),
        ("batch", "CronJob Job"),
        ("cilium.io", "CiliumClusterwideNetworkPolicy CiliumNetworkPolicy"),
        ("coordination.k8s.io", "Lease"),
        ("policy", "PodDisruptionBudget"),
        ("rbac.authorization.k8s.io", "ClusterRole ClusterRoleBinding Role RoleBinding"),
        ("scheduling.k8s.io", "PriorityClass"),
        ("security.istio.io", "AuthorizationPolicy PeerAuthentication"),
        ("storage.k8s.io", "CSIDriver CSINode StorageClass VolumeAttachment"),
    )
    for kind in kinds.split()
}
