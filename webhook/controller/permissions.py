"""Checks at the start that RBAC allows the controller what rbac.py lists.

The API server is asked about each line by SelfSubjectAccessReview; what is missing is named.
"""

from __future__ import annotations

from collections.abc import Iterator

from generators.documents.json import Document, mapping, text
from generators.errors import MachineLacks
from generators.kube.client import Client
from generators.kube.errors import NotFound
from generators.kube.resources import NAMESPACES, SELF_REVIEWS
from webhook.rbac import CONTROLLER, Rights, allowed
from webhook.settings import FIELD_MANAGER


def missing(client: Client, namespace: str, rights: Rights) -> Iterator[str]:
    """What the API server would refuse, in words for the author of roles."""
    for rules, home in ((rights.cluster, ""), (rights.system, namespace)):
        for rule in rules:
            for verb in rule.verbs:
                if not all(allowed(client, rule, verb, home, n) for n in rule.names or ("",)):
                    where = f" in namespace {home}" if home else " in the cluster"
                    named = f" named {', '.join(rule.names)}" if rule.names else ""
                    yield f"{verb} {rule.resource}{named}{where} ({rule.why})"


def check(client: Client, namespace: str, rights: Rights) -> None:
    """MachineLacks names every missing rule."""
    found = list(missing(client, namespace, rights))
    if found:
        how = f"add it to role {CONTROLLER}; `ringfence controller rules` prints all that is needed"
        raise MachineLacks(f"missing RBAC permissions: {'; '.join(found)}", how)


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
