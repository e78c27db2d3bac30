"""Policies of a namespace: they write in it, and nowhere else."""

from __future__ import annotations

import pytest

from generators.documents.json import ObjectKey, ObjectKind, Value, strings
from generators.kube.discovery import Discovery
from generators.kube.resources import CONFIG_MAPS, SECRETS
from generators.kyverno.failures import NotAllowed
from generators.kyverno.generation import WantedObject
from generators.kyverno.limits import allowing
from generators.kyverno.ownership import Mark, Owner
from tests.controller.background.ground import Ground
from tests.controller.cluster import ControllerProcess
from tests.testbed.waiting import eventually
from webhook.background.writer import ObjectWriter, Protection

pytestmark = pytest.mark.cluster


def test_a_namespaced_policy_stays_in_its_namespace(on: Ground, mine: str) -> None:
    for namespace in (mine, f"{mine}-other"):
        on.make(namespace)
    rules = (
        "- name: {name}\n  match: {{any: [{{resources: {{kinds: [ConfigMap]}}}}]}}\n"
        "  generate: {{apiVersion: v1, kind: Secret, synchronize: true, name: {name},"
        " namespace: {into}, data: {{}}}}\n"
    )
    both = rules.format(name="here", into=mine) + rules.format(name="there", into=f"{mine}-other")
    on.policy_object("local", both, namespace=mine)
    eventually(lambda: on.condition("local", mine)[0] == "False", "told")
    for namespace in (mine, f"{mine}-other"):
        on.config(namespace, "trigger", {})
    eventually(lambda: on.find(SECRETS, mine, "here") is not None, "its own")
    assert on.find(SECRETS, f"{mine}-other", "there") is None
    assert on.find(SECRETS, f"{mine}-other", "here") is None
    on.drop("local", mine)
    eventually(lambda: on.find(SECRETS, mine, "here") is None, "collected")


def test_a_namespaced_policy_takes_nothing_over(
    on: Ground, controller: ControllerProcess, mine: str
) -> None:
    on.make(mine)
    on.config(mine, "settings", {}, of="admin")
    on.policy_object(
        "local",
        "- name: r\n  match: {any: [{resources: {kinds: [Secret]}}]}\n"
        "  generate: {apiVersion: v1, kind: ConfigMap, synchronize: true, name: settings,"
        f" namespace: {mine}, data: {{data: {{of: policy}}}}}}\n",
        namespace=mine,
    )
    eventually(lambda: on.is_ready("local", mine), "Ready")
    on.secret(mine, "trigger")
    told = f"no Policy of namespace {mine} made it"
    eventually(lambda: told in controller.get("/readyz")[1], "told")
    found = on.find(CONFIG_MAPS, mine, "settings")
    assert strings(found or {}, "data") == {"of": "admin"}
    on.drop("local", mine)


def test_a_namespaced_policy_makes_nothing_of_the_cluster_whatever_the_kind_is_called(
    on: Ground, mine: str
) -> None:
    tenancy = Protection(allowing(["flowcontrol.apiserver.k8s.io/v1/FlowSchema"]), frozenset())
    writer = ObjectWriter(on.admin, Discovery(on.admin), lambda: tenancy)
    document: Value = {
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "FlowSchema",
        "metadata": {"name": mine, "namespace": mine},
        "spec": {"priorityLevelConfiguration": {"name": "exempt"}},
    }
    assert isinstance(document, dict)
    trigger = ObjectKey(ObjectKind("", "v1", "ConfigMap"), mine, "trigger")
    wanted = WantedObject(document, Mark(Owner(f"{mine}/local", "r", trigger, "uid", "0")))
    with pytest.raises(NotAllowed, match="in no namespace"):
        writer.ensure(mine, wanted, None)
