"""Namespaces become and stay what the tenant file says, on a real API server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from generators.documents.json import Document, mapping, strings
from generators.kube.client import Client, PatchKind
from generators.kube.errors import NotFound
from generators.kube.resources import CONFIG_MAPS, NAMESPACES, NETWORK_POLICIES, NODES, SECRETS
from generators.labels import MANAGED_BY
from generators.objects import NAME_LABEL
from tests.controller.cluster import KEY, POLICY, TENANTS, Cluster
from tests.testbed.waiting import eventually, holds_for

pytestmark = pytest.mark.cluster
Name = Callable[[str], str]


def test_namespaces_that_existed_before_are_labelled_and_isolated(fresh: Cluster) -> None:
    for namespace in ("legacy-shop", "test01-a", "b-test02", "plain", "ingress"):
        fresh.make(namespace)
    fresh.controller(webhook=False)
    eventually(lambda: fresh.isolated("legacy-shop", "test01"), "exact name")
    eventually(lambda: fresh.isolated("test01-a", "test01"), "prefix")
    eventually(lambda: fresh.isolated("b-test02", "test02"), "suffix")
    eventually(fresh.synchronized, "synchronized")
    assert fresh.labels("test01-a")["cost-centre"] == "4711"
    assert fresh.nobodys("plain")
    assert fresh.nobodys("ingress")
    assert fresh.status()["tenants"] == '{"test01":2,"test02":1}'


def test_a_restart_with_nothing_to_do_writes_nothing(fresh: Cluster) -> None:
    for namespace in ("test01-a", "b-test02", "plain"):
        fresh.make(namespace)
    first = fresh.controller()
    fresh.webhook()
    eventually(lambda: first.in_force() and fresh.synchronized(), "done")
    assert first.terminate() == 0
    before = versions(fresh.admin)
    second = fresh.controller()
    eventually(second.in_force, "in force again")
    eventually(lambda: second.metrics()["ringfence_controller_queue_depth"] == 0, "all looked at")
    holds_for(3.0, lambda: versions(fresh.admin) == before, "nothing is written")
    metrics = second.metrics()
    assert not [n for n in metrics if n.startswith("ringfence_controller_writes_total")]


def versions(client: Client) -> dict[str, str]:
    """Resource version of everything that a controller might write."""
    found = {}
    for resource in (NAMESPACES, NETWORK_POLICIES, CONFIG_MAPS, SECRETS):
        for document in client.list_all(resource):
            meta = mapping(document, "metadata")
            key = f"{resource}/{meta.get('namespace')}/{meta['name']}"
            found[key] = str(meta["resourceVersion"])
    return found


def widen(client: Client, namespace: str) -> None:
    """What an owner with too many rights does: let everybody in."""
    patch: Document = {"spec": {"ingress": [{}]}}
    client.patch(NETWORK_POLICIES, POLICY, namespace, patch, kind=PatchKind.MERGE, manager="test")


def add_egress(client: Client, namespace: str) -> None:
    patch: Document = {"spec": {"egress": [{}], "policyTypes": ["Ingress", "Egress"]}}
    client.patch(NETWORK_POLICIES, POLICY, namespace, patch, kind=PatchKind.MERGE, manager="test")


def delete(client: Client, namespace: str) -> None:
    client.delete(NETWORK_POLICIES, POLICY, namespace)


def disown(client: Client, namespace: str) -> None:
    patch: Document = {"metadata": {"labels": {MANAGED_BY: "somebody"}}, "spec": {"ingress": [{}]}}
    client.patch(NETWORK_POLICIES, POLICY, namespace, patch, kind=PatchKind.MERGE, manager="test")


@pytest.mark.parametrize(
    ("drift", "reason"),
    [
        pytest.param(widen, "PolicyRepaired", id="rules edited"),
        pytest.param(add_egress, "PolicyRepaired", id="egress added"),
        pytest.param(delete, "PolicyRecreated", id="deleted"),
        pytest.param(disown, "PolicyTakenOver", id="managed-by label changed"),
    ],
)
def test_drift_of_a_policy_is_repaired_and_told(
    guarded_cluster: Cluster, name: Name, drift: Callable[[Client, str], None], reason: str
) -> None:
    namespace = name("test01")
    guarded_cluster.make(namespace)
    eventually(lambda: guarded_cluster.isolated(namespace, "test01"), "isolated")
    eventually(lambda: settled(guarded_cluster, namespace), "the policy is as written")
    before = guarded_cluster.policy(namespace)
    assert before is not None
    drift(guarded_cluster.admin, namespace)

    def repaired() -> bool:
        now = guarded_cluster.policy(namespace)
        return (
            now is not None
            and now["spec"] == before["spec"]
            and settled(guarded_cluster, namespace)
        )

    eventually(repaired, "repaired")
    eventually(lambda: reason in guarded_cluster.reasons(namespace), reason)


def settled(cluster: Cluster, namespace: str) -> bool:
    policy = cluster.policy(namespace) or {}
    return strings(mapping(policy, "metadata"), "labels").get(MANAGED_BY) == "ringfence"


def test_a_policy_of_the_same_name_that_was_there_before_is_taken_over(
    guarded_cluster: Cluster, name: Name
) -> None:
    namespace = name("plain")
    guarded_cluster.make(namespace)
    theirs: Document = {
        "metadata": {"name": POLICY, "namespace": namespace, "labels": {"kept": "yes"}},
        "spec": {
            "podSelector": {"matchLabels": {"app": "web"}},
            "ingress": [{}],
            "egress": [{}],
            "policyTypes": ["Ingress", "Egress"],
        },
    }
    guarded_cluster.admin.create(NETWORK_POLICIES, theirs, manager="test")
    guarded_cluster.label(namespace, "test02")
    eventually(lambda: guarded_cluster.isolated(namespace, "test02"), "isolated")
    policy = guarded_cluster.policy(namespace)
    assert policy is not None
    spec = mapping(policy, "spec")
    assert spec["policyTypes"] == ["Ingress"]
    assert "egress" not in spec
    assert spec["podSelector"] == {}
    assert strings(mapping(policy, "metadata"), "labels")["kept"] == "yes"
    eventually(
        lambda: "PolicyTakenOver" in guarded_cluster.reasons(namespace), "told on the namespace"
    )


def test_policies_of_others_are_left_alone(guarded_cluster: Cluster, name: Name) -> None:
    namespace = name("test01")
    guarded_cluster.make(namespace)
    theirs: Document = {
        "metadata": {"name": "mine", "namespace": namespace},
        "spec": {"podSelector": {}, "ingress": [{}]},
    }
    made = guarded_cluster.admin.create(NETWORK_POLICIES, theirs, manager="test")
    eventually(lambda: guarded_cluster.isolated(namespace, "test01"), "isolated")
    assert guarded_cluster.policy(namespace, "mine") == made


def test_a_tenant_that_comes_back_into_the_file_has_its_namespaces_again(fresh: Cluster) -> None:
    for namespace in ("test01-a", "b-test02"):
        fresh.make(namespace)
    fresh.controller(webhook=False)
    eventually(lambda: fresh.isolated("b-test02", "test02"), "isolated")
    eventually(lambda: fresh.isolated("test01-a", "test01"), "isolated")
    grant = "    allowFrom: [{tenant: test02, ports: [{port: 5432, protocol: TCP}]}]\n"
    smaller = TENANTS[: TENANTS.index("  - name: test02")].replace(grant, "")
    fresh.tenants.write_text(smaller)
    eventually(lambda: "TenantRemoved" in fresh.reasons("b-test02"), "in quarantine")
    eventually(fresh.synchronized, "synchronized")
    assert fresh.isolated("test01-a", "test01")
    fresh.make("c-test02")
    eventually(lambda: fresh.nobodys("c-test02"), "nobody's")
    fresh.tenants.write_text(TENANTS)
    eventually(lambda: fresh.isolated("c-test02", "test02"), "back with the tenant")
    assert fresh.isolated("b-test02", "test02")


def test_a_name_that_moves_in_the_file_moves_the_namespace(fresh: Cluster) -> None:
    fresh.make("legacy-shop")
    fresh.controller(webhook=False)
    eventually(lambda: fresh.isolated("legacy-shop", "test01"), "isolated")
    moved = TENANTS.replace("names: [legacy-shop], ", "").replace(
        'namespaces: {suffixes: ["-test02"]}',
        'namespaces: {names: [legacy-shop], suffixes: ["-test02"]}',
    )
    fresh.tenants.write_text(moved)
    eventually(lambda: fresh.isolated("legacy-shop", "test02"), "moved")


def test_a_recreated_namespace_inherits_nothing(guarded_cluster: Cluster, name: Name) -> None:
    namespace = name("plain")
    guarded_cluster.make(namespace)
    guarded_cluster.label(namespace, "test02")
    eventually(lambda: guarded_cluster.isolated(namespace, "test02"), "isolated")
    first = guarded_cluster.uid(namespace)
    guarded_cluster.admin.delete(NAMESPACES, namespace)
    eventually(lambda: gone(guarded_cluster, namespace), "deleted", 40)
    eventually(lambda: first not in guarded_cluster.record(), "forgotten")
    guarded_cluster.make(namespace)
    holds_for(1.0, lambda: guarded_cluster.nobodys(namespace), "it is nobody's")


def gone(cluster: Cluster, namespace: str) -> bool:
    try:
        cluster.admin.get(NAMESPACES, namespace)
    except NotFound:
        return True
    return False


def test_a_terminating_namespace_is_left_alone(guarded_cluster: Cluster, name: Name) -> None:
    namespace = name("test01")
    guarded_cluster.make(namespace)
    eventually(lambda: guarded_cluster.isolated(namespace, "test01"), "isolated")
    blocker: Document = {
        "metadata": {"name": "blocker", "namespace": namespace, "finalizers": ["test/blocks"]}
    }
    guarded_cluster.admin.create(CONFIG_MAPS, blocker, manager="test")
    guarded_cluster.admin.delete(NAMESPACES, namespace)
    eventually(lambda: guarded_cluster.policy(namespace) is None, "emptied by Kubernetes")
    holds_for(1.0, lambda: guarded_cluster.policy(namespace) is None, "nobody recreates it")
    assert guarded_cluster.tenant(namespace) == "test01"
    assert guarded_cluster.recorded(namespace) == "test01"
    released: Document = {"metadata": {"finalizers": None}}
    guarded_cluster.admin.patch(
        CONFIG_MAPS, "blocker", namespace, released, kind=PatchKind.MERGE, manager="test"
    )
    eventually(lambda: gone(guarded_cluster, namespace), "gone", 40)


def test_a_namespace_named_in_no_file_is_not_touched(guarded_cluster: Cluster, name: Name) -> None:
    namespace = name("plain")
    guarded_cluster.make(namespace, labels={"team": "x"})
    eventually(guarded_cluster.synchronized, "synchronized")
    assert guarded_cluster.labels(namespace) == {"team": "x", NAME_LABEL: namespace}
    assert guarded_cluster.tenant(namespace) is None
    assert KEY not in guarded_cluster.labels(namespace)


def test_addresses_of_nodes_follow_the_nodes(fresh: Cluster) -> None:
    masked = TENANTS.replace("    labels: {cost", "    allowMasked: true\n    labels: {cost")
    fresh.tenants.write_text(masked)
    fresh.make("test01-a")
    fresh.make("b-test02")
    fresh.controller(webhook=False)
    eventually(lambda: fresh.isolated("test01-a", "test01"), "isolated")
    eventually(lambda: fresh.isolated("b-test02", "test02"), "isolated")
    other = fresh.policy("b-test02")
    node: Document = {"metadata": {"name": "worker"}}
    fresh.admin.create(NODES, node, manager="test")
    addresses: Document = {
        "status": {"addresses": [{"type": "InternalIP", "address": "172.18.0.5"}]}
    }
    fresh.admin.patch(
        *(NODES, "worker", "", addresses),
        kind=PatchKind.MERGE,
        manager="test",
        subresource="status",
    )
    eventually(lambda: "172.18.0.5/32" in str(fresh.policy("test01-a")), "named in the policy")
    fresh.admin.delete(NODES, "worker")
    eventually(lambda: "172.18.0.5" not in str(fresh.policy("test01-a")), "gone with the node")
    assert fresh.policy("b-test02") == other
