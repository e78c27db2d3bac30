"""Cilium's policies in a cluster without Cilium: their kinds are made, their status says Valid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from generators.documents.json import Document, mapping, mappings, text
from generators.kube.client import OnConflict, WatchScope
from generators.kube.errors import Invalid, NotFound
from generators.kube.resources import (
    CILIUM_CLUSTERWIDE_POLICIES,
    CILIUM_NODES,
    CILIUM_POLICIES,
    CUSTOM_RESOURCES,
    EVENTS,
    Resource,
)
from tests.controller.cluster import Cluster, ControllerProcess, cluster
from tests.controller.policies import grant
from tests.controller.test_live_questions import Run, add_pod
from tests.testbed.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
OPTIONS = ("--cilium-policies", "--install-cilium-crds")
GOOD: Document = {"endpointSelector": {}, "ingress": [{"fromEntities": ["cluster"]}]}
BAD: Document = {"endpointSelector": {}, "egress": [{"toGroups": [{"aws": {"region": "x"}}]}]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, ControllerProcess]]:
    """A controller with exactly the rights that `controller rules` prints for its options."""
    with cluster(tmp_path_factory.mktemp("cilium")) as found:
        grant(found, "controller", *OPTIONS)
        controller = found.controller(*OPTIONS, webhook=False)
        eventually(lambda: is_served(found, CILIUM_CLUSTERWIDE_POLICIES), "the kinds are made")
        yield found, controller


def is_served(made: Cluster, kind: Resource) -> bool:
    try:
        made.admin.list_all(kind)
    except NotFound:
        return False
    return True


def policy(name: str, spec: Mapping[str, object], namespace: str = "default") -> Document:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": dict(spec)}


def put(made: Cluster, document: Document, kind: Resource = CILIUM_POLICIES) -> None:
    made.admin.apply(kind, document, manager="test", on_conflict=OnConflict.FORCE)


def valid(made: Cluster, name: str, kind: Resource = CILIUM_POLICIES) -> tuple[str, str]:
    """Status and message of its condition."""
    home = "default" if kind.namespaced else ""
    conditions = mappings(mapping(made.admin.get(kind, name, home), "status"), "conditions")
    found = [c for c in conditions if text(c, "type") == "Valid"]
    return (text(found[0], "status"), text(found[0], "message")) if found else ("", "")


def test_kubectl_knows_the_kinds_as_people_do(made: tuple[Cluster, ControllerProcess]) -> None:
    there, _ = made
    put(there, policy("seen", GOOD))
    eventually(lambda: valid(there, "seen")[0] == "True", "it is valid")
    lines = there.plane.kubectl("get", "cnp").splitlines()
    assert lines[0].split() == ["NAME", "AGE", "VALID"]
    assert [line.split()[2] for line in lines if line.startswith("seen ")] == ["True"]
    assert there.plane.kubectl("get", "ccnp") == ""


def test_a_policy_is_told_to_be_valid_or_why_it_is_not(
    made: tuple[Cluster, ControllerProcess],
) -> None:
    there, _ = made
    put(there, policy("told", BAD))
    eventually(lambda: valid(there, "told")[0] == "False", "it is invalid")
    message = valid(there, "told")[1]
    assert message.startswith(
        "spec.egress[0].toGroups: toGroups is not supported; list the groups'"
    )
    assert "allows nothing" in message
    uid = text(mapping(there.admin.get(CILIUM_POLICIES, "told", "default"), "metadata"), "uid")

    def events() -> list[Document]:
        found = there.admin.list_all(EVENTS, WatchScope(namespace="default"))
        return [e for e in found if text(mapping(e, "regarding"), "uid") == uid]

    eventually(lambda: [text(e, "reason") for e in events()] == ["InvalidPolicy"], "an Event")
    put(there, policy("told", GOOD))
    eventually(
        lambda: valid(there, "told") == ("True", "Policy validation succeeded"), "it is valid"
    )
    assert "InvalidPolicy" not in str(there.admin.get(CILIUM_POLICIES, "told", "default"))


def test_clusterwide_policies_and_those_of_several_parts_are_judged_as_a_whole(
    made: tuple[Cluster, ControllerProcess],
) -> None:
    there, _ = made
    whole: Document = {"metadata": {"name": "whole"}, "specs": [GOOD, BAD]}
    put(there, whole, CILIUM_CLUSTERWIDE_POLICIES)
    eventually(
        lambda: valid(there, "whole", CILIUM_CLUSTERWIDE_POLICIES)[0] == "False", "it is invalid"
    )
    assert "specs[1].egress[0]" in valid(there, "whole", CILIUM_CLUSTERWIDE_POLICIES)[1]
    there.admin.delete(CILIUM_CLUSTERWIDE_POLICIES, "whole")


@pytest.mark.parametrize(
    "spec",
    [
        {"endpointSelector": {}},
        {"ingress": [{}]},
        {"endpointSelector": {}, "nodeSelector": {}, "ingress": [{}]},
        {"endpointSelector": {}, "ingress": [{"fromEntities": ["World"]}]},
        {"endpointSelector": {}, "ingress": [{"fromCIDR": ["10.0.0.1"]}]},
        {"endpointSelector": {}, "ingress": [{"toPorts": [{"ports": [{"port": 80}]}]}]},
        {
            "endpointSelector": {},
            "ingress": [{"toPorts": [{"ports": [{"port": "80", "protocol": "tcp"}]}]}],
        },
        {"endpointSelector": {"matchExpressions": [{"key": "a", "operator": "in"}]}, "egress": []},
    ],
)
def test_the_api_server_refuses_what_ciliums_own_kinds_refuse(
    made: tuple[Cluster, ControllerProcess], spec: Document
) -> None:
    there, _ = made
    named = {"apiVersion": "cilium.io/v2", "kind": CILIUM_POLICIES.kind}
    with pytest.raises(Invalid):
        there.admin.create(CILIUM_POLICIES, policy("refused", spec) | named, manager="test")


def test_no_field_is_dropped_in_silence(made: tuple[Cluster, ControllerProcess]) -> None:
    there, _ = made
    rule = {"toPorts": [{"ports": [{"port": "80"}], "rules": {"kafka": [{"topic": "t"}]}}]}
    put(there, policy("kafka", {"endpointSelector": {}, "ingress": [rule]}))
    eventually(lambda: valid(there, "kafka")[0] == "False", "it is invalid")
    assert "use the broker's own ACLs" in valid(there, "kafka")[1]


def test_a_question_about_the_live_cluster_counts_them(
    made: tuple[Cluster, ControllerProcess], ringfence: Run
) -> None:
    there, _ = made
    there.make("asked")
    for name, address in (("web", "10.0.0.1"), ("api", "10.0.0.2"), ("job", "10.0.0.3")):
        add_pod(there, "asked", address, name)
    deny: Document = {"fromEndpoints": [{"matchLabels": {"app": "job"}}]}
    web: Document = {"matchLabels": {"app": "web"}}
    spec = {"endpointSelector": web, "ingress": [{"fromEntities": ["all"]}], "ingressDeny": [deny]}
    put(there, policy("web", spec, "asked"))
    api: Document = {"matchLabels": {"app": "api"}}
    put(there, policy("bad", {**BAD, "endpointSelector": api}, "asked"))
    where = ("--kubeconfig", there.plane.kubeconfig())
    for source, reason in (
        ("asked/api", "asked/cnp:bad"),
        ("asked/job", "decided by asked/cnp:web#ingressDeny[0]"),
    ):
        done = ringfence("trace", source, "asked/web", "80/TCP", *where)
        assert "DROPPED" in done.stdout
        assert reason in done.stdout
        assert "CiliumNetworkPolicy asked/bad is invalid, and allows nothing" in done.stderr


def test_where_a_cilium_runs_its_operator_writes_the_status(
    made: tuple[Cluster, ControllerProcess],
) -> None:
    there, controller = made
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    versions = [
        {"name": "v2", "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}}
    ]
    names = {"kind": "CiliumNode", "plural": "ciliumnodes", "singular": "ciliumnode"}
    spec = {"group": "cilium.io", "scope": "Cluster", "names": names, "versions": versions}
    put(there, {"metadata": {"name": str(CILIUM_NODES)}, "spec": spec}, CUSTOM_RESOURCES)
    eventually(lambda: is_served(there, CILIUM_NODES), "CiliumNodes are served")
    put(there, {"metadata": {"name": "worker"}}, CILIUM_NODES)
    eventually(lambda: bool(controller.events("policies_left_to_cilium")), "it is said")
    put(there, policy("left", BAD))
    there.admin.delete(CILIUM_NODES, "worker")
    eventually(lambda: valid(there, "left")[0] == "False", "it takes over again")


def test_kinds_that_are_there_stay_as_they_are(made: tuple[Cluster, ControllerProcess]) -> None:
    there, controller = made
    name = str(CILIUM_POLICIES)
    marked: Document = {"metadata": {"name": name, "labels": {"whose": "mine"}}}
    there.admin.apply(CUSTOM_RESOURCES, marked, manager="test", on_conflict=OnConflict.FORCE)
    version = text(mapping(there.admin.get(CUSTOM_RESOURCES, name), "metadata"), "resourceVersion")
    controller.terminate()
    again = there.controller(*OPTIONS, webhook=False)
    put(there, policy("again", GOOD))
    eventually(lambda: valid(there, "again")[0] == "True", f"it goes on: {again.log}")
    after = there.admin.get(CUSTOM_RESOURCES, name)
    assert text(mapping(after, "metadata"), "resourceVersion") == version
