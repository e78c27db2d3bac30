"""The example in a lab: real connections against the written meaning of policies."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache

import pytest

from lab.names import Shape
from tests.conftest import Run
from tests.lab.builders import CLUSTER, TENANTS
from tests.lab.conftest import Cell, Key, Lab, fresh, key_of

pytestmark = pytest.mark.bpf

CLAIMS_THE_GATEWAY = """
apiVersion: v1
kind: Pod
metadata: {name: greedy, namespace: sandbox}
spec: {containers: [{name: c}]}
status: {phase: Running, podIPs: [{ip: 10.244.0.1}]}
"""


def evaluated(run: Run) -> dict[Key, Cell]:
    done = run("matrix", "-c", TENANTS, "-f", CLUSTER, "-o", "json")
    return {key_of(cell): cell for cell in json.loads(done.stdout)["cells"]}


def test_real_connections_agree_with_the_matrix_cell_by_cell(
    two_clients: Lab, ringfence: Run
) -> None:
    probed, expected = two_clients.probe(), evaluated(ringfence)
    verdicts = {key: cell["verdict"] for key, cell in probed.items()}
    assert verdicts == {key: cell["verdict"] for key, cell in expected.items()}


@pytest.mark.parametrize("shape", [Shape.PTP, Shape.BRIDGE])
def test_real_connections_fare_the_same_however_pods_are_wired(
    shape: Shape, ringfence: Run
) -> None:
    with fresh(ringfence) as lab:
        lab.ok("up", "--network", shape, "-c", TENANTS, "-f", CLUSTER)
        assert lab.status()["network"] == shape
        verdicts = {key: cell["verdict"] for key, cell in lab.probe().items()}
        claimed = lab.apply(CLAIMS_THE_GATEWAY)
    assert verdicts == {key: cell["verdict"] for key, cell in evaluated(ringfence).items()}
    assert claimed.returncode == 1
    assert f"10.244.0.1 is the node's own on network {shape}" in claimed.stderr


def test_the_kernel_s_reasons_and_rules_are_those_of_the_matrix(
    two_clients: Lab, ringfence: Run
) -> None:
    probed, expected = two_clients.probe(), evaluated(ringfence)
    assert {k: c["egress"] for k, c in probed.items()} == {
        k: c["egress"] for k, c in expected.items()
    }
    assert {k: c["ingress"] for k, c in probed.items()} == {
        k: c["ingress"] for k, c in expected.items()
    }


@pytest.fixture(scope="module")
def probed(two_clients: Lab) -> Callable[[str], dict[Key, Cell]]:
    """By port: what becomes of it between all pods; each is asked once."""
    return cache(lambda port: two_clients.probe("--port", port))


@pytest.mark.parametrize(
    ("source", "destination", "port", "verdict"),
    [
        ("monitoring-test01/prometheus", "app-test01/api", "9090/TCP", "FORWARDED"),
        ("ingress/nginx", "app-test01/web", "80/TCP", "FORWARDED"),
        ("ingress/nginx", "app-test02/web", "80/TCP", "FORWARDED"),
        ("app-test02/web", "app-test01/web", "80/TCP", "DROPPED"),
        ("sandbox/visitor", "app-test01/web", "80/TCP", "DROPPED"),
        ("app-test02/web", "kube-system/coredns", "53/UDP", "FORWARDED"),
        ("app-test01/web", "kube-system/coredns", "53/UDP", "FORWARDED"),
        ("app-test01/web", "sandbox/visitor", "80/TCP", "FORWARDED"),
        ("monitoring/prometheus", "app-test01/api", "9090/TCP", "FORWARDED"),
        ("monitoring/prometheus", "app-test01/api", "80/TCP", "DROPPED"),
        ("app-test02/web", "app-test01/web", "4711/TCP", "DROPPED"),
        ("app-test01/api", "app-test01/web", "4711/UDP", "FORWARDED"),
    ],
)
def test_who_reaches_whom_over_both_families(
    probed: Callable[[str], dict[Key, Cell]],
    source: str,
    destination: str,
    port: str,
    verdict: str,
) -> None:
    cells = [
        cell
        for cell in probed(port).values()
        if (cell["source"], cell["destination"]) == (source, destination)
    ]
    assert {cell["family"] for cell in cells} == {"IPv4", "IPv6"}
    assert {cell["verdict"] for cell in cells} == {verdict}


def test_get_shows_the_labels_that_the_webhook_put(two_clients: Lab) -> None:
    listed = json.loads(two_clients.ok("get", "namespaces", "-o", "json"))["items"]
    labels = {item["metadata"]["name"]: item["metadata"]["labels"] for item in listed}
    assert labels["app-test01"]["client"] == "test01"
    assert "client" not in labels["sandbox"]
    one = json.loads(two_clients.ok("get", "ns", "app-test02", "-o", "json"))
    assert one["metadata"]["labels"]["client"] == "test02"
    assert "client=test01" in two_clients.ok("get", "namespaces")


def test_get_says_what_is_not_there(two_clients: Lab) -> None:
    done = two_clients("get", "pods", "app-test01/nobody")
    assert done.returncode == 1
    assert "NotFound" in done.stderr


def test_generated_policies_are_there_to_see(two_clients: Lab) -> None:
    listed = json.loads(two_clients.ok("get", "networkpolicies", "-o", "json"))["items"]
    assert {item["metadata"]["namespace"] for item in listed} == {
        "app-test01",
        "app-test02",
        "monitoring-test01",
    }


def test_exec_runs_in_the_pod_and_gives_its_exit_code(two_clients: Lab) -> None:
    done = two_clients("exec", "app-test01/web", "--", "sh", "-c", "cat /proc/net/dev; exit 7")
    assert done.returncode == 7
    assert "eth0" in done.stdout
    addresses = {
        address
        for pod in two_clients.status()["pods"]
        if (pod["namespace"], pod["name"]) == ("app-test01", "web")
        for address in pod["addresses"]
    }
    table = two_clients.ok("exec", "app-test01/web", "--", "cat", "/proc/net/fib_trie")
    assert any(address in table for address in addresses)


def test_exec_of_a_command_that_is_not_there_is_the_shell_s_127(two_clients: Lab) -> None:
    assert two_clients("exec", "app-test01/web", "--", "no-such-command").returncode == 127


def test_exec_in_a_pod_that_is_not_there_is_refused(two_clients: Lab) -> None:
    done = two_clients("exec", "app-test01/nobody", "--", "true")
    assert done.returncode == 1
    assert 'pods "app-test01/nobody" not found' in done.stderr


def test_status_names_processes_pods_and_nothing_unenforced(two_clients: Lab) -> None:
    status = two_clients.status()
    assert {process["name"] for process in status["processes"]} == {
        "webhook",
        "enforcer",
        "responder",
    }
    assert len(status["pods"]) == 8
    assert status["notEnforced"] == []
    for pod in status["pods"]:
        assert pod["enforced"], pod
        assert pod["networkNamespace"].startswith(two_clients.places.node_netns)
        assert len(pod["addresses"]) == 2


def test_a_member_cannot_move_its_namespace_to_another_tenant(two_clients: Lab) -> None:
    theft = """
apiVersion: v1
kind: Namespace
metadata: {name: app-test01, labels: {client: test02}}
"""
    done = two_clients.apply(theft, "--as", "dana", "--as-group", "team-test01")
    assert done.returncode == 1
    assert "Error from server (Forbidden): " in done.stderr
    assert 'admission webhook "validate.ringfence.io" denied the request: ' in done.stderr
    assert "client=test01" in two_clients.ok("get", "ns", "app-test01")


@pytest.mark.parametrize(
    ("port", "expected", "code"),
    [
        ("80/TCP", "DROPPED", 0),
        ("80/TCP", "FORWARDED", 1),
        ("80/SCTP", "DROPPED", 1),  # not probed, so nothing is proven
    ],
)
def test_an_expectation_is_the_exit_code(
    two_clients: Lab, port: str, expected: str, code: int
) -> None:
    pair = ("--from", "sandbox/visitor", "--to", "app-test01/web")
    done = two_clients("probe", *pair, "--port", port, "--expect", expected)
    assert done.returncode == code, done.stderr


def test_a_lab_that_is_up_is_not_started_again(two_clients: Lab) -> None:
    done = two_clients("up", "-f", CLUSTER)
    assert done.returncode == 1
    assert "is up already" in done.stderr
    assert len(two_clients.status()["processes"]) == 3


def test_a_bad_manifest_is_refused_before_anything_changes(two_clients: Lab) -> None:
    done = two_clients.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: Not_A_Name}\n")
    assert done.returncode == 2
    assert "Not_A_Name" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("probe", "--from", "nobody/here"),
        ("probe", "--from", "203.0.113.5"),
        ("probe", "--port", "http"),
        ("get", "deployments"),
        ("delete", "pod"),
        ("exec", "web", "--", "true"),
        ("apply",),
    ],
    ids=" ".join,
)
def test_bad_usage_is_2_and_says_what_would_do(
    two_clients: Lab, arguments: tuple[str, ...]
) -> None:
    done = two_clients(*arguments)
    assert done.returncode == 2, done.stderr
    assert done.stderr
    assert "Traceback" not in done.stderr
