"""Builders for webhook tests: objects, requesters, AdmissionReviews as API servers send them."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import jsonpatch
import orjson

from generators.tenants.assignment import Requester
from webhook.review import Decision, Review, parse_review

JSONObject = dict[str, object]

KEY = "client"
TENANTS = """\
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
labelKey: client
admins: {groups: [platform-team]}
protectedNamespaces: [kube-system, kube-public, kube-node-lease, ringfence-system]
shared:
  - name: ingress
    namespaces: {names: [ingress]}
tenants:
  - name: test01
    namespaces: {names: [legacy-shop], prefixes: ["test01-"], suffixes: ["-test01"]}
    members: {groups: [team-test01, everywhere], serviceAccounts: [ci/deployer]}
    labels: {cost-centre: "4711"}
  - name: test02
    namespaces: {suffixes: ["-test02"]}
    members: {groups: [team-test02, everywhere]}
"""
AWAY = """\
apiVersion: v1
kind: Config
current-context: away
contexts: [{name: away, context: {cluster: away, user: nobody}}]
clusters: [{name: away, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: nobody, user: {}}]
"""
"""A kubeconfig whose API server does not answer."""

ROOT = Requester("kubernetes-admin", frozenset({"system:masters"}))
PLATFORM = Requester("petra", frozenset({"platform-team", "system:authenticated"}))
ONE = Requester("anna", frozenset({"team-test01", "system:authenticated"}))
TWO = Requester("bert", frozenset({"team-test02", "system:authenticated"}))
BOTH = Requester("carl", frozenset({"everywhere", "system:authenticated"}))
ROBOT = Requester("system:serviceaccount:argo:sync", frozenset({"system:serviceaccounts"}))
DEPLOYER = Requester("system:serviceaccount:ci:deployer", frozenset({"system:serviceaccounts"}))
CONTROLLER = Requester("system:serviceaccount:ringfence-system:ringfence-controller")
NAMESPACE_CONTROLLER = Requester("system:serviceaccount:kube-system:namespace-controller")


def who(requester: Requester) -> str:
    """The id of a table row."""
    return requester.username.rsplit(":", 1)[-1]


PEOPLE = {
    "root": ROOT,
    "admin": PLATFORM,
    "member of test01": ONE,
    "member of test02": TWO,
    "member of both": BOTH,
    "robot": ROBOT,
    "deployer": DEPLOYER,
    "controller": CONTROLLER,
}


def ns(name: str, labels: object = None, **metadata: object) -> JSONObject:
    """A Namespace as JSON; `labels` None leaves them out."""
    whole: JSONObject = {**({"name": name} if name else {}), **metadata}
    if labels is not None:
        whole["labels"] = labels
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": whole}


def netpol(labels: Mapping[str, str] | None = None) -> JSONObject:
    """A NetworkPolicy as JSON."""
    metadata: JSONObject = {"name": "allow-ingress-namespace", "namespace": "app-test01"}
    if labels is not None:
        metadata["labels"] = dict(labels)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {"podSelector": {}},
    }


NAMESPACES: JSONObject = {"group": "", "version": "v1", "resource": "namespaces"}
POLICIES: JSONObject = {
    "group": "networking.k8s.io",
    "version": "v1",
    "resource": "networkpolicies",
}


def request(
    operation: str,
    new: JSONObject | None = None,
    old: JSONObject | None = None,
    *,
    by: Requester = ROBOT,
    subresource: str = "",
    resource: JSONObject = NAMESPACES,
    **fields: object,
) -> JSONObject:
    """The `request` of an AdmissionReview."""
    subject = new or old or {}
    metadata = subject.get("metadata")
    name = metadata.get("name", "") if isinstance(metadata, dict) else ""
    whole: JSONObject = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "", "version": "v1", "kind": str(subject.get("kind", "Namespace"))},
        "resource": resource,
        "name": name,
        "operation": operation,
        "userInfo": {"username": by.username, "groups": sorted(by.groups)},
        "object": new,
        "oldObject": old,
        "dryRun": False,
    }
    if subresource:
        whole["subResource"] = subresource
    return whole | fields


def review_document(request: object) -> JSONObject:
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def body(request: object) -> bytes:
    return orjson.dumps(review_document(request))


def create(new: JSONObject, by: Requester = ROBOT, name: str | None = None) -> Review:
    """CREATE of a namespace; `name` where the request names it otherwise than the object."""
    asked = request("CREATE", new, by=by)
    return parse_review(body(asked if name is None else asked | {"name": name}))


def update(
    old: JSONObject, new: JSONObject, by: Requester = ROBOT, subresource: str = ""
) -> Review:
    return parse_review(body(request("UPDATE", new, old, by=by, subresource=subresource)))


def on_policy(
    operation: str, new: JSONObject | None, old: JSONObject | None, by: Requester
) -> Review:
    return parse_review(
        body(request(operation, new, old, by=by, resource=POLICIES, namespace="app-test01"))
    )


def patched(subject: JSONObject, decision: Decision) -> JSONObject:
    """The object as the API server has it after the patch of a Decision."""
    result: JSONObject = jsonpatch.apply_patch(subject, list(decision.patch))
    return result


def decoded(patch: str) -> list[JSONObject]:
    operations: list[JSONObject] = orjson.loads(base64.b64decode(patch, validate=True))
    return operations


def labels(subject: JSONObject) -> dict[str, str]:
    metadata = subject["metadata"]
    assert isinstance(metadata, dict)
    return dict(metadata.get("labels", {}))
