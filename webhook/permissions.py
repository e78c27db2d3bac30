"""What the controller may do: its RBAC rules, and the look at the start whether it has them.

One table. `ringfence controller rules` prints it as a ClusterRole and a Role; the controller asks
the API server about each line by SelfSubjectAccessReview and names what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from generators.errors import MachineLacks
from generators.kube.client import Client
from generators.kube.documents import Document, mapping, text
from generators.kube.errors import NotFound
from generators.kube.resources import (
    ACCESS_REVIEWS,
    ADMISSION_POLICIES,
    ADMISSION_POLICY_BINDINGS,
    CONFIG_MAPS,
    ENDPOINT_SLICES,
    EVENTS,
    LEASES,
    MUTATING_WEBHOOKS,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    SECRETS,
    SELF_REVIEWS,
    VALIDATING_WEBHOOKS,
    Resource,
)
from webhook import registration
from webhook.kept import SECRET_NAME
from webhook.settings import FIELD_MANAGER

ROLE = "ringfence-controller"


@dataclass(frozen=True, slots=True)
class Rule:
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


_FOLLOW = ("get", "list", "watch")
REGISTERED: tuple[tuple[Resource, tuple[str, ...]], ...] = (
    (VALIDATING_WEBHOOKS, (registration.NAME,)),
    (MUTATING_WEBHOOKS, (registration.NAME,)),
    (ADMISSION_POLICIES, (registration.LABEL_POLICY, registration.NETWORK_POLICY)),
    (ADMISSION_POLICY_BINDINGS, (registration.LABEL_POLICY, registration.NETWORK_POLICY)),
)

CLUSTER_RULES = (
    Rule(NAMESPACES, (*_FOLLOW, "patch"), "labels of namespaces"),
    Rule(
        NETWORK_POLICIES,
        (*_FOLLOW, "create", "patch", "update", "delete"),
        "isolation policies",
    ),
    Rule(NODES, _FOLLOW, "addresses of shared components on their nodes' network"),
    Rule(EVENTS, ("create",), "what happened to a namespace"),
    *(Rule(resource, ("list", "watch", "create"), "admission") for resource, _ in REGISTERED),
    *(Rule(resource, ("get", "update"), "admission", names) for resource, names in REGISTERED),
)
"""Needed in the whole cluster."""


def system_rules(issued_secret: str = "") -> tuple[Rule, ...]:
    """Needed in the system namespace; `issued_secret`: somebody else keeps the certificates."""
    why = "certificates of the webhook"
    certificates: tuple[Rule, ...] = (
        Rule(SECRETS, ("create",), why),
        Rule(SECRETS, ("get", "update"), why, (SECRET_NAME,)),
    )
    if issued_secret:
        certificates = (Rule(SECRETS, ("get",), why, (issued_secret,)),)
    return (
        Rule(CONFIG_MAPS, (*_FOLLOW, "create", "update"), "record, status"),
        Rule(LEASES, ("get", "create", "update"), "one leader"),
        Rule(ENDPOINT_SLICES, ("list",), "which tenant file each webhook has read"),
        *certificates,
    )


def missing(
    client: Client, namespace: str, issued_secret: str = "", more: tuple[Rule, ...] = ()
) -> Iterator[str]:
    """What the API server would refuse, in words for whoever writes roles."""
    for rules, home in (((*CLUSTER_RULES, *more), ""), (system_rules(issued_secret), namespace)):
        for rule in rules:
            for verb in rule.verbs:
                if not all(allowed(client, rule, verb, home, n) for n in rule.names or ("",)):
                    where = f" in namespace {home}" if home else " in the cluster"
                    named = f" named {', '.join(rule.names)}" if rule.names else ""
                    yield f"{verb} {rule.resource}{named}{where} ({rule.why})"


def check(
    client: Client, namespace: str, issued_secret: str = "", more: tuple[Rule, ...] = ()
) -> None:
    """MachineLacks names every missing rule."""
    found = list(missing(client, namespace, issued_secret, more))
    if found:
        how = f"add it to role {ROLE}; `ringfence controller rules` prints all that is needed"
        raise MachineLacks(f"this identity may not: {'; '.join(found)}", how)


def home(client: Client, namespace: str) -> None:
    """MachineLacks where the system namespace is missing."""
    try:
        client.get(NAMESPACES, namespace)
    except NotFound as error:
        how = f"create it: `kubectl create namespace {namespace}`"
        raise MachineLacks(
            f"there is no namespace {namespace} to keep the record in", how
        ) from error


def username(client: Client) -> str:
    """Whom the API server takes us for."""
    review: Document = {"apiVersion": SELF_REVIEWS.api_version, "kind": SELF_REVIEWS.kind}
    answer = client.create(SELF_REVIEWS, review, manager=FIELD_MANAGER)
    return text(mapping(mapping(answer, "status"), "userInfo"), "username")


def allowed(client: Client, rule: Rule, verb: str, namespace: str, name: str) -> bool:
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


def role_documents(
    namespace: str, account: str = ROLE, issued_secret: str = "", more: tuple[Rule, ...] = ()
) -> list[Document]:
    """All that a controller in `namespace` needs there; `more`: for policies."""
    subject: Document = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    system = system_rules(issued_secret)
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": account, "namespace": namespace},
        },
        *bound_role("ClusterRole", ROLE, (*CLUSTER_RULES, *more), {}, subject),
        *bound_role("Role", ROLE, system, {"namespace": namespace}, subject),
    ]


def bound_role(
    kind: str, name: str, rules: tuple[Rule, ...], meta: Document, subject: Document
) -> list[Document]:
    """A role, and the binding that gives it to a subject."""
    rbac = "rbac.authorization.k8s.io"
    return [
        {
            "apiVersion": f"{rbac}/v1",
            "kind": kind,
            "metadata": {"name": name} | meta,
            "rules": [rule.document() for rule in rules],
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": f"{kind}Binding",
            "metadata": {"name": name} | meta,
            "roleRef": {"apiGroup": rbac, "kind": kind, "name": name},
            "subjects": [subject],
        },
    ]
