"""The agent as a process on a real node: real manifests, real programs, real connections."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from enforcer.answers import control
from enforcer.commands.show import status_text
from generators.documents.json import mappings
from generators.isolation.record import RecordEntry, record_documents
from tests.enforcer.node import Node, deny_ingress, stop
from tests.testbed.waiting import patience

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(120)]

TENANTS = """
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
labelKey: client
tenants:
  - {name: t1, namespaces: {names: [t1]}}
  - {name: t2, namespaces: {names: [t2]}}
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    try:
        made.build()
        yield made
    finally:
        made.remove()


def namespace(name: str, labels: Mapping[str, str] | None = None) -> Mapping[str, object]:
    metadata = {"name": name, "uid": f"uid-{name}", "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def test_a_policy_is_in_force_when_the_agent_says_so(node: Node) -> None:
    agent = node.start()
    open_ = node.wait(node.write(*node.pods()), agent)
    assert open_["notEnforced"] == []
    assert [node.reaches("t2/b", "t1/a", family) for family in (4, 6)] == [True, True]

    closed = node.wait(node.write(*node.pods(), deny_ingress("t1")), agent)
    assert closed.get("error") is None
    assert [node.reaches("t2/b", "t1/a", family) for family in (4, 6)] == [False, False]
    assert node.reaches("t1/a", "t2/b")

    node.wait(node.write(*node.pods()), agent)
    assert node.reaches("t2/b", "t1/a")


def test_status_names_the_pods_that_still_adopt_connections(node: Node) -> None:
    node.wait(node.write(*node.pods()), node.start())
    status = control.ask(node.run_dir, {"command": "status"})
    told = mappings(status["adopting"])
    assert [f"{pod['namespace']}/{pod['pod']}" for pod in told] == ["t1/a", "t2/b"]
    assert all(0 < float(str(pod["secondsLeft"])) <= 30 for pod in told)
    rows = [line for line in status_text(status).splitlines() if line.startswith("Adopting")]
    assert [row.split()[1] for row in rows] == ["t1/a:", "t2/b:"]


def test_a_bad_file_leaves_the_last_good_input_in_force(node: Node) -> None:
    agent = node.start()
    node.wait(node.write(*node.pods(), deny_ingress("t1")), agent)
    broken = {**deny_ingress("t1"), "spec": {"podSelector": {}, "policyTypes": ["Sideways"]}}

    answer = node.wait(node.write(*node.pods(), broken), agent)

    assert "cluster.json" in str(answer["error"])
    status = control.ask(node.run_dir, {"command": "status"})
    assert status["revision"] == 1
    assert "manifests" in str(status["errors"])
    assert not node.reaches("t2/b", "t1/a")


def test_a_bad_tenant_file_keeps_the_last_good_wall_and_new_policies_still_come(
    node: Node,
) -> None:
    tenants = node.directory / "tenants.yaml"
    tenants.write_text(TENANTS)
    record = record_documents(
        {"uid-t1": RecordEntry("t1", "t1"), "uid-t2": RecordEntry("t2", "t2")}
    )
    base = [namespace("t1"), namespace("t2"), *record, *node.pods()]
    agent = node.start("-c", str(tenants))
    node.wait(node.write(*base), agent)
    assert not node.reaches("t2/b", "t1/a")

    tenants.write_text("kind: Nonsense\n")
    answer = node.wait(node.write(*base, deny_ingress("t2")), agent)

    assert answer.get("error") is None
    status = control.ask(node.run_dir, {"command": "status"})
    assert status["mode"] == "strict"
    assert "tenants.yaml" in str(status["errors"])
    assert not node.reaches("t2/b", "t1/a")


def test_a_label_without_record_is_in_quarantine(node: Node) -> None:
    tenants = node.directory / "tenants.yaml"
    tenants.write_text(TENANTS)
    forged = namespace("t2", {"client": "t1"})
    record = record_documents({"uid-t1": RecordEntry("t1", "t1")})
    agent = node.start("-c", str(tenants))
    node.wait(node.write(namespace("t1"), forged, *record, *node.pods()), agent)
    assert not node.reaches("t2/b", "t1/a")
    assert not node.reaches("t1/a", "t2/b")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_enforcement_outlives_the_agent_and_the_next_one_takes_the_pins_over(
    node: Node, how: signal.Signals
) -> None:
    agent = node.start()
    digest = node.write(*node.pods(), deny_ingress("t1"))
    node.wait(digest, agent)
    pins = sorted(os.listdir(node.pin_dir))

    ended = stop(agent, how)

    assert ended == (0 if how is signal.SIGTERM else -signal.SIGKILL)
    assert not node.reaches("t2/b", "t1/a")
    assert node.reaches("t1/a", "t2/b")
    again = node.start()
    assert node.wait(digest, again).get("error") is None
    assert sorted(os.listdir(node.pin_dir)) == pins
    assert node.log.count("programs_loaded") == 1
    assert not node.reaches("t2/b", "t1/a")
    assert node.reaches("t1/a", "t2/b")


def test_an_agent_that_has_read_nothing_yet_deletes_nothing(node: Node) -> None:
    agent = node.start()
    node.wait(node.write(*node.pods(), deny_ingress("t1")), agent)
    stop(agent)
    (node.manifests / "cluster.json").unlink()

    again = node.start()
    answer = control_when_up(node, again, {"command": "status"})

    assert answer["ready"] is False
    assert not node.reaches("t2/b", "t1/a")


def test_a_second_agent_on_the_same_directories_refuses(node: Node) -> None:
    agent = node.start()
    node.wait(node.write(*node.pods()), agent)
    second = subprocess.run(node.arguments(), capture_output=True, text=True, timeout=patience(60))
    assert second.returncode == 1
    assert "another agent" in second.stderr
    assert agent.poll() is None


def test_a_pod_without_interface_is_reported_and_enforced_once_it_has_one(node: Node) -> None:
    agent = node.start()
    late = json.loads(json.dumps(node.pods(["t2/b"])[0]).replace("rft2", "rft3"))
    late["metadata"]["name"] = "late"
    late["status"] = {"phase": "Running", "podIPs": [{"ip": "10.7.0.3"}, {"ip": "fd07::3"}]}
    digest = node.write(*node.pods(), late, deny_ingress("t2"))
    answer = node.wait(digest, agent)
    assert answer["notEnforced"] == [
        {
            "namespace": "t2",
            "pod": "late",
            "reason": "no interface rft3 in the agent's network namespace",
        }
    ]

    node.add_pod("t2/late", 3)
    node.wait_until_enforced()

    assert not node.reaches("t1/a", "t2/late")


def test_what_does_not_fit_closes_its_owner_alone(node: Node) -> None:
    agent = node.start("--map-size=cidr_map=8192")
    node.wait(node.write(*node.pods(), deny_ingress("t1")), agent)
    blocks = [{"ipBlock": {"cidr": f"10.{64 + i // 256}.{i % 256}.0/24"}} for i in range(8193)]
    huge = {
        **deny_ingress("t1"),
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": blocks}]},
    }
    node.add_pod("t2/late", 3)

    node.wait(node.write(*node.pods(), huge), agent)

    assert not node.reaches("t2/b", "t1/a")
    assert node.reaches("t2/late", "t2/b")
    status = control.ask(node.run_dir, {"command": "status"})
    assert "closed for ingress" in str(status["withoutRoom"])
    assert "cidr_map" in str(status["withoutRoom"])


def test_flows_and_metrics_tell_who_dropped(node: Node) -> None:
    agent = node.start("--metrics-listen", "127.0.0.1:9464")
    node.wait(node.write(*node.pods(), deny_ingress("t1")), agent)
    assert not node.reaches("t2/b", "t1/a")
    flows = control.stream(node.run_dir, {"command": "flows", "last": 10, "follow": True})
    drop = next(
        line
        for line in flows
        if line["judgement"]["verdict"] == "DROPPED"  # type: ignore[index]
    )
    assert drop["judgement"] == {
        "verdict": "DROPPED",
        "reason": "POLICY_DENIED",
        "rule": None,
        "policies": ["t1/deny"],
    }
    counted = 'ringfence_drop_count_total{direction="INGRESS",reason="POLICY_DENIED",tenant=""}'
    assert counted in node.scrape(9464)


def control_when_up(
    node: Node, process: subprocess.Popen[bytes], request: control.Request
) -> control.Answer:
    while True:
        try:
            return control.ask(node.run_dir, request)
        except control.AgentAway:
            if process.poll() is not None:
                raise
            os.sched_yield()
