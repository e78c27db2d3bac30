"""When agents have left the nodes, read from their DaemonSet, and what is said if they have not."""

from __future__ import annotations

import pytest

from generators.documents.json import Document
from webhook.install.agents_gone import Agents, AgentsReport, judge

RUN = {"containers": [{"name": "enforcer", "args": ["enforcer", "run", "--node-name=n"]}]}
REMOVE = {
    "initContainers": [{"name": "remove", "args": ["enforcer", "uninstall", "--pin-dir=/x"]}],
    "containers": [{"name": "enforcer", "command": ["sleep", "infinity"]}],
}


def daemon_set(pod: object, observed: int, nodes: int, updated: int, available: int) -> Document:
    return {
        "metadata": {"generation": 2},
        "spec": {"template": {"spec": pod}},
        "status": {
            "observedGeneration": observed,
            "desiredNumberScheduled": nodes,
            "updatedNumberScheduled": updated,
            "numberAvailable": available,
        },
    }


LOOKS = {
    "agents run": (daemon_set(RUN, 2, 3, 3, 3), AgentsReport(Agents.RUNNING)),
    "agents run, on no node yet": (daemon_set(RUN, 2, 0, 0, 0), AgentsReport(Agents.RUNNING)),
    "removal not begun": (daemon_set(REMOVE, 1, 3, 3, 3), AgentsReport(Agents.LEAVING, 0, 3)),
    "old pods are available": (daemon_set(REMOVE, 2, 3, 1, 3), AgentsReport(Agents.LEAVING, 1, 3)),
    "new pods are not ready": (daemon_set(REMOVE, 2, 3, 3, 2), AgentsReport(Agents.LEAVING, 2, 3)),
    "every node is clean": (daemon_set(REMOVE, 2, 3, 3, 3), AgentsReport(Agents.GONE, 3, 3)),
    "there is no node": (daemon_set(REMOVE, 2, 0, 0, 0), AgentsReport(Agents.GONE)),
    "no status yet": (
        {"metadata": {"generation": 1}, "spec": {"template": {"spec": REMOVE}}},
        AgentsReport(Agents.LEAVING),
    ),
}


@pytest.mark.parametrize("case", LOOKS)
def test_agents_are_gone_when_a_pod_that_cleaned_is_ready_on_every_node(case: str) -> None:
    found, wanted = LOOKS[case]
    assert judge(found) == wanted


def test_running_agents_are_told_with_the_commands_that_make_them_leave() -> None:
    told = AgentsReport(Agents.RUNNING).told("system", ["helm upgrade", "kubectl rollout"])
    assert told.startswith("DaemonSet system/ringfence-enforcer still runs agents: ")
    assert told.endswith("nodes first, then try again:\n  helm upgrade\n  kubectl rollout")
    assert AgentsReport(Agents.RUNNING).told("system", []).endswith("first, then try again")


def test_leaving_agents_are_told_with_how_far_they_are() -> None:
    told = AgentsReport(Agents.LEAVING, 2, 3).told("system", ["helm upgrade"])
    assert "cleaned 2 of 3 nodes" in told
    assert told.endswith("kubectl rollout status --namespace system daemonset/ringfence-enforcer")
