"""Marks on generated objects: what forged and copied ones cannot do."""

from __future__ import annotations

import json

import pytest

from generators.documents.json import Document, mapping, strings
from generators.kube.resources import CONFIG_MAPS, NAMESPACES, NETWORK_POLICIES
from tests.controller.background.ground import Ground, quiet, uid_of
from tests.controller.background.rules import SYNC, deny, labelled, rule
from tests.controller.cluster import ControllerProcess
from tests.testbed.waiting import eventually, holds_for

pytestmark = pytest.mark.cluster


def test_a_copy_of_a_generated_object_is_left_alone(
    on: Ground, controller: ControllerProcess, mine: str
) -> None:
    on.policy_object(mine, rule("r", mine, deny("deny", SYNC)))
    labelled(on, mine, mine)
    eventually(lambda: on.networks(mine) == ["deny"], "made")
    made = on.admin.get(NETWORK_POLICIES, "deny", mine)
    kept = {k: v for k, v in mapping(made, "metadata").items() if k in ("labels", "annotations")}
    copy: Document = {"metadata": kept | {"name": "copy", "namespace": mine}, "spec": made["spec"]}
    on.admin.create(NETWORK_POLICIES, copy, manager="test")
    on.label(mine, "x", key="touched")
    eventually(lambda: quiet(controller), "done")
    on.drop(mine)
    eventually(lambda: on.networks(mine) == ["copy"], "only what was made is collected")


def forged(kind: str, namespace: str, name: str, owner: str, **more: object) -> Document:
    """Marks that a team writes by itself on what is its own, as if `owner` had made it."""
    fields = {
        "object": [namespace, name],
        "trigger": ["v1", kind, namespace, name, "x"],
        "item": "0",
        "synchronize": True,
    }
    return {
        "labels": {"ringfence.io/policy": f"kyverno.{owner}"},
        "annotations": {
            "ringfence.io/policy": owner,
            "ringfence.io/rule": "r",
            "ringfence.io/generated": json.dumps(fields | more),
        },
    }


def test_a_forged_mark_neither_ends_what_is_generated_nor_keeps_it_from_being_made(
    on: Ground, mine: str
) -> None:
    on.policy_object(mine, rule("r", mine, deny("wall", SYNC)))
    eventually(lambda: on.is_ready(mine), "Ready")
    later = f"{mine}-later"
    for name in (mine, later):
        marks = forged("Namespace", "", name, mine)
        labels = strings(marks, "labels") if name == later else {}
        notes = strings(marks, "annotations") if name == later else {}
        on.make(name, labels={"run": mine, **labels}, annotations=notes)
    eventually(lambda: on.networks(later) == ["wall"], "made in spite of the mark")
    eventually(lambda: on.networks(mine) == ["wall"], "made")
    before = uid_of(on.find(NETWORK_POLICIES, mine, "wall"))
    on.merge(NAMESPACES, "", mine, {"metadata": forged("Namespace", "", mine, mine)})
    holds_for(1.5, lambda: on.networks(mine) == ["wall"], "stays")
    on.admin.delete(NETWORK_POLICIES, "wall", mine)
    eventually(lambda: on.networks(mine) == ["wall"], "made again")
    assert uid_of(on.find(NETWORK_POLICIES, mine, "wall")) != before


def test_a_mark_counts_only_on_what_its_rule_makes_for_its_trigger(on: Ground, mine: str) -> None:
    """A true trigger and a true rule, on an object that the rule does not make."""
    data = f"data: {{metadata: {{labels: {{walled: {mine}}}}}, data: {{a: b}}}}"
    home = 'namespace: "{{request.object.metadata.name}}"'
    makes = f"apiVersion: v1, kind: ConfigMap, name: made, {home}, {data}"
    on.policy_object(mine, rule("r", mine, makes))
    walls = (
        "- name: walls\n"
        "  match: {any: [{resources: {kinds: [ConfigMap],"
        f" selector: {{matchLabels: {{walled: {mine}}}}}}}}}]}}\n"
        "  generate: {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy,"
        ' name: "wall-{{request.object.metadata.name}}", synchronize: true,'
        ' namespace: "{{request.object.metadata.namespace}}",'
        " data: {spec: {podSelector: {}, policyTypes: [Ingress]}}}\n"
    )
    on.policy_object(f"{mine}-walls", walls)
    eventually(lambda: on.is_ready(mine) and on.is_ready(f"{mine}-walls"), "Ready")
    labelled(on, mine, mine)
    eventually(lambda: on.find(CONFIG_MAPS, mine, "made") is not None, "made")
    trigger = ["v1", "Namespace", "", mine, uid_of(on.find(NAMESPACES, "", mine))]
    marks = forged("ConfigMap", mine, "mine", mine, trigger=trigger, synchronize=False)
    labels = {**strings(marks, "labels"), "walled": mine}
    meta: Document = {"name": "mine", "namespace": mine, **marks, "labels": labels}
    on.admin.create(CONFIG_MAPS, {"metadata": meta}, manager="test")
    eventually(lambda: on.networks(mine) == ["wall-mine"], "the mark is not believed")
    holds_for(1.0, lambda: on.networks(mine) == ["wall-mine"], "and that of what is made, is")


def test_a_forged_copy_is_replaced_by_the_true_one(on: Ground, mine: str) -> None:
    source, evil = f"{mine}-source", f"{mine}-evil"
    for name in (source, evil):
        on.make(name)
        on.config(name, "ca", {}, ca=name)
    on.make(mine)
    uid = uid_of(on.find(NAMESPACES, "", mine))
    trigger = ["v1", "Namespace", "", mine, uid]
    copied_from = ["v1", "ConfigMap", evil, "ca"]
    marks = forged("Namespace", mine, "ca", mine, trigger=trigger, source=copied_from, pattern="x")
    meta: Document = {"name": "ca", "namespace": mine, **marks}
    on.admin.create(CONFIG_MAPS, {"metadata": meta, "data": {"ca": evil}}, manager="test")
    on.policy_object(
        mine,
        rule(
            "r",
            mine,
            "apiVersion: v1, kind: ConfigMap, name: ca, synchronize: true,"
            f' namespace: "{{{{request.object.metadata.name}}}}",'
            f" clone: {{namespace: {source}, name: ca}}",
        ),
    )
    eventually(lambda: on.is_ready(mine), "Ready")
    on.label(mine, mine, key="run")

    def true_one() -> bool:
        return strings(on.find(CONFIG_MAPS, mine, "ca") or {}, "data") == {"ca": source}

    eventually(true_one, "the true one")
