"""Kyverno policies of the cluster, carried out while the API server admits requests.

One control plane for the module: the controller installs the kinds and registers the webhook, both
read the cluster's policies with the rights that `ringfence ... rules` print. Policies are told
apart by the namespaces that they match, so the tests do not see each other.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from secrets import token_hex

import pytest

from generators.documents.json import Document, mapping, mappings, strings, text
from generators.documents.yaml import documents, plain
from generators.kube.client import Client, DryRun, PatchKind, WatchScope
from generators.kube.errors import Forbidden, Invalid, KubeError, NotFound
from generators.kube.resources import (
    CLUSTER_POLICIES,
    CONFIG_MAPS,
    CUSTOM_RESOURCES,
    DEPLOYMENTS,
    MUTATING_WEBHOOKS,
    NAMESPACES,
    POLICIES,
    ROLE_BINDINGS,
)
from generators.kyverno.limits import Limits
from tests.conftest import Run
from tests.controller.cluster import (
    COMMAND,
    KEY,
    SYSTEM,
    Cluster,
    ControllerProcess,
    Process,
    cluster,
)
from tests.testbed.processes import free_ports
from tests.testbed.waiting import eventually, holds_for
from webhook.policies.book import PolicyBook
from webhook.policies.crds import PolicyKinds

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
SAMPLES = Path(__file__).parents[1] / "generators" / "kyverno" / "samples"
EXAMPLES = Path(__file__).parents[2] / "examples" / "kyverno"


@dataclass
class Running:
    """A cluster whose policies Ringfence carries out."""

    cluster: Cluster
    controller: ControllerProcess
    webhook: Process
    metrics_port: int

    @property
    def admin(self) -> Client:
        return self.cluster.admin

    def apply(self, document: Document) -> None:
        """Create a policy and wait until the webhook answers for it."""
        resource = POLICIES if document["kind"] == "Policy" else CLUSTER_POLICIES
        self.admin.create(resource, document, manager="test")
        name = text(mapping(document, "metadata"), "name")
        home = text(mapping(document, "metadata"), "namespace")
        self.in_force(f"{home}/{name}" if home else name)

    def in_force(self, name: str) -> None:
        """Served, and registered: the controller has nothing left to tell the API server."""
        eventually(lambda: name in self.served(), f"{name} served: {self.webhook.log}")
        eventually(lambda: self.ready_reason(name) == "Succeeded", f"{name}: {self.controller.log}")

    def served(self) -> list[object]:
        events = self.webhook.events("policies_in_force")
        found = events[-1]["policies"] if events else []
        assert isinstance(found, list)
        return found

    def taken(self) -> object:
        """How many policies the controller's work behind requests has taken over."""
        return self.controller.events("policies_taken")[-1]["policies"]

    def ready_reason(self, name: str) -> str:
        namespace, _, short = name.rpartition("/")
        resource = POLICIES if namespace else CLUSTER_POLICIES
        status = mapping(self.admin.get(resource, short, namespace), "status")
        for condition in mappings(status, "conditions"):
            if text(condition, "type") == "Ready":
                return text(condition, "reason")
        return ""

    def remove(self, name: str) -> None:
        self.admin.delete(CLUSTER_POLICIES, name)
        eventually(lambda: name not in self.served(), f"{name} gone")

    def make(self, name: str, by: Client | None = None, **metadata: object) -> dict[str, str]:
        """Create a namespace; its labels as admission left them."""
        document: Document = {"metadata": {"name": name} | metadata}
        made = (by or self.admin).create(NAMESPACES, document, manager="test")
        return strings(mapping(made, "metadata"), "labels")

    def webhooks(self) -> dict[str, Document]:
        """Registered for policies, by name."""
        live = self.admin.get(MUTATING_WEBHOOKS, "ringfence")
        found = {text(each, "name"): dict(each) for each in mappings(live, "webhooks")}
        return {
            name: each for name, each in found.items() if name.endswith("policies.ringfence.io")
        }


@pytest.fixture(scope="module")
def running(programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with cluster(tmp_path_factory.mktemp("policies")) as made:
        sample = str(SAMPLES / "add-rolebinding.yaml")
        both = ("--policies", "cluster", "--policies", sample)
        grant(made, "controller", *both, "--install-policy-crds")
        grant(made, "webhook", "--policies", "cluster")
        kubeconfig = made.plane.service_account_kubeconfig(SYSTEM, "ringfence-webhook")
        controller = made.controller("--policies", "cluster", "--install-policy-crds")
        (port,) = free_ports(1)
        webhook = made.webhook(
            *("--policies", "cluster", "--kubeconfig", kubeconfig),
            *("--metrics-listen", f"127.0.0.1:{port}"),
        )
        eventually(controller.in_force, f"admission in force: {controller.log}")
        yield Running(made, controller, webhook, port)


def grant(made: Cluster, part: str, *options: str) -> None:
    """The rights that the command prints for these options."""
    rules = subprocess.run(
        [COMMAND, part, "rules", *options], capture_output=True, text=True, check=True
    ).stdout
    made.plane.kubectl("apply", "-f", "-", stdin=rules)


def policy(name: str, *rules: Document, kind: str = "ClusterPolicy", **spec: object) -> Document:
    meta: Document = {"name": name}
    if kind == "Policy":
        meta["namespace"] = "default"
    named = [{"name": f"rule-{number}", **rule} for number, rule in enumerate(rules)]
    return {
        "apiVersion": "kyverno.io/v1",
        "kind": kind,
        "metadata": meta,
        "spec": {"rules": named, **spec},
    }


def labelling(prefix: str, labels: Document, **more: object) -> Document:
    """A rule that labels namespaces of a prefix."""
    resources: Document = {"kinds": ["Namespace"], "names": [f"{prefix}*"]}
    patch: Document = {"patchStrategicMerge": {"metadata": {"labels": labels}}}
    return {"match": {"any": [{"resources": resources}]}, "mutate": patch, **more}


def sample(name: str) -> Document:
    """A public sample, unmodified."""

    (root,) = documents((SAMPLES / f"{name}.yaml").read_bytes(), name)
    found = plain(root)
    assert isinstance(found, dict)
    return dict(found)


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
    running.apply(policy(prefix, rule))
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
        eventually(
            lambda: "left alone: Kyverno" in running.cluster.status()["policies"], "status says so"
        )
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
        PolicyKinds(fresh.admin).step()
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
