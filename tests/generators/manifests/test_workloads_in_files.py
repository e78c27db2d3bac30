"""Git and `helm template` hold workloads and no pods: one pod stands for all of a workload's."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from generators.cluster import from_objects
from generators.errors import InputError
from generators.manifests import Documents, read_bytes, with_workloads
from generators.objects import ContainerPort, Workload
from generators.reachability.ends import ends
from generators.reachability.matrix import questions

Document = Mapping[str, object]
LABELS = {"app": "web"}
PORTS = [{"containerPort": 8080, "name": "http"}]
TEMPLATE: Document = {
    "metadata": {"labels": LABELS},
    "spec": {"containers": [{"name": "c", "image": "i", "ports": PORTS}]},
}


def workload(kind: str, name: str = "web", owner: tuple[str, str] | None = None) -> Document:
    version = {"Job": "batch/v1", "CronJob": "batch/v1", "ReplicationController": "v1"}
    spec: Document = {"template": TEMPLATE}
    if kind == "CronJob":
        spec = {"schedule": "0 0 * * *", "jobTemplate": {"spec": spec}}
    metadata: dict[str, object] = {"name": name, "namespace": "shop"}
    if owner is not None:
        reference = {"kind": owner[0], "name": owner[1], "controller": True}
        metadata["ownerReferences"] = [reference]
        metadata["labels"] = {"pod-template-hash": "abc"}
    return {
        "apiVersion": version.get(kind, "apps/v1"),
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
    }


def pod(name: str, owner: tuple[str, str] | None = None) -> Document:
    metadata: dict[str, object] = {"name": name, "namespace": "shop", "labels": dict(LABELS)}
    if owner is not None:
        metadata["ownerReferences"] = [
            {"kind": owner[0], "name": owner[1], "controller": True},
        ]
        metadata["labels"] = {**LABELS, "pod-template-hash": "abc"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": TEMPLATE["spec"]}


def documents(*objects: Document) -> Documents:
    content = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    return with_workloads(read_bytes(json.dumps(content).encode(), "in.json"))


def names(*objects: Document) -> list[str]:
    return [found.key for found in documents(*objects).pods]


KINDS = (
    *("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController"),
    *("Job", "CronJob"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_one_pod_with_the_labels_and_ports_of_its_template(kind: str) -> None:
    (found,) = documents(workload(kind)).pods
    assert found.key == f"shop/{kind.lower()}/web"
    assert found.labels == LABELS
    assert found.ports == (ContainerPort(8080, "TCP", "http"),)
    assert found.workload == Workload(kind, "web")


def test_it_can_be_asked_about_by_the_name_that_kubectl_takes() -> None:
    cluster = from_objects(documents(workload("Deployment"), workload("StatefulSet", "db")))
    assert list(ends(cluster)) == ["shop/deployment/web", "shop/statefulset/db"]
    asked = questions(cluster, (), (), "shop/deployment/web", "shop/statefulset/db")
    assert len(asked) == 2, "a port, in both families"


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        pytest.param(
            (workload("Deployment"), pod("web-abc-1", ("ReplicaSet", "web-abc"))),
            ["shop/web-abc-1"],
            id="its pods are there",
        ),
        pytest.param(
            (workload("Deployment"), workload("ReplicaSet", "web-abc", ("Deployment", "web"))),
            ["shop/deployment/web"],
            id="a ReplicaSet of a Deployment",
        ),
        pytest.param(
            (
                workload("ReplicaSet", "web-abc", ("Deployment", "web")),
                pod("web-abc-1", ("ReplicaSet", "web-abc")),
            ),
            ["shop/web-abc-1"],
            id="a ReplicaSet whose Deployment is not there, and its pods",
        ),
        pytest.param(
            (workload("ReplicaSet", "web-abc", ("Deployment", "web")),),
            ["shop/replicaset/web-abc"],
            id="a ReplicaSet whose Deployment is not there",
        ),
        pytest.param(
            (workload("Deployment"), pod("other")),
            ["shop/other", "shop/deployment/web"],
            id="a pod of nobody with the same labels",
        ),
        pytest.param(
            (workload("Deployment"), workload("StatefulSet")),
            ["shop/deployment/web", "shop/statefulset/web"],
            id="two kinds of one name",
        ),
    ],
)
def test_no_pod_is_asked_about_twice(objects: tuple[Document, ...], expected: list[str]) -> None:
    assert names(*objects) == expected


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"spec": None}, "in.json:1: Deployment shop/web: spec: Required value; add spec"),
        ({"spec": {}}, "template: Required value; add template"),
        ({"spec": {"template": {"spec": {"containers": [{"ports": [{}]}]}}}}, "containerPort"),
        ({"apiVersion": "apps/v1beta1"}, 'no matches for kind "Deployment"'),
        ({"apiVersion": "extensions/v1beta1"}, "write apiVersion: apps/v1"),
    ],
)
def test_what_the_api_server_would_not_take_is_refused(broken: Document, said: str) -> None:
    with pytest.raises(InputError) as refused:
        documents({**workload("Deployment"), **broken})
    assert said in str(refused.value)


def test_two_of_one_kind_and_name_are_one_too_many() -> None:
    with pytest.raises(InputError, match="is given twice"):
        documents(workload("Deployment"), workload("Deployment"))
