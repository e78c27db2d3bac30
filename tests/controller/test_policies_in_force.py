"""Policies of a cluster: which are in force, what is registered, when Ringfence stands back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from secrets import token_hex

import pytest

from generators.documents.json import Document, mapping, mappings
from generators.kube.client import Client, DryRun, PatchKind
from generators.kube.errors import Forbidden
from generators.kube.resources import (
    CLUSTER_POLICIES,
    CUSTOM_RESOURCES,
    DEPLOYMENTS,
    MUTATING_WEBHOOKS,
)
from generators.kyverno.limits import Limits
from tests.conftest import Run
from tests.controller.cluster import SYSTEM, Cluster
from tests.controller.policies import Running, labelling, policy
from tests.testbed.waiting import eventually, holds_for
from webhook.definitions import MissingKinds
from webhook.policies.book import PolicyBook
from webhook.policies.crds import documents

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


def test_what_is_registered_is_narrow_and_follows_the_policies(
    running: Running, name: Callable[[str], str]
) -> None:
    prefix = name("narrow")
    pods: Document = {
        "match": {"any": [{"resources": {"kinds": ["Pod", "Node"], "operations": ["CREATE"]}}]},
        "mutate": {"patchStrategicMerge": {"metadata": {"labels": {"x": "y"}}}},
    }
    running.apply(policy(prefix, pods, failurePolicy="Ignore"))
    entry = running.webhooks()["ignore.policies.ringfence.io"]
    resources = {r for rule in mappings(entry, "rules") for r in rule["resources"]}  # type: ignore[attr-defined]
    assert {"pods", "pods/ephemeralcontainers"} <= resources
    assert "nodes" not in resources
    assert "*" not in json.dumps(entry["rules"])
    (selected,) = mappings(mapping(entry, "namespaceSelector"), "matchExpressions")
    assert selected["key"] == "kubernetes.io/metadata.name"
    assert {"kube-system", SYSTEM} <= set(selected["values"])  # type: ignore[call-overload]
    assert "nodes are never sent" in running.controller.get("/readyz")[1]
    running.remove(prefix)
    eventually(
        lambda: '"pods"' not in json.dumps(list(running.webhooks().values())), "pods registered"
    )
    assert '"pods"' not in json.dumps(list(running.webhooks().values()))


@contextmanager
def kyverno(running: Running, image: str) -> Iterator[None]:
    """A Kyverno of this image for as long as the block lasts: the tests share the cluster."""
    labels = {
        "app.kubernetes.io/part-of": "kyverno",
        "app.kubernetes.io/component": "admission-controller",
    }
    pod: Document = {"containers": [{"name": "kyverno", "image": image}]}
    selected = {"app": "kyverno"}
    deployment: Document = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "kyverno", "namespace": "default", "labels": labels},
        "spec": {
            "selector": {"matchLabels": selected},
            "template": {"metadata": {"labels": selected}, "spec": pod},
        },
    }
    webhook: Document = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {
            "name": "kyverno-resource-mutating-webhook-cfg",
            "labels": {"webhook.kyverno.io/managed-by": "kyverno"},
        },
        "webhooks": [],
    }
    running.admin.create(DEPLOYMENTS, deployment, manager="test")
    running.admin.create(MUTATING_WEBHOOKS, webhook, manager="test")
    try:
        yield
    finally:
        running.admin.delete(MUTATING_WEBHOOKS, "kyverno-resource-mutating-webhook-cfg")
        running.admin.delete(DEPLOYMENTS, "kyverno", "default")


def isolating(prefix: str) -> Document:
    """A rule that generates a NetworkPolicy for namespaces of a prefix."""
    resources: Document = {"kinds": ["Namespace"], "names": [f"{prefix}*"]}
    return {
        "match": {"any": [{"resources": resources}]},
        "generate": {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "name": "by-policy",
            "namespace": "{{request.object.metadata.name}}",
            "synchronize": True,
            "generateExisting": True,
            "data": {"spec": {"podSelector": {}, "policyTypes": ["Ingress"]}},
        },
    }


def isolated(running: Running, namespace: str) -> bool:
    return running.cluster.policy(namespace, "by-policy") is not None


def test_ringfence_stands_back_for_a_kyverno_that_executes_and_goes_on_when_it_leaves(
    running: Running, name: Callable[[str], str]
) -> None:
    prefix = name("back")
    running.apply(policy(prefix, labelling(prefix, {"team": "shop"}), isolating(prefix)))
    running.make(f"{prefix}-before")
    eventually(lambda: isolated(running, f"{prefix}-before"), "its policy is generated")
    with kyverno(running, "mirror.example/kyverno/kyverno:v1.19.0"):
        eventually(lambda: running.served() == [], "policies are left alone")
        eventually(lambda: running.webhooks() == {}, "webhooks taken away")
        eventually(lambda: running.taken() == 0, "nor are they generated for")
        assert "team" not in running.make(f"{prefix}-a")
        holds_for(1.5, lambda: isolated(running, f"{prefix}-before"), "nothing is collected")
        assert not isolated(running, f"{prefix}-a")
        told = running.controller.get("/readyz")
        assert told[0] == HTTPStatus.OK
        assert "[!]ClusterPolicies are not executed: Kyverno executes them" in told[1]
        assert running.controller.metrics()["ringfence_policies_standing_back"] == 1
        left = "not executed: Kyverno executes them"
        eventually(lambda: left in running.cluster.status()["policies"], "status says so")
        eventually(lambda: "PoliciesLeftToKyverno" in running.cluster.reasons(SYSTEM), "Event")
        # Its successor keeps its webhooks, and executes no policies of this kind any more.
        container = {"name": "kyverno", "image": "mirror.example/kyverno:v1.20.1"}
        image: Document = {"spec": {"template": {"spec": {"containers": [container]}}}}
        running.admin.patch(
            DEPLOYMENTS, "kyverno", "default", image, kind=PatchKind.STRATEGIC, manager="test"
        )
        eventually(lambda: prefix in running.served(), "policies are taken over")
        eventually(lambda: bool(running.webhooks()), "webhooks are back")
        eventually(lambda: "team" in running.make(f"{prefix}-{token_hex(3)}"), "and answer")
        eventually(
            lambda: isolated(running, f"{prefix}-a"), "what came meanwhile is caught up with"
        )
        eventually(lambda: "PoliciesTakenOver" in running.cluster.reasons(SYSTEM), "Event")


def another_leader(running: Running, *options: str) -> None:
    """The controller ends and another one takes over."""
    former = running.controller
    running.controller = running.cluster.controller(
        "--policies", "cluster", "--install-policy-crds", *options
    )
    former.terminate()
    eventually(running.controller.in_force, f"admission in force: {running.controller.log}")
    eventually(lambda: bool(running.controller.events("policy_webhooks")), "policies are known")


def test_a_new_leader_keeps_the_webhooks_of_policies_registered(
    running: Running, name: Callable[[str], str]
) -> None:
    prefix = name("leader")
    running.apply(policy(prefix, labelling(prefix, {"a": "b"})))

    def edits() -> object:
        return mapping(running.admin.get(MUTATING_WEBHOOKS, "ringfence"), "metadata")["generation"]

    before = edits()
    another_leader(running)
    assert edits() == before
    assert running.make(f"{prefix}-x")["a"] == "b"


def test_what_policies_may_write_is_said_to_the_controller_alone(
    running: Running, ringfence: Run, name: Callable[[str], str]
) -> None:
    rule: Document = {
        "match": {"any": [{"resources": {"kinds": ["Namespace"], "names": ["nobody-*"]}}]},
        "generate": {
            "apiVersion": "v1",
            "kind": "Secret",
            "name": "x",
            "namespace": "{{request.object.metadata.name}}",
            "data": {},
        },
    }
    secrets = policy(name("secrets"), rule)

    def refusal() -> str:
        try:
            running.admin.create(CLUSTER_POLICIES, secrets, manager="test", dry_run=DryRun.ALL)
        except Forbidden as error:
            return str(error)
        return ""

    def verified(*kinds: str) -> str:
        asked = ("controller", "verify", "-c", running.cluster.tenants, "--wait-seconds", "0")
        options = [option for kind in kinds for option in ("--allow-kind", kind)]
        where = ("--kubeconfig", running.cluster.plane.kubeconfig())
        return ringfence(*map(str, (*asked, *where, *options))).stdout

    assert "--allow-kind v1/Secret" in refusal()
    assert "[-]policies may also write: nothing, and not Secret" in verified("Secret")
    another_leader(running, "--allow-kind", "Secret")
    eventually(lambda: not refusal(), f"the webhook allows it, too: {running.webhook.log}")
    assert "[+]policies may also write: Secret" in verified("Secret")
    assert "[-]policies may also write: Secret, and not apps/v1/Job" in verified("apps/v1/Job")
    another_leader(running)
    eventually(lambda: bool(refusal()), f"no longer: {running.webhook.log}")


def test_kinds_that_are_there_are_never_touched(running: Running) -> None:
    columns: list[Document] = [
        {"op": "replace", "path": "/spec/versions/0/additionalPrinterColumns", "value": []}
    ]
    crd = "policies.kyverno.io"
    running.admin.patch(
        CUSTOM_RESOURCES, crd, "", columns, kind=PatchKind.JSON, manager="somebody-else"
    )
    generation = mapping(running.admin.get(CUSTOM_RESOURCES, crd), "metadata")["generation"]
    another_leader(running)
    now = mapping(running.admin.get(CUSTOM_RESOURCES, crd), "metadata")["generation"]
    assert now == generation


def test_kinds_that_come_later_are_found_and_missing_rights_are_named(fresh: Cluster) -> None:
    fresh.plane.kubectl("create", "serviceaccount", "nobody", "--namespace", SYSTEM)
    nobody = Client.connect(str(fresh.plane.service_account_kubeconfig(SYSTEM, "nobody")))
    books = [PolicyBook(["cluster"], client, Limits()) for client in (fresh.admin, nobody)]
    absent, forbidden = books
    for book in books:
        book.start()
    try:
        eventually(
            # Each kind is asked for by a thread of its own.
            lambda: sum("--install-policy-crds" in str(check) for check in absent.checks()) == 2,
            "both kinds are said to be missing",
        )
        assert absent.ready
        assert not absent.current.complete
        MissingKinds(fresh.admin, documents()).step()
        eventually(lambda: absent.current.complete, "both kinds are followed")
        fresh.admin.create(
            CLUSTER_POLICIES, policy("late", labelling("x", {"a": "b"})), manager="t"
        )
        eventually(lambda: len(absent.current.held) == 1, "its policy is in force")
        says = "[-]clusterpolicies.kyverno.io: RBAC does not allow watching it (403)"
        eventually(lambda: says in map(str, forbidden.checks()), says)
        assert not forbidden.ready
        eventually(
            lambda: "RBAC does not allow watching" in forbidden.current.standing_back, "it says why"
        )
    finally:
        for book in books:
            book.stop()
        nobody.close()
