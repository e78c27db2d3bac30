"""Kyverno policies of the cluster, carried out while the API server admits requests."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from generators.documents.json import Document, mapping, mappings, strings, text
from generators.kube.client import DryRun, PatchKind, WatchScope
from generators.kube.errors import Forbidden, Invalid, KubeError, NotFound
from generators.kube.resources import (
    CLUSTER_POLICIES,
    CONFIG_MAPS,
    CUSTOM_RESOURCES,
    NAMESPACES,
    POLICIES,
    ROLE_BINDINGS,
)
from tests.controller.cluster import KEY
from tests.controller.policies import EXAMPLES, Running, labelling, policy, sample
from tests.testbed.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


def test_the_kinds_are_installed_where_they_were_missing_and_kubectl_shows_ready(
    running: Running,
) -> None:
    running.apply(policy("shows-ready", labelling("shows-", {"shown": "yes"})))
    for kind in ("clusterpolicies.kyverno.io", "policies.kyverno.io"):
        assert running.admin.get(CUSTOM_RESOURCES, kind)
    table = running.cluster.plane.kubectl("get", "cpol", "shows-ready")
    header, row = table.splitlines()
    assert header.split()[:5] == ["NAME", "ADMISSION", "BACKGROUND", "READY", "AGE"]
    assert "True" in row.split()


def test_a_namespace_is_labelled_while_it_is_created_and_policies_cascade(
    running: Running, name: Callable[[str], str]
) -> None:
    prefix = name("cascade")
    second = labelling(prefix, {"second": "{{request.object.metadata.labels.first}}-seen"})
    running.apply(policy(prefix, labelling(prefix, {"first": "one"}), second))
    labels = running.make(f"{prefix}-x")
    assert labels["first"] == "one"
    assert labels["second"] == "one-seen"


def test_dry_run_shows_the_labels_and_keeps_nothing(
    running: Running, name: Callable[[str], str]
) -> None:
    prefix = name("dry")
    running.apply(policy(prefix, labelling(prefix, {"team": "shop"})))
    document: Document = {"metadata": {"name": f"{prefix}-x"}}
    shown = running.admin.create(NAMESPACES, document, manager="test", dry_run=DryRun.ALL)
    assert strings(mapping(shown, "metadata"), "labels")["team"] == "shop"
    with pytest.raises(NotFound):
        running.admin.get(NAMESPACES, f"{prefix}-x")


def test_a_rule_that_fails_refuses_under_fail_and_names_policy_rule_and_field(
    running: Running, name: Callable[[str], str]
) -> None:
    prefix = name("fail")
    running.apply(policy(prefix, labelling(prefix, {"team": "{{request.object.nope}}"})))
    with pytest.raises(Forbidden) as refused:
        running.make(f"{prefix}-x")
    told = str(refused.value)
    assert f"policy {prefix}, rule rule-0" in told
    assert "labels.team" in told
    running.remove(prefix)


def test_a_rule_that_fails_only_warns_under_ignore(
    running: Running, name: Callable[[str], str]
) -> None:
    prefix = name("ignore")
    broken = labelling(prefix, {"team": "{{request.object.nope}}"})
    sound = labelling(prefix, {"zone": "a"})
    running.apply(policy(prefix, broken, sound, failurePolicy="Ignore"))
    done = running.cluster.plane.try_kubectl("create", "namespace", f"{prefix}-x")
    assert f"policy {prefix}, rule rule-0" in done.stderr
    assert running.cluster.labels(f"{prefix}-x")["zone"] == "a"


def test_a_patch_that_would_make_an_invalid_namespace_is_a_refusal_and_no_internal_error(
    running: Running, name: Callable[[str], str]
) -> None:
    prefix = name("invalid")
    running.apply(policy(prefix, labelling(prefix, {"team": "not a label!"})))
    with pytest.raises(Forbidden) as refused:
        running.make(f"{prefix}-x")
    assert "metadata.labels.team" in str(refused.value)
    running.remove(prefix)


def test_no_policy_forges_the_tenant_of_a_namespace(
    running: Running, name: Callable[[str], str]
) -> None:
    prefix = name("forge")
    running.apply(policy(prefix, labelling(prefix, {KEY: "test02"})))
    assert running.make(f"{prefix}-test01")[KEY] == "test01"
    assert KEY not in running.make(f"{prefix}-nobody")


def test_the_example_labels_a_namespace_before_it_exists(running: Running) -> None:
    running.cluster.plane.kubectl("apply", "-f", str(EXAMPLES / "add-client-label-namespaces.yaml"))
    running.in_force("add-client-label-namespaces")
    assert running.make("example-test02")[KEY] == "test02"


SAMPLE_LABELS = {
    "add-ambient-mode-namespace": ("labels", "istio.io/dataplane-mode", "ambient"),
    "add-linkerd-mesh-injection": ("annotations", "linkerd.io/inject", "enabled"),
    "add-linkerd-policy-annotation": (
        "annotations",
        "config.linkerd.io/default-inbound-policy",
        "deny",
    ),
    "add-psa-labels": ("labels", "pod-security.kubernetes.io/enforce", "baseline"),
    "add-sidecar-injection-namespace": ("labels", "istio-injection", "enabled"),
}


def test_public_samples_run_unmodified_at_admission(
    running: Running, name: Callable[[str], str]
) -> None:
    for each in SAMPLE_LABELS:
        running.apply(sample(each))
    made = running.admin.create(NAMESPACES, {"metadata": {"name": name("sampled")}}, manager="test")
    metadata = mapping(made, "metadata")
    for each, (part, key, value) in SAMPLE_LABELS.items():
        assert strings(metadata, part).get(key) == value, each
    for each in SAMPLE_LABELS:
        running.admin.delete(CLUSTER_POLICIES, each)


def test_a_context_reads_configmaps_and_a_missing_one_is_an_error(
    running: Running, name: Callable[[str], str]
) -> None:
    prefix = name("context")
    config: Document = {"metadata": {"name": prefix, "namespace": "default"}, "data": {"t": "shop"}}
    running.admin.create(CONFIG_MAPS, config, manager="test")
    entry: Document = {"name": "teams", "configMap": {"name": prefix, "namespace": "default"}}
    lost: Document = {"name": "teams", "configMap": {"name": "lost", "namespace": "default"}}
    team: Document = {"team": "{{teams.data.t}}"}
    running.apply(
        policy(
            prefix,
            labelling(f"{prefix}-a", team, context=[entry]),
            labelling(f"{prefix}-b", team, context=[lost]),
        )
    )
    assert running.make(f"{prefix}-a")["team"] == "shop"
    with pytest.raises(Forbidden, match="lost of context teams is not there"):
        running.make(f"{prefix}-b")
    running.remove(prefix)


def test_an_api_call_reads_paths_of_the_list_and_no_others(
    running: Running, name: Callable[[str], str]
) -> None:
    prefix = name("call")
    query: Document = {"urlPath": "/api/v1/namespaces/default", "jmesPath": "metadata.name"}
    secret: Document = {"urlPath": "/api/v1/namespaces/default/secrets"}
    label: Document = {"seen": "{{ answer }}"}
    running.apply(
        policy(
            prefix,
            labelling(f"{prefix}-a", label, context=[{"name": "answer", "apiCall": query}]),
            labelling(f"{prefix}-b", label, context=[{"name": "answer", "apiCall": secret}]),
        )
    )
    assert running.make(f"{prefix}-a")["seen"] == "default"
    with pytest.raises(Forbidden, match="policies never read"):
        running.make(f"{prefix}-b")
    running.remove(prefix)


def test_a_rule_asks_for_the_roles_of_who_makes_the_request(
    running: Running, name: Callable[[str], str]
) -> None:
    prefix = name("roles")
    rule = labelling(prefix, {"by": "cluster-user"})
    block = rule["match"]
    assert isinstance(block, dict)
    block["any"][0]["clusterRoles"] = ["cluster-user"]
    running.apply(policy(prefix, rule, background=False))
    member = running.cluster.as_user("rolf", "robots")
    assert running.make(f"{prefix}-a", member)["by"] == "cluster-user"
    assert "by" not in running.make(f"{prefix}-b")


def test_the_public_sample_that_asks_who_made_a_namespace_runs_unmodified(
    running: Running, name: Callable[[str], str]
) -> None:
    anna = running.cluster.as_user("anna", "robots")
    forged = {"annotations": {"ringfence.io/created-by": '{"username":"mallory"}'}}
    hers, ours, older = name("hers"), name("ours"), name("older")
    running.make(older, anna, **forged)
    running.apply(sample("add-rolebinding"))
    running.make(hers, anna, **forged)
    running.make(ours)

    def bound(namespace: str) -> list[str]:
        found = running.admin.list_all(ROLE_BINDINGS, WatchScope(namespace=namespace))
        return [text(s, "name") for each in found for s in mappings(each, "subjects")]

    eventually(lambda: bound(hers) == ["anna"], f"bound: {running.controller.log}")
    # The administrator has cluster-admin, which the rule excludes.
    assert bound(ours) == []
    change: Document = {"metadata": {"annotations": {"ringfence.io/created-by": "{}"}}}
    for by, subresource in ((anna, ""), (running.admin, "status")):
        by.patch(
            NAMESPACES,
            hers,
            "",
            change,
            kind=PatchKind.MERGE,
            manager="test",
            subresource=subresource,
        )
    live = running.admin.get(NAMESPACES, hers)
    running.admin.update(
        NAMESPACES,
        live | {"metadata": {**mapping(live, "metadata"), **forged}},
        manager="test",
        subresource="finalize",
    )
    kept = strings(mapping(running.admin.get(NAMESPACES, hers), "metadata"), "annotations")
    assert '"username":"anna"' in kept["ringfence.io/created-by"]
    # What was written before the webhook saw namespaces is nobody's word, also when they change.
    touched: Document = {"metadata": {"labels": {"touched": "yes"}}}
    for namespace in (older, hers):
        anna.patch(NAMESPACES, namespace, "", touched, kind=PatchKind.MERGE, manager="test")
    eventually(
        lambda: any(
            older in str(each["trigger"]) and "userInfo" in str(each["problem"])
            for each in running.controller.events("policy_rule_failed")
        ),
        f"nobody is known to have made it: {running.controller.log}",
    )
    assert bound(older) == []
    assert bound(hers) == ["anna"]
    running.remove("add-rolebinding")


@pytest.mark.parametrize(
    ("document", "told"),
    [
        pytest.param(
            policy(
                "elsewhere",
                {
                    "match": {"any": [{"resources": {"kinds": ["ConfigMap"]}}]},
                    "generate": {
                        "apiVersion": "v1",
                        "kind": "LimitRange",
                        "name": "x",
                        "namespace": "kube-public",
                        "data": {},
                    },
                },
                kind="Policy",
            ),
            "make it a ClusterPolicy",
            id="a Policy that writes into another namespace",
        ),
        pytest.param(
            policy(
                "secrets",
                {
                    "match": {"any": [{"resources": {"kinds": ["Namespace"]}}]},
                    "generate": {
                        "apiVersion": "v1",
                        "kind": "Secret",
                        "name": "x",
                        "namespace": "y",
                        "data": {},
                    },
                },
            ),
            "--allow-kind v1/Secret",
            id="a kind that is not allowed",
        ),
        pytest.param(
            policy(
                "loop",
                {
                    "match": {"any": [{"resources": {"kinds": ["ConfigMap"]}}]},
                    "generate": {
                        "apiVersion": "v1",
                        "kind": "ConfigMap",
                        "name": "x",
                        "namespace": "y",
                        "data": {},
                    },
                },
            ),
            "it would loop",
            id="a rule that triggers itself",
        ),
        pytest.param(
            policy(
                "protected",
                {
                    "match": {"any": [{"resources": {"kinds": ["Namespace"]}}]},
                    "generate": {
                        "apiVersion": "v1",
                        "kind": "ConfigMap",
                        "name": "x",
                        "namespace": "kube-system",
                        "data": {},
                    },
                },
            ),
            "kube-system is protected",
            id="into a protected namespace",
        ),
        pytest.param(policy("empty"), "rules", id="no policy at all"),
    ],
)
def test_a_policy_that_would_do_more_than_it_may_is_refused_when_it_is_written(
    running: Running, document: Document, told: str
) -> None:
    resource = POLICIES if document["kind"] == "Policy" else CLUSTER_POLICIES
    with pytest.raises((Forbidden, Invalid)) as refused:
        running.admin.create(resource, document, manager="test")
    assert told in str(refused.value)


def test_a_webhook_that_is_away_refuses_for_fail_and_lets_pass_for_ignore(
    running: Running, name: Callable[[str], str]
) -> None:
    prefix = name("away")
    running.apply(policy(f"{prefix}-soft", labelling(prefix, {"a": "b"}), failurePolicy="Ignore"))
    config: Document = {
        "match": {"any": [{"resources": {"kinds": ["ConfigMap"], "names": [prefix]}}]},
        "mutate": {"patchStrategicMerge": {"data": {"stamp": "yes"}}},
    }
    running.apply(policy(f"{prefix}-hard", config))
    made = running.admin.create(
        CONFIG_MAPS, {"metadata": {"name": prefix, "namespace": "default"}}, manager="test"
    )
    assert mapping(made, "data")["stamp"] == "yes"
    os.kill(running.webhook.pid, signal.SIGSTOP)
    children = Path(f"/proc/{running.webhook.pid}/task/{running.webhook.pid}/children")
    worker = int(children.read_text().split()[0])
    os.kill(worker, signal.SIGSTOP)
    try:
        other: Document = {"metadata": {"name": f"{prefix}-2", "namespace": "default"}}
        with pytest.raises(KubeError, match=r"fail\.policies\.ringfence\.io"):
            running.admin.create(CONFIG_MAPS, other, manager="test")
        own: Document = {"metadata": {"name": f"{prefix}-3", "namespace": "kube-system"}}
        running.admin.create(CONFIG_MAPS, own, manager="test")
    finally:
        os.kill(worker, signal.SIGCONT)
        os.kill(running.webhook.pid, signal.SIGCONT)
    running.remove(f"{prefix}-hard")
