"""Mutate rules with targets on a real API server, and the example pair of policies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from generators.documents.json import mapping, strings
from generators.kube.resources import CONFIG_MAPS, NAMESPACES, NETWORK_POLICIES
from tests.controller.background.ground import Ground, labels_of, quiet, version_of
from tests.controller.background.rules import EXISTING, SYNC, deny, rule
from tests.controller.cluster import ControllerProcess
from tests.testbed.waiting import eventually, holds_for

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


def test_the_example_pair_labels_and_isolates_existing_and_future_namespaces(
    on: Ground, mine: str
) -> None:
    old, late, other = f"{mine}-test02", f"{mine}-late-test02", f"{mine}-test01"
    isolated = ["allow-ingress-namespace"]
    for name in (old, other):
        on.make(name)
    for policy in PAIR:
        on.apply((EXAMPLES / f"{policy}.yaml").read_text())
    eventually(lambda: on.networks(old) == isolated, "existing")
    on.make(late)
    eventually(lambda: on.networks(late) == isolated, "future")
    eventually(lambda: all(on.is_ready(policy) for policy in PAIR), "Ready")
    assert labels_of(on.admin.get(NAMESPACES, late))["client"] == "test02"
    spec = mapping(on.admin.get(NETWORK_POLICIES, isolated[0], late), "spec")
    wanted = [{"client": "test02"}, {"kubernetes.io/metadata.name": "ingress"}]
    peers = [{"namespaceSelector": {"matchLabels": labels}} for labels in wanted]
    assert spec["ingress"] == [{"from": peers}]
    assert on.networks(other) == []
    assert "client" not in labels_of(on.admin.get(NAMESPACES, other))
    on.label(old, None)
    labelled = lambda: labels_of(on.admin.get(NAMESPACES, old)).get("client") == "test02"  # noqa: E731
    eventually(labelled, "the label is back")
    eventually(lambda: on.networks(old) == isolated, "isolated")
    on.drop(PAIR[1])
    eventually(lambda: on.networks(late) == [], "collected with its policy")
    assert labels_of(on.admin.get(NAMESPACES, late))["client"] == "test02"
    on.drop(PAIR[0])


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
    eventually(lambda: "changes each time the rule runs" in controller.get("/readyz")[1], "told")
    value = strings(on.find(CONFIG_MAPS, mine, "target") or {}, "data")["value"]
    assert len(value) < 10
    on.drop(mine)


def test_a_tenants_isolation_is_never_taken_over(
    on: Ground, controller: ControllerProcess, mine: str
) -> None:
    namespace = f"{mine}-elsewhere02"
    on.make(namespace, labels={"run": mine})
    eventually(lambda: on.policy(namespace) is not None, "isolated by the tenant file")
    before = on.policy(namespace)
    on.policy_object(mine, rule("r", mine, deny("allow-ingress-namespace", SYNC, EXISTING)))
    told = "allow-ingress-namespace belongs to the tenant file; choose another name"
    eventually(lambda: told in controller.get("/readyz")[1], "told")
    assert on.policy(namespace) == before
    on.drop(mine)
    eventually(lambda: told not in controller.get("/readyz")[1], "told no more")
    assert on.policy(namespace) == before
