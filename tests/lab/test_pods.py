"""From objects to what the agent is told: the same cluster that the offline commands see."""

from __future__ import annotations

import json

from generators.cluster import from_objects, from_record
from generators.manifests import Documents, read_bytes
from generators.reachability.classes import evaluate
from generators.reachability.matrix import questions
from lab.admission import Requester
from lab.files.changes import Gate, apply
from lab.files.controller import synchronize
from lab.names import NODE, NODE_ADDRESSES, places
from lab.pods import give_addresses, manifest, running
from lab.store import Store
from tests.lab.builders import example, namespace, objects, pod, tenants

LAB = places("lab")


def settled(documents: Documents) -> Store:
    store = Store()
    apply(store, documents, Gate(Requester()))
    synchronize(tenants(), store)
    give_addresses(store)
    return store


def test_the_agent_is_told_the_cluster_that_matrix_evaluates() -> None:
    offline = from_objects(example(), tenants())
    told = from_record(read_bytes(manifest(LAB, settled(example())), "cluster.json"), tenants())
    asked = questions(offline)
    assert asked == questions(told)
    assert list(evaluate(told, asked)) == list(evaluate(offline, asked))


def test_the_same_objects_give_the_same_bytes() -> None:
    store = settled(example())
    assert manifest(LAB, store) == manifest(LAB, store)


def test_pods_keep_their_addresses_when_others_come() -> None:
    store = settled(example())
    before = {p.key: p.ips for p in store.pods}
    apply(store, objects(pod("app-test01/later")), Gate(Requester()))
    give_addresses(store)
    after = {p.key: p.ips for p in store.pods}
    assert {key: after[key] for key in before} == before
    assert len(after["app-test01/later"]) == 2


def test_every_pod_is_on_the_lab_s_node_with_its_interface() -> None:
    store = settled(example())
    told = read_bytes(manifest(LAB, store), "cluster.json")
    assert {p.node for p in told.pods} == {NODE}
    assert {p.annotations["ringfence.io/interface"] for p in told.pods} == {
        LAB.interface(p.namespace, p.name) for p in told.pods
    }
    (node,) = told.nodes
    assert (node.name, node.ips) == (NODE, NODE_ADDRESSES)


def test_pods_that_do_not_run_have_no_network_namespace() -> None:
    phases = "".join(
        pod(f"a/{phase.lower()}", extra=f"status: {{phase: {phase}}}")
        for phase in ("Running", "Pending", "Succeeded", "Failed")
    )
    store = settled(objects(phases))
    assert [item.pod.name for item in running(LAB, store)] == ["running"]


def test_a_pod_on_the_node_s_network_lives_in_the_node() -> None:
    text = namespace("a") + pod("a/plain")
    text += pod("a/host").replace("spec: {", "spec: {hostNetwork: true, ")
    host, plain = running(LAB, settled(objects(text)))
    assert (host.netns, host.wire) == (LAB.node_netns, None)
    assert plain.wire is not None
    node = read_bytes(manifest(LAB, settled(objects(text))), "cluster.json").nodes[0]
    assert set(host.pod.ips) < set(node.ips)


def test_only_some_pods_can_be_told_while_others_stop() -> None:
    items = json.loads(manifest(LAB, settled(example()), only={"app-test01/web"}))["items"]
    assert [i["metadata"]["name"] for i in items if i["kind"] == "Pod"] == ["web"]
