"""What each command of the cluster side may do at the API server: the one table of RBAC.

`ringfence controller rules` and `webhook rules` print it, the controller asks about each line at
its start, and the chart's roles are compared with it. What policies need beside it depends on them:
background/rights.py and background/access.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from generators.documents.json import Document, mapping
from generators.kube.client import Client
from generators.kube.resources import (
    ACCESS_REVIEWS,
    ADMISSION_POLICIES,
    ADMISSION_POLICY_BINDINGS,
    CILIUM_CLUSTERWIDE_POLICIES,
    CILIUM_NODES,
    CILIUM_POLICIES,
    CLUSTER_NETWORK_POLICIES,
    CLUSTER_POLICIES,
    CONFIG_MAPS,
    CUSTOM_RESOURCES,
    DAEMON_SETS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    EVENTS,
    JOBS,
    LEASES,
    MUTATING_WEBHOOKS,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    POLICIES,
    SECRETS,
    VALIDATING_WEBHOOKS,
    Resource,
)
from generators.tenants.packed import GUARD_NAME
from webhook.kept import KEPT, REMEMBERED, SECRET_NAME, STATUS_NAME, KeptNames
from webhook.registration import configuration
from webhook.settings import FIELD_MANAGER, LEASE_NAME

CONTROLLER, WEBHOOK = "ringfence-controller", "ringfence-webhook"
"""Names of ServiceAccounts and roles."""
UNREGISTER_JOB, FORGET_JOB = "ringfence-unregister", "ringfence-forget"
"""Jobs of the chart's uninstall."""
AGENTS = "ringfence-enforcer"
"""The chart's DaemonSet."""
FOLLOW = ("get", "list", "watch")


@dataclass(frozen=True, slots=True)
class RbacRule:
    """One line of RBAC. `names` limits it to objects of these names."""

    resource: Resource
    verbs: tuple[str, ...]
    why: str
    names: tuple[str, ...] = ()

    def document(self) -> Document:
        """As in `rules` of a role."""
        limited: Document = {"resourceNames": list(self.names)} if self.names else {}
        return {
            "apiGroups": [self.resource.group],
            "resources": [self.resource.plural],
            **limited,
            "verbs": list(self.verbs),
        }


@dataclass(frozen=True, slots=True)
class Rights:
    """Rights in the whole cluster, and in the system namespace."""

    cluster: tuple[RbacRule, ...] = ()
    system: tuple[RbacRule, ...] = ()


# --- the table -----------------------------------------------------------------------------------

REGISTERED: tuple[tuple[Resource, tuple[str, ...]], ...] = (
    (VALIDATING_WEBHOOKS, (configuration.NAME,)),
    (MUTATING_WEBHOOKS, (configuration.NAME,)),
    (ADMISSION_POLICIES, (configuration.LABEL_POLICY, configuration.NETWORK_POLICY)),
    (ADMISSION_POLICY_BINDINGS, (configuration.LABEL_POLICY, configuration.NETWORK_POLICY)),
)
_CERTIFICATES = "certificates of the webhook"
_OWN_CERTIFICATES = (
    RbacRule(SECRETS, ("create",), _CERTIFICATES),
    RbacRule(SECRETS, ("get", "update"), _CERTIFICATES, (SECRET_NAME,)),
)


def controller(issued_secret: str = "", more: tuple[RbacRule, ...] = ()) -> Rights:
    """`controller run`; `issued_secret`: another tool maintains the certificates; `more`: for
    policies."""
    issued = (RbacRule(SECRETS, ("get",), _CERTIFICATES, (issued_secret,)),)
    return Rights(
        (
            RbacRule(NAMESPACES, (*FOLLOW, "patch"), "labels of namespaces"),
            RbacRule(
                NETWORK_POLICIES,
                (*FOLLOW, "create", "patch", "update", "delete"),
                "isolation policies",
            ),
            RbacRule(NODES, FOLLOW, "addresses of shared components on their nodes' network"),
            RbacRule(EVENTS, ("create",), "what happened to a namespace"),
            *(RbacRule(kind, ("list", "watch", "create"), "admission") for kind, _ in REGISTERED),
            *(RbacRule(kind, ("get", "update"), "admission", names) for kind, names in REGISTERED),
            *more,
        ),
        (
            RbacRule(CONFIG_MAPS, (*FOLLOW, "create", "update"), "record, status"),
            RbacRule(LEASES, ("get", "create", "update"), "one leader"),
            RbacRule(ENDPOINT_SLICES, ("list",), "which tenant file each webhook has read"),
            *(issued if issued_secret else _OWN_CERTIFICATES),
        ),
    )


def _deleting(kept: tuple[KeptNames, ...]) -> tuple[RbacRule, ...]:
    return tuple(RbacRule(each.resource, ("delete",), each.why, each.names) for each in kept)


UNREGISTER = Rights(
    tuple(
        RbacRule(resource, ("delete",), "admission goes before the pods that answer for it", names)
        for resource, names in REGISTERED
    ),
    (
        RbacRule(JOBS, ("get",), "an uninstall has made its Job", (UNREGISTER_JOB,)),
        RbacRule(LEASES, ("create",), "no controller has led yet"),
        RbacRule(LEASES, ("get", "update"), "controllers stand by", (LEASE_NAME,)),
    ),
)
FORGET = Rights(
    system=(
        RbacRule(JOBS, ("get",), "an uninstall has made its Job", (FORGET_JOB,)),
        RbacRule(LEASES, ("delete",), "the next install leads at once", (LEASE_NAME,)),
        *_deleting(KEPT),
    )
)
FORGET_ISOLATION = Rights(
    (
        RbacRule(NETWORK_POLICIES, ("list", "delete"), "generated policies"),
        RbacRule(CLUSTER_NETWORK_POLICIES, ("list", "delete"), "walls"),
    ),
    _deleting(REMEMBERED),
)
"""What `--isolation` needs beside."""
AGENTS_GONE = Rights(
    system=(RbacRule(DAEMON_SETS, ("get",), "are there agents on nodes", (AGENTS,)),)
)
VERIFY = Rights(
    tuple(RbacRule(resource, ("get",), "admission", names) for resource, names in REGISTERED),
    (RbacRule(CONFIG_MAPS, ("get",), "status, guard", (GUARD_NAME, STATUS_NAME)),),
)

POLICY_KINDS = (RbacRule(CUSTOM_RESOURCES, ("get", "create"), "kinds ClusterPolicy and Policy"),)
"""`--install-policy-crds`."""
_POLICIES_OF_CILIUM = (CILIUM_POLICIES, CILIUM_CLUSTERWIDE_POLICIES)
CILIUM_KINDS = (
    RbacRule(
        CUSTOM_RESOURCES,
        ("get",),
        "kinds of Cilium's policies",
        tuple(map(str, _POLICIES_OF_CILIUM)),
    ),
    RbacRule(CUSTOM_RESOURCES, ("create",), "kinds of Cilium's policies"),
)
"""`--install-cilium-crds`."""
WALLS = (
    RbacRule(CLUSTER_NETWORK_POLICIES, ("list", "create", "update", "delete"), "walls of tenants"),
)
"""`--walls`."""


def _status(resource: Resource) -> Resource:
    """Its subresource, as roles write it."""
    plural = f"{resource.plural}/status"
    return Resource(resource.group, resource.version, plural, resource.kind, resource.namespaced)


CILIUM = (
    RbacRule(
        CUSTOM_RESOURCES,
        ("list", "watch"),
        "whether Cilium's policies are served",
        tuple(map(str, (*_POLICIES_OF_CILIUM, CILIUM_NODES))),
    ),
    *(RbacRule(kind, FOLLOW, "validity of Cilium's policies") for kind in _POLICIES_OF_CILIUM),
    *(RbacRule(_status(k), ("patch",), "condition Valid of policies") for k in _POLICIES_OF_CILIUM),
    RbacRule(CILIUM_NODES, ("list", "watch"), "whether a Cilium runs that judges its policies"),
)
"""`--cilium-policies`."""
_POLICIES = tuple(
    RbacRule(resource, FOLLOW, "policies of the cluster")
    for resource in (CLUSTER_POLICIES, POLICIES)
)
_INCUMBENT = "whether a Kyverno runs that executes policies"
CARRIED_OUT = (
    *_POLICIES,
    RbacRule(_status(CLUSTER_POLICIES), ("patch",), "condition Ready of policies"),
    RbacRule(_status(POLICIES), ("patch",), "condition Ready of policies"),
    RbacRule(DEPLOYMENTS, ("list", "watch"), _INCUMBENT),
)
"""`--policies cluster` of the controller."""
ADMITTED = (
    *_POLICIES,
    *(
        RbacRule(resource, ("list", "watch"), _INCUMBENT)
        for resource in (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS, DEPLOYMENTS)
    ),
)
"""`--policies cluster` of the webhook."""


# --- as the API server has it --------------------------------------------------------------------


def allowed(client: Client, rule: RbacRule, verb: str, namespace: str, name: str) -> bool:
    """Whether the API server would let this identity do it; an empty namespace means all."""
    resource, _, subresource = rule.resource.plural.partition("/")
    attributes: Document = {
        "group": rule.resource.group,
        "version": rule.resource.version,
        "resource": resource,
        "subresource": subresource,
        "verb": verb,
        **({"namespace": namespace} if namespace else {}),
        **({"name": name} if name else {}),
    }
    review: Document = {
        "apiVersion": ACCESS_REVIEWS.api_version,
        "kind": ACCESS_REVIEWS.kind,
        "spec": {"resourceAttributes": attributes},
    }
    answer = client.create(ACCESS_REVIEWS, review, manager=FIELD_MANAGER)
    return mapping(answer, "status").get("allowed") is True


def account(name: str, namespace: str, rights: Rights) -> list[Document]:
    """A ServiceAccount, and the roles of its name that give it these rights."""
    subject: Document = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    home: Document = {"namespace": namespace}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name} | home},
        *_bound("ClusterRole", name, rights.cluster, {}, subject),
        *_bound("Role", name, rights.system, home, subject),
    ]


def _bound(
    kind: str, name: str, rules: tuple[RbacRule, ...], home: Document, subject: Document
) -> list[Document]:
    """A role, and the binding that gives it to a subject; nothing without rules."""
    rbac = "rbac.authorization.k8s.io"
    if not rules:
        return []
    return [
        {
            "apiVersion": f"{rbac}/v1",
            "kind": kind,
            "metadata": {"name": name} | home,
            "rules": [rule.document() for rule in rules],
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": f"{kind}Binding",
            "metadata": {"name": name} | home,
            "roleRef": {"apiGroup": rbac, "kind": kind, "name": name},
            "subjects": [subject],
        },
    ]
