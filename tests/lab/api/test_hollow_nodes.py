"""A person with kubectl makes namespaces and pods, and packets show who is kept apart."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace

import pytest

from lab import netns
from lab.api.enforcement import Asked
from lab.journal import Stage
from tests.conftest import Run
from tests.lab.api.hollow import ApiLab
from tests.lab.builders import CLUSTER, TENANTS, namespace, pod
from tests.lab.conftest import Cell, key_of
from tests.testbed.waiting import eventually, patience

pytestmark = [pytest.mark.bpf, pytest.mark.cluster, pytest.mark.timeout(240)]

Name = Callable[[str], str]


def on(text: str, lab: ApiLab, number: int) -> str:
    """The same pod, bound to that node."""
    return text.replace("spec: {", f"spec: {{nodeName: {lab.places.name}-{number}, ")


@pytest.fixture
def tenant(unique_name: Callable[[str], str]) -> Name:
    """`tenant("test01")` -> a namespace name that the example's tenant file gives to test01."""
    return lambda name: f"{unique_name('n')}-{name}"


def test_packets_on_an_api_server_fare_as_the_evaluator_says(
    hollow: ApiLab, ringfence: Run
) -> None:
    asked = ringfence("matrix", "-o", "json", "-c", TENANTS, "-f", CLUSTER)
    cells: list[Cell] = json.loads(asked.stdout)["cells"]
    wanted = {key_of(cell): cell["verdict"] for cell in cells}
    found = {key: cell["verdict"] for key, cell in hollow.probe().items() if key in wanted}
    assert found == wanted


def test_pods_are_spread_over_the_nodes_and_say_where_they_are(hollow: ApiLab) -> None:
    listed = json.loads(hollow.kubectl("get", "pods", "-A", "-o", "json"))["items"]
    own = [item for item in listed if item["metadata"]["namespace"] == "app-test01"]
    assert {item["spec"]["nodeName"] for item in own} <= {
        f"{hollow.places.name}-1",
        f"{hollow.places.name}-2",
    }
    for item in own:
        assert item["status"]["phase"] == "Running"
        assert len(item["status"]["podIPs"]) == 2
        assert item["status"]["hostIP"] != item["status"]["podIP"]
        assert all(c["ready"] for c in item["status"]["containerStatuses"])


def test_isolation_holds_within_a_node_and_between_nodes(hollow: ApiLab, tenant: Name) -> None:
    ours, theirs = tenant("test01"), tenant("test02")
    text = namespace(ours) + namespace(theirs)
    for number in (1, 2):
        text += on(pod(f"{ours}/p{number}"), hollow, number)
        text += on(pod(f"{theirs}/p{number}"), hollow, number)
    keys = [f"{space}/p{number}" for space in (ours, theirs) for number in (1, 2)]
    hollow.make(text, *keys)
    for near in (f"{ours}/p1", f"{ours}/p2"):
        hollow.becomes("FORWARDED", f"{ours}/p1", near)
        hollow.becomes("DROPPED", f"{theirs}/p1", near)
    cells = hollow.probe("--from", f"{theirs}/p1", "--to", f"{ours}/p2", "--port", "80/TCP")
    for cell in cells.values():
        assert cell["ingress"] is not None
        assert (cell["ingress"]["reason"], cell["ingress"]["rule"]) == (
            "TENANT_WALL",
            "tenant/test01#wall",
        )


def test_labels_and_policies_change_what_packets_do(hollow: ApiLab, tenant: Name) -> None:
    space = tenant("test01")
    pair = on(pod(f"{space}/a", app="a"), hollow, 1) + on(pod(f"{space}/b", app="b"), hollow, 2)
    hollow.make(namespace(space) + pair, f"{space}/a", f"{space}/b")
    hollow.becomes("FORWARDED", f"{space}/a", f"{space}/b")
    hollow.kubectl("apply", "-f", "-", stdin=_only_friends(space))
    # The generated policy lets the whole tenant in, so the two are one answer: allowed.
    hollow.becomes("FORWARDED", f"{space}/a", f"{space}/b")
    hollow.kubectl("apply", "-f", "-", stdin=_no_egress(space))
    hollow.becomes("DROPPED", f"{space}/a", f"{space}/b")
    hollow.kubectl("label", "pod", "-n", space, "a", "free=yes")
    hollow.becomes("FORWARDED", f"{space}/a", f"{space}/b")
    hollow.kubectl("label", "pod", "-n", space, "a", "free-")
    hollow.becomes("DROPPED", f"{space}/a", f"{space}/b")
    hollow.kubectl("delete", "networkpolicy", "-n", space, "no-egress")
    hollow.becomes("FORWARDED", f"{space}/a", f"{space}/b")


def test_a_namespace_that_an_admin_moves_changes_sides(hollow: ApiLab, tenant: Name) -> None:
    space, other = tenant("test01"), tenant("test02")
    text = namespace(space) + namespace(other) + pod(f"{space}/a") + pod(f"{other}/b")
    hollow.make(text, f"{space}/a", f"{other}/b")
    hollow.becomes("DROPPED", f"{other}/b", f"{space}/a")
    hollow.kubectl("label", "namespace", space, "--overwrite", "client=test02")
    hollow.becomes("FORWARDED", f"{other}/b", f"{space}/a")


def test_a_pod_that_only_a_finalizer_keeps_stops_no_probe_of_others(
    hollow: ApiLab, tenant: Name
) -> None:
    space = tenant("test01")
    kept = pod(f"{space}/kept").replace("name: kept", "name: kept, finalizers: [example.com/keep]")
    hollow.make(namespace(space) + pod(f"{space}/a") + kept, f"{space}/a", f"{space}/kept")
    try:
        hollow.kubectl("delete", "pod", "-n", space, "kept", "--wait=false")
        where = hollow.places.pod_netns(space, "kept")
        eventually(lambda: not netns.exists(where), "the pod's network is gone")
        assert hollow.probe("--from", f"{space}/a", "--port", "80/TCP")
    finally:
        gone = '{"metadata": {"finalizers": null}}'
        hollow.kubectl("patch", "pod", "-n", space, "kept", "--type=merge", "-p", gone)


def test_a_deleted_pod_leaves_nothing(hollow: ApiLab, tenant: Name) -> None:
    space = tenant("test01")
    hollow.make(namespace(space) + on(pod(f"{space}/a"), hollow, 1), f"{space}/a")
    name = hollow.places.pod_netns(space, "a")
    assert netns.exists(name)
    assert "deleted" in hollow.ok("delete", "pod", f"{space}/a")
    eventually(lambda: not netns.exists(name), "network namespace goes")
    assert f"{space}/a" not in hollow.held()
    again = hollow("delete", "pod", f"{space}/a")
    assert (again.returncode, "NotFound" in again.stderr) == (1, True)


@pytest.mark.parametrize("node", [1, 2], ids=["same node", "other node"])
def test_a_pod_made_again_under_its_name_is_another_one(
    hollow: ApiLab, tenant: Name, node: int
) -> None:
    space = tenant("test01")
    text = on(pod(f"{space}/a"), hollow, 1)
    hollow.make(namespace(space) + text, f"{space}/a")
    before = hollow.held()[f"{space}/a"]
    hollow.kubectl("delete", "pod", "-n", space, "a", "--force", "--grace-period=0")
    hollow.make(on(pod(f"{space}/a"), hollow, node), f"{space}/a")
    after = hollow.held()[f"{space}/a"]
    assert after.uid != before.uid
    assert not {*after.addresses} & {*before.addresses}, "addresses linger in caches"
    hollow.becomes("FORWARDED", "ingress/nginx", f"{space}/a")
    hollow.becomes("DROPPED", "app-test02/web", f"{space}/a")


def test_a_deployment_scales_up_and_down(hollow: ApiLab, tenant: Name) -> None:
    space = tenant("test01")
    hollow.make(namespace(space) + _deployment(space, replicas=3))
    hollow.kubectl(
        "rollout", "status", "-n", space, "deployment/web", f"--timeout={patience(60):.0f}s"
    )
    held = [key for key in hollow.held() if key.startswith(f"{space}/")]
    assert len(held) == 3
    hollow.kubectl("scale", "-n", space, "deployment/web", "--replicas=1")
    eventually(
        lambda: sum(key.startswith(f"{space}/") for key in hollow.held()) == 1, "two pods end", 30
    )


def test_a_service_leads_to_its_pods_and_the_policy_judges_them(
    hollow: ApiLab, tenant: Name
) -> None:
    space, other = tenant("test01"), tenant("test02")
    text = namespace(space) + namespace(other) + _deployment(space, replicas=2)
    text += _service(space) + pod(f"{space}/client") + pod(f"{other}/client")
    hollow.make(text, f"{space}/client", f"{other}/client")
    hollow.kubectl(
        "rollout", "status", "-n", space, "deployment/web", f"--timeout={patience(60):.0f}s"
    )
    service = json.loads(hollow.kubectl("get", "service", "-n", space, "web", "-o", "json"))

    def answers(source: str, calls: int = 1) -> set[str]:
        """Who answered on the Service's addresses."""
        urls = " ".join(
            f"http://[{a}]:8080/" if ":" in a else f"http://{a}:8080/"
            for a in service["spec"]["clusterIPs"] * calls
        )
        each = f"for url in {urls}; do curl -gs --max-time 1 $url; done"
        return {*hollow("exec", f"{source}/client", "--", "sh", "-c", each).stdout.split()}

    backends = {key for key in hollow.held() if key.startswith(f"{space}/web-")}
    assert (len(backends), len(service["spec"]["clusterIPs"])) == (2, 2)
    eventually(lambda: answers(space, 16) == backends, "both pods answer", 30)
    assert answers(other) == set()


def test_pods_outlive_their_kubelet(hollow: ApiLab, tenant: Name) -> None:
    space = tenant("test01")
    hollow.make(namespace(space) + on(pod(f"{space}/a"), hollow, 2), f"{space}/a")
    kubelet = f"kubelet-{hollow.places.name}-2"
    os.kill(hollow.pid(kubelet), signal.SIGKILL)
    assert hollow.reaches("ingress/nginx", f"{space}/a", "80/TCP") == {"FORWARDED"}
    assert hollow.reaches("app-test02/web", f"{space}/a", "80/TCP") == {"DROPPED"}
    hollow.kubectl("delete", "pod", "-n", space, "a", "--wait=false")
    hollow.kubectl("apply", "-f", "-", stdin=on(pod(f"{space}/b"), hollow, 2))
    hollow.ok("apply", "-c", TENANTS)  # starts what does not run
    hollow.ready(f"{space}/b")
    eventually(
        lambda: not netns.exists(hollow.places.pod_netns(space, "a")), "a goes when it is back", 30
    )
    assert hollow.reaches("ingress/nginx", f"{space}/b", "80/TCP") == {"FORWARDED"}


def test_a_pod_starts_only_behind_its_node_s_agent(hollow: ApiLab, tenant: Name) -> None:
    space, node = tenant("test01"), hollow.places.node(f"{hollow.places.name}-2")
    hollow.kubectl("create", "namespace", space)
    os.kill(hollow.pid(node.enforcer), signal.SIGKILL)
    hollow.make(on(pod(f"{space}/late"), hollow, 2))
    eventually(lambda: f"{space}/late" in hollow.held(), "its sandbox is made")
    assert hollow.held()[f"{space}/late"].stage is not Stage.CONNECTED
    assert hollow.kubectl("get", "pod", "-n", space, "late", "-o", "jsonpath={.status.podIP}") == ""
    hollow.ok("apply", "-c", TENANTS)
    hollow.ready(f"{space}/late")
    hollow.becomes("FORWARDED", "ingress/nginx", f"{space}/late")
    hollow.becomes("DROPPED", "app-test02/web", f"{space}/late")


def test_without_the_plugin_the_agent_is_asked(hollow: ApiLab) -> None:
    sandbox = hollow.held()["app-test01/web"]
    agents = [hollow.places.node(f"{hollow.places.name}-{n}").enforcer_run for n in (1, 2)]
    assert [Asked(agent).in_force(sandbox) for agent in agents].count(True) == 1
    stranger = replace(sandbox, addresses=("10.0.0.1", "fd00::1"))
    assert not any(Asked(agent).in_force(stranger) for agent in agents)


def test_pods_on_the_node_s_network_answer_there(hollow: ApiLab, tenant: Name) -> None:
    space = tenant("test01")
    host = on(pod(f"{space}/host", 7777), hollow, 1).replace("{node", "{hostNetwork: true, node")
    hollow.make(namespace(space) + host, f"{space}/host")
    found = json.loads(hollow.kubectl("get", "pod", "-n", space, "host", "-o", "json"))["status"]
    assert found["podIPs"] == [{"ip": a["ip"]} for a in found["hostIPs"]]
    hollow.becomes("FORWARDED", "sandbox/visitor", f"{space}/host", "7777/TCP")


def test_a_refusal_is_printed_as_kubectl_prints_it(hollow: ApiLab, tenant: Name) -> None:
    hollow.try_kubectl(
        *("create", "clusterrolebinding", "dana", "--clusterrole=cluster-admin", "--user=dana")
    )
    name = tenant("test02")
    who = ("--as", "dana", "--as-group", "team-test01")
    done = hollow("apply", *who, "-f", "-", stdin=namespace(name))
    assert done.returncode == 1
    assert "Error from server (Forbidden)" in done.stderr
    assert "denied the request" in done.stderr
    mine = tenant("test01")
    assert f"namespace/{mine} created" in hollow.ok("apply", *who, "-f", "-", stdin=namespace(mine))
    labels = json.loads(hollow.ok("get", "namespace", mine, "-o", "json"))["metadata"]["labels"]
    assert labels["client"] == "test01"


def test_status_names_both_nodes_and_every_pod_is_enforced(hollow: ApiLab) -> None:
    status = json.loads(hollow.ok("status", "-o", "json"))
    assert [node["name"] for node in status["nodes"]] == [
        f"{hollow.places.name}-1",
        f"{hollow.places.name}-2",
    ]
    assert status["notRunning"] == []
    example = {"app-test01", "app-test02", "sandbox"}
    assert all(pod["enforced"] for pod in status["pods"] if pod["namespace"] in example)


def _only_friends(space: str) -> str:
    return f"""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: friends, namespace: {space}}}
spec:
  podSelector: {{}}
  policyTypes: [Ingress]
  ingress: [{{from: [{{podSelector: {{matchLabels: {{friend: "yes"}}}}}}]}}]
"""


def _no_egress(space: str) -> str:
    return f"""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: no-egress, namespace: {space}}}
spec:
  podSelector: {{matchExpressions: [{{key: free, operator: DoesNotExist}}]}}
  policyTypes: [Egress]
"""


def _deployment(space: str, replicas: int) -> str:
    return f"""
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: {space}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec: {{containers: [{{name: main, image: main, ports: [{{containerPort: 80}}]}}]}}
"""


def _service(space: str) -> str:
    return f"""
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: {space}}}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {{app: web}}
  ports: [{{port: 8080, targetPort: 80}}]
"""
