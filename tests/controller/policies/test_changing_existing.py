"""Mutate rules with targets on a real API server, and the example pair of policies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from generators.kube.documents import mapping, strings
from generators.kube.resources import CONFIG_MAPS, NAMESPACES, NETWORK_POLICIES
from tests.controller.cluster import TENANTS, ControllerProcess, holds_for
from tests.controller.policies.ground import (
    Ground,
    labels_of,
    quiet,
    started,
    version_of,
)
from tests.testbed.waiting import eventually

pytestmark = pytest.mark.cluster
EXAMPLES = Path(__file__).resolve().parents[3] / "examples/kyverno"
PAIR = ("add-client-label-namespaces", "generate-client-namespace-network-policy")


@pytest.fixture
def mine(unique_name: Callable[[str], str]) -> str:
    return unique_name("m")


def labels_namespaces(begin: str, patch: str, existing: bool = True) -> str:
    """A rule that any namespace triggers, and whose targets are those with a name like `begin*`."""
    return f"""\
- name: label
  match: {{any: [{{resources: {{kinds: [Namespace]}}}}]}}
  mutate:
    mutateExistingOnPolicyUpdate: {str(existing).lower()}
    targets: [{{apiVersion: v1, kind: Namespace, name: "{begin}*"}}]
    patchStrategicMerge: {{metadata: {{{patch}}}}}
"""


def test_the_example_pair_labels_and_isolates_existing_and_future_namespaces(bare: Ground) -> None:
    bare.tenants.write_text(bare.tenants.read_text().replace("labelKey: client\n", ""))
    for name in ("shop-test02", "shop-test01"):
        bare.make(name)
    controller = started(bare)
    for policy in PAIR:
        bare.apply((EXAMPLES / f"{policy}.yaml").read_text())
    eventually(lambda: bare.networks("shop-test02") == ["allow-ingress-namespace"], "existing")
    bare.make("late-test02")
    eventually(lambda: bare.networks("late-test02") == ["allow-ingress-namespace"], "future")
    eventually(lambda: all(bare.is_ready(policy) for policy in PAIR), "Ready")
    assert labels_of(bare.admin.get(NAMESPACES, "late-test02"))["client"] == "test02"
    spec = mapping(
        bare.find(NETWORK_POLICIES, "late-test02", "allow-ingress-namespace") or {}, "spec"
    )
    wanted = [{"client": "test02"}, {"kubernetes.io/metadata.name": "ingress"}]
    peers = [{"namespaceSelector": {"matchLabels": labels}} for labels in wanted]
    assert spec["ingress"] == [{"from": peers}]
    assert bare.networks("shop-test01") == []
    assert "client" not in labels_of(bare.admin.get(NAMESPACES, "shop-test01"))
    eventually(lambda: quiet(controller), "done")
    bare.label("shop-test02", None)
    eventually(
        lambda: labels_of(bare.admin.get(NAMESPACES, "shop-test02")).get("client") == "test02",
        "the label is back",
    )
    eventually(lambda: bare.networks("shop-test02") == ["allow-ingress-namespace"], "isolated")
    bare.drop(PAIR[1])
    eventually(lambda: bare.networks("late-test02") == [], "collected with its policy")
    assert labels_of(bare.admin.get(NAMESPACES, "late-test02"))["client"] == "test02"


def test_existing_targets_are_changed_once(
    on: Ground, controller: ControllerProcess, mine: str
) -> None:
    on.make(f"{mine}-old")
    on.policy_object(mine, labels_namespaces(mine, "labels: {colour: blue}"))
    old = f"{mine}-old"
    eventually(lambda: labels_of(on.admin.get(NAMESPACES, old)).get("colour") == "blue", "existing")
    eventually(lambda: quiet(controller), "done")
    before = version_of(on.admin.get(NAMESPACES, old))
    on.make(f"{mine}-new")
    new = f"{mine}-new"
    eventually(lambda: labels_of(on.admin.get(NAMESPACES, new)).get("colour") == "blue", "new")
    eventually(lambda: quiet(controller), "done")
    assert version_of(on.admin.get(NAMESPACES, old)) == before
    on.policy_object(mine, labels_namespaces(mine, "labels: {colour: red}"))
    eventually(lambda: labels_of(on.admin.get(NAMESPACES, old)).get("colour") == "red", "edited")


def test_without_the_switch_only_a_trigger_that_changes_runs_the_rule(
    on: Ground, controller: ControllerProcess, mine: str
) -> None:
    on.make(mine)
    on.config(mine, "target", {})
    on.config(mine, "trigger", {})
    eventually(lambda: quiet(controller), "known")
    on.policy_object(
        mine,
        f"""\
- name: note
  match: {{any: [{{resources: {{kinds: [ConfigMap], names: [trigger], namespaces: [{mine}]}}}}]}}
  mutate:
    targets: [{{apiVersion: v1, kind: ConfigMap, name: target, namespace: {mine}}}]
    patchStrategicMerge: {{data: {{seen: "{{{{request.object.data.value || 'none'}}}}"}}}}
""",
    )
    eventually(lambda: on.is_ready(mine), "Ready")

    def seen() -> str | None:
        return strings(on.find(CONFIG_MAPS, mine, "target") or {}, "data").get("seen")

    holds_for(0.5, lambda: seen() is None, "nothing happened to the trigger")
    on.merge(CONFIG_MAPS, mine, "trigger", {"data": {"value": "a"}})
    eventually(lambda: seen() == "a", "the trigger changed")
    on.merge(CONFIG_MAPS, mine, "trigger", {"data": {"value": "b"}})
    eventually(lambda: seen() == "b", "it changed again")


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        ("labels: {ringfence.io/tenant: test02}", "policies may not change ringfence.io/tenant"),
        ("labels: {cost-centre: mine}", "policies may not change cost-centre"),
        ("annotations: {ringfence.io/mode: audit}", "policies may not change ringfence.io/mode"),
        (
            "finalizers: [theirs.io/stay]",
            "policies change only labels and annotations of a Namespace",
        ),
    ],
)
def test_what_tenancy_rests_on_is_out_of_reach(
    on: Ground, controller: ControllerProcess, mine: str, patch: str, why: str
) -> None:
    on.make(mine)
    before = on.admin.get(NAMESPACES, mine)
    on.policy_object(mine, labels_namespaces(mine, patch))
    eventually(lambda: why in controller.get("/readyz")[1], "told")
    now = on.admin.get(NAMESPACES, mine)
    assert mapping(now, "metadata") == mapping(before, "metadata")
    on.drop(mine)


def test_a_patch_that_never_comes_to_rest_is_stopped(
    on: Ground, controller: ControllerProcess, mine: str
) -> None:
    on.make(mine)
    on.config(mine, "target", {}, value="x")
    on.policy_object(
        mine,
        f"""\
- name: grows
  match: {{any: [{{resources: {{kinds: [ConfigMap], names: [target], namespaces: [{mine}]}}}}]}}
  mutate:
    mutateExistingOnPolicyUpdate: true
    targets: [{{apiVersion: v1, kind: ConfigMap, name: target, namespace: {mine}}}]
    patchStrategicMerge: {{data: {{value: "{{{{target.data.value}}}}x"}}}}
""",
    )
    eventually(lambda: "is changed each time the rule runs" in controller.get("/readyz")[1], "told")
    value = strings(on.find(CONFIG_MAPS, mine, "target") or {}, "data")["value"]
    assert len(value) < 10
    on.drop(mine)


def test_a_tenants_isolation_is_never_taken_over(bare: Ground) -> None:
    bare.tenants.write_text(TENANTS)
    controller = started(bare)
    bare.make("shop-test02")
    eventually(lambda: bare.isolated("shop-test02", "test02"), "isolated by the tenant file")
    before = bare.policy("shop-test02")
    for policy in PAIR:
        bare.apply((EXAMPLES / f"{policy}.yaml").read_text())
    told = "allow-ingress-namespace belongs to the tenant file; choose another name"
    eventually(lambda: told in controller.get("/readyz")[1], "told")
    assert bare.policy("shop-test02") == before
