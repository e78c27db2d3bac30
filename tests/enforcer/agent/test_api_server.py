"""The agent on a real API server: what is written there is what packets meet on the node."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from generators.kube.resources import NAMESPACES
from tests.enforcer.agent.cluster import Cluster, policy
from tests.enforcer.faults.traffic import Cast, Traffic, unharmed
from tests.testbed.waiting import eventually

pytestmark = [pytest.mark.bpf, pytest.mark.cluster, pytest.mark.timeout(180)]

Name = Callable[[str], str]


@pytest.fixture
def two(cluster: Cluster, name: Name) -> tuple[str, str]:
    """Two pods in two namespaces, under enforcement: server and client."""
    a, b = name("a"), name("b")
    cluster.namespace(a, {"team": "a"})
    cluster.namespace(b, {"team": "b"})
    cluster.pod(a, "server")
    cluster.pod(b, "client")
    cluster.wait_enforced(f"{a}/server", f"{b}/client")
    return f"{a}/server", f"{b}/client"


def test_policies_labels_and_pods_of_the_api_server_reach_the_packets(
    cluster: Cluster, two: tuple[str, str]
) -> None:
    server, client = two
    a, b = (key.partition("/")[0] for key in two)
    assert cluster.reaches(client, server)

    cluster.policy(policy(a, "deny"))
    cluster.eventually_reaches(client, server, expected=False)
    assert cluster.reaches(server, client)

    peer = {"from": [{"namespaceSelector": {"matchLabels": {"team": "b"}}}]}
    cluster.policy(policy(a, "deny", ingress=[peer]))
    cluster.eventually_reaches(client, server)
    cluster.label(b, {"team": "c"})
    cluster.eventually_reaches(client, server, expected=False)
    cluster.label(b, {"team": "b"})
    cluster.eventually_reaches(client, server)

    cluster.delete_policy(a, "deny")
    cluster.policy(policy(b, "late"))
    cluster.eventually_reaches(server, client, expected=False)
    status = cluster.ask("status")
    assert status["errors"] == {}
    assert status["notEnforced"] == []


def test_a_pod_of_the_same_name_and_a_new_uid_is_another_endpoint(
    cluster: Cluster, two: tuple[str, str]
) -> None:
    server, client = two
    before = cluster.endpoints()[server]
    cluster.delete_pod(server)
    cluster.pod_behind(server)
    eventually(
        lambda: cluster.endpoints().get(server, before)["id"] != before["id"],
        "a new endpoint",
    )
    cluster.wait_enforced(server)
    assert cluster.endpoints()[server]["ifindex"] == before["ifindex"]
    cluster.eventually_reaches(client, server)


def test_a_terminal_pod_leaves_and_its_address_may_be_another_ones(
    cluster: Cluster, two: tuple[str, str], name: Name
) -> None:
    server, client = two
    a = server.partition("/")[0]
    cluster.policy(policy(a, "only-b", ingress=[{"from": [{"podSelector": {}}]}]))
    cluster.eventually_reaches(client, server, expected=False)
    cluster.status(client, {"phase": "Succeeded"})
    eventually(lambda: client not in cluster.endpoints(), "the finished pod is gone")

    heir = f"{a}/heir"
    cluster.node.wires[heir] = cluster.node.wires[client]
    cluster.pod_behind(heir)
    cluster.wait_enforced(heir)
    cluster.eventually_reaches(heir, server)


def test_policies_of_a_terminating_namespace_outlive_their_deletion_and_a_restart_of_the_agent(
    cluster: Cluster, two: tuple[str, str]
) -> None:
    server, client = two
    a = server.partition("/")[0]
    cluster.policy(policy(a, "deny"))
    cluster.eventually_reaches(client, server, expected=False)
    cluster.client.delete(NAMESPACES, a)
    eventually(lambda: _terminates(cluster, a), "it terminates")
    # Namespace controllers before 1.34 empty a namespace in any order.
    cluster.delete_policy(a, "deny")
    cluster.policy(policy(client.partition("/")[0], "after"))
    cluster.eventually_reaches(server, client, expected=False)

    assert not cluster.reaches(client, server)
    cluster.end_agent(signal.SIGKILL)
    cluster.start_agent()
    cluster.wait_enforced(server, client)
    assert not cluster.reaches(client, server)

    cluster.delete_pod(server)
    eventually(lambda: server not in cluster.endpoints(), "the endpoint is gone")


def test_while_the_api_server_is_away_nothing_opens_and_nothing_good_is_cut(
    cluster: Cluster, two: tuple[str, str]
) -> None:
    server, client = two
    a, b = (key.partition("/")[0] for key in two)
    cluster.policy(policy(a, "deny"))
    cluster.eventually_reaches(client, server, expected=False)
    cluster.relay.cut()

    cluster.delete_policy(a, "deny")
    cluster.policy(policy(b, "deny"))
    assert not cluster.reaches(client, server)
    assert cluster.reaches(server, client)
    cluster.end_agent()
    cluster.start_agent()
    eventually(lambda: "ready" in cluster.status_of_agent(), "the next agent is up")
    assert cluster.ask("status")["ready"] is False
    assert not cluster.reaches(client, server)
    assert cluster.reaches(server, client)

    cluster.relay.restore()
    cluster.wait_enforced(server, client)
    cluster.eventually_reaches(client, server)
    cluster.eventually_reaches(server, client, expected=False)


def test_pods_come_and_go_under_traffic_while_the_api_server_is_away(
    cluster: Cluster, two: tuple[str, str], name: Name
) -> None:
    isolated, friend = two
    a, c = isolated.partition("/")[0], name("c")
    cluster.namespace(c)
    cluster.pod(c, "stranger")
    cluster.pod(c, "goes")
    cluster.policy(policy(a, "deny"))
    cluster.wait_enforced(f"{c}/stranger", f"{c}/goes")
    cluster.eventually_reaches(f"{c}/stranger", isolated, expected=False)
    with Traffic(cluster.node, cast=Cast(isolated, friend, f"{c}/stranger")).started() as traffic:
        cluster.relay.cut()
        cluster.delete_pod(f"{c}/goes")
        cluster.pod(c, "comes")
        cluster.policy(policy(c, "deny"))
        traffic.wait_for_more(200)
        cluster.relay.restore()
        cluster.wait_enforced(f"{c}/comes")
        eventually(lambda: f"{c}/goes" not in cluster.endpoints(), "the pod is gone")
        cluster.eventually_reaches(isolated, f"{c}/comes", expected=False)
    assert unharmed(traffic.tally), traffic.tally


def test_what_the_api_server_refuses_to_show_is_said_and_what_was_in_force_stays(
    cluster: Cluster, two: tuple[str, str]
) -> None:
    server, client = two
    cluster.policy(policy(server.partition("/")[0], "deny"))
    cluster.eventually_reaches(client, server, expected=False)
    cluster.end_agent()
    cluster.start_agent(kubeconfig=cluster.plane.kubeconfig("nobody", ()))

    def refused() -> bool:
        return "refuses access to pods" in str(cluster.status_of_agent().get("errors"))

    eventually(refused, "the refusal is told")
    assert cluster.ask("status")["ready"] is False
    assert not cluster.reaches(client, server)
    assert cluster.reaches(server, client)
    assert "forbidden" in cluster.log()
    cluster.end_agent()
    cluster.start_agent()
    cluster.wait_enforced(server, client)


def _terminates(cluster: Cluster, namespace: str) -> bool:
    metadata = cluster.client.get(NAMESPACES, namespace)["metadata"]
    return isinstance(metadata, dict) and "deletionTimestamp" in metadata
