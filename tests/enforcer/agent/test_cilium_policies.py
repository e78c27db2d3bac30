"""Cilium's policies on a real API server: what is written there is what packets meet."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from generators.documents.json import Document
from generators.kube.client import Client, OnConflict
from generators.kube.errors import NotFound
from generators.kube.resources import (
    CILIUM_CLUSTERWIDE_POLICIES,
    CILIUM_POLICIES,
    CUSTOM_RESOURCES,
    Resource,
)
from tests.enforcer.agent.cluster import MANAGER, Cluster
from tests.testbed.plane import ControlPlane
from tests.testbed.waiting import eventually
from webhook.cilium.schema import documents

pytestmark = [pytest.mark.bpf, pytest.mark.cluster, pytest.mark.timeout(180)]

Name = Callable[[str], str]
KINDS = (CILIUM_POLICIES, CILIUM_CLUSTERWIDE_POLICIES)
MANY = 1_000
FROM_WEB = {"fromEndpoints": [{"matchLabels": {"app": "web"}}]}


@pytest.fixture(scope="module")
def api() -> Iterator[ControlPlane]:
    """One of this module's own: it says which kinds there are, and the server is stopped."""
    with ControlPlane() as plane:
        yield plane


@pytest.fixture(autouse=True)
def kinds(cluster: Cluster) -> Iterator[None]:
    """Both kinds are served before each test, and nothing of them is left after it."""
    install(cluster.client)
    yield
    for kind in KINDS:
        with suppress(NotFound):
            for found in cluster.client.list_all(kind):
                metadata = found["metadata"]
                assert isinstance(metadata, dict)
                home = str(metadata.get("namespace", ""))
                cluster.client.delete(kind, str(metadata["name"]), home)


def install(client: Client) -> None:
    for document in documents():
        client.apply(CUSTOM_RESOURCES, document, manager=MANAGER, on_conflict=OnConflict.FORCE)
    eventually(lambda: all(is_served(client, kind) for kind in KINDS), "both kinds are served")


def is_served(client: Client, kind: Resource) -> bool:
    try:
        client.list_all(kind)
    except NotFound:
        return False
    return True


def cnp(namespace: str, name: str, spec: Mapping[str, object]) -> Document:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": dict(spec)}


def put(cluster: Cluster, document: Document) -> None:
    metadata = document["metadata"]
    assert isinstance(metadata, dict)
    kind = CILIUM_POLICIES if "namespace" in metadata else CILIUM_CLUSTERWIDE_POLICIES
    cluster.client.apply(kind, document, manager=MANAGER, on_conflict=OnConflict.FORCE)


@pytest.fixture
def trio(cluster: Cluster, name: Name) -> tuple[str, str, str]:
    """A server and two clients in its namespace, `web` and `other`, under enforcement."""
    home = name("a")
    cluster.namespace(home)
    for pod in ("server", "web", "other"):
        cluster.pod(home, pod, {"app": pod})
    keys = f"{home}/server", f"{home}/web", f"{home}/other"
    cluster.wait_enforced(*keys)
    return keys


def home_of(key: str) -> str:
    return key.partition("/")[0]


def serving(**lists: object) -> dict[str, object]:
    """A part about the server."""
    return {"endpointSelector": {"matchLabels": {"app": "server"}}, **lists}


def test_a_policy_is_in_force_when_it_is_made_changed_and_deleted(
    cluster: Cluster, trio: tuple[str, str, str]
) -> None:
    server, web, other = trio
    home = home_of(server)
    assert cluster.reaches(other, server)

    put(cluster, cnp(home, "p", serving(ingress=[FROM_WEB])))
    cluster.eventually_reaches(other, server, expected=False)
    assert cluster.reaches(web, server)

    put(cluster, cnp(home, "p", serving(ingress=[FROM_WEB], ingressDeny=[FROM_WEB])))
    cluster.eventually_reaches(web, server, expected=False)

    deny = {"fromEndpoints": [{"matchLabels": {"app": "other"}}]}
    put(cluster, cnp(home, "p", serving(ingress=[{"fromEntities": ["all"]}], ingressDeny=[deny])))
    cluster.eventually_reaches(web, server)
    assert not cluster.reaches(other, server)

    cluster.client.delete(CILIUM_POLICIES, "p", home)
    cluster.eventually_reaches(other, server)
    status = cluster.ask("status")
    assert status["problems"] == []


def test_a_clusterwide_policy_counts_in_every_namespace(
    cluster: Cluster, trio: tuple[str, str, str]
) -> None:
    server, web, other = trio
    selector = {
        "matchLabels": {"app": "server", "k8s:io.kubernetes.pod.namespace": home_of(server)}
    }
    spec = {"endpointSelector": selector, "ingress": [FROM_WEB]}
    put(cluster, {"metadata": {"name": home_of(server)}, "spec": spec})
    cluster.eventually_reaches(other, server, expected=False)
    assert cluster.reaches(web, server)
    cluster.client.delete(CILIUM_CLUSTERWIDE_POLICIES, home_of(server))
    cluster.eventually_reaches(other, server)


def test_parts_that_leave_a_policy_leave_the_kernel(
    cluster: Cluster, trio: tuple[str, str, str]
) -> None:
    server, web, other = trio
    home = home_of(server)
    closing = serving(ingress=[FROM_WEB])
    opening = serving(ingress=[{"fromEndpoints": [{"matchLabels": {"app": "other"}}]}])
    metadata = {"name": "p", "namespace": home}
    put(cluster, {"metadata": metadata, "specs": [closing]})
    cluster.eventually_reaches(other, server, expected=False)
    put(cluster, {"metadata": metadata, "specs": [closing, opening]})
    cluster.eventually_reaches(other, server)
    put(cluster, {"metadata": metadata, "specs": [closing]})
    cluster.eventually_reaches(other, server, expected=False)
    assert cluster.reaches(web, server)


def test_an_invalid_policy_closes_what_it_selects_and_makes_no_agent_unready(
    cluster: Cluster, trio: tuple[str, str, str]
) -> None:
    server, web, other = trio
    home = home_of(server)
    put(cluster, cnp(home, "p", serving(ingress=[{"fromEntities": ["all"]}])))
    spec = serving(ingress=[{"fromRequires": [{"matchLabels": {"app": "web"}}]}])
    put(cluster, cnp(home, "p", spec))
    cluster.eventually_reaches(web, server, expected=False)
    assert cluster.reaches(server, web)
    assert cluster.reaches(web, other)
    status = cluster.ask("status")
    problems = status["problems"]
    assert isinstance(problems, list)
    told = f"ciliumnetworkpolicies.cilium.io: {home}/p is invalid and is closed: spec.ingress[0]"
    assert [p for p in problems if p.startswith(told)], problems
    assert status["errors"] == {}
    assert status["ready"] is True

    put(cluster, cnp(home, "p", serving(ingress=[FROM_WEB])))
    cluster.eventually_reaches(web, server)
    eventually(lambda: cluster.ask("status")["problems"] == [], "nothing is invalid any more")


def test_kinds_that_go_take_their_policies_along_and_those_that_come_are_read(
    cluster: Cluster, trio: tuple[str, str, str]
) -> None:
    server, web, other = trio
    home = home_of(server)
    put(cluster, cnp(home, "p", serving(ingress=[FROM_WEB])))
    cluster.eventually_reaches(other, server, expected=False)

    for kind in KINDS:
        cluster.client.delete(CUSTOM_RESOURCES, str(kind))
    cluster.eventually_reaches(other, server)
    eventually(lambda: cluster.ask("status")["problems"] == [], "an agent that misses nothing")

    install(cluster.client)
    put(cluster, cnp(home, "late", serving(ingress=[FROM_WEB])))
    cluster.eventually_reaches(other, server, expected=False)
    assert cluster.reaches(web, server)


def test_an_agent_that_starts_while_the_kinds_are_there_opens_nothing(
    cluster: Cluster, trio: tuple[str, str, str]
) -> None:
    server, web, other = trio
    home = home_of(server)
    put(cluster, cnp(home, "p", serving(ingress=[FROM_WEB])))
    cluster.eventually_reaches(other, server, expected=False)
    cluster.end_agent(signal.SIGKILL)
    assert not cluster.reaches(other, server)
    cluster.start_agent()
    cluster.wait_enforced(*trio)
    assert not cluster.reaches(other, server)
    assert cluster.reaches(web, server)


def test_a_restart_of_the_api_server_opens_nothing_and_what_was_changed_meanwhile_counts(
    cluster: Cluster, trio: tuple[str, str, str]
) -> None:
    server, web, other = trio
    home = home_of(server)
    put(cluster, cnp(home, "p", serving(ingress=[FROM_WEB])))
    cluster.eventually_reaches(other, server, expected=False)
    cluster.plane.stop_apiserver()
    assert not cluster.reaches(other, server)
    assert cluster.reaches(web, server)
    cluster.plane.start_apiserver()
    assert not cluster.reaches(other, server)
    put(cluster, cnp(home, "p", serving(ingress=[{"fromEntities": ["none"]}])))
    cluster.eventually_reaches(web, server, expected=False)
    assert not cluster.reaches(other, server)


def test_a_thousand_policies_of_one_namespace_count_and_hold_up_nobody(
    cluster: Cluster, trio: tuple[str, str, str], name: Name
) -> None:
    server, web, other = trio
    home, near = home_of(server), name("b")
    cluster.namespace(near)
    for pod in ("server", "web"):
        cluster.pod(near, pod, {"app": pod})
    cluster.wait_enforced(f"{near}/server", f"{near}/web")

    def some(number: int) -> None:
        peer = {"fromEndpoints": [{"matchLabels": {"app": f"peer-{number}"}}]}
        spec = serving(ingress=[peer, FROM_WEB] if number == MANY - 1 else [peer])
        put(cluster, cnp(home, f"p{number}", spec))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(some, range(MANY)))
    put(cluster, cnp(near, "p", serving(ingress=[{"fromEntities": ["none"]}])))
    cluster.eventually_reaches(f"{near}/web", f"{near}/server", expected=False)
    cluster.eventually_reaches(other, server, expected=False)
    cluster.eventually_reaches(web, server)
    status = cluster.ask("status")
    assert (status["errors"], status["problems"]) == ({}, [])


def test_where_cilium_runs_on_the_node_its_policies_are_left_to_it(
    cluster: Cluster, trio: tuple[str, str, str]
) -> None:
    server, _, other = trio
    put(cluster, cnp(home_of(server), "p", serving(ingress=[FROM_WEB])))
    cluster.eventually_reaches(other, server, expected=False)
    nodes = Resource("cilium.io", "v2", "ciliumnodes", "CiliumNode", namespaced=False)
    definition = cilium_nodes(nodes)
    cluster.client.apply(
        CUSTOM_RESOURCES, definition, manager=MANAGER, on_conflict=OnConflict.FORCE
    )
    try:
        eventually(lambda: is_served(cluster.client, nodes), "CiliumNodes are served")
        for name in ("another", cluster.name):
            assert not cluster.reaches(other, server)
            cluster.client.create(nodes, node_document(nodes, name), manager=MANAGER)
        cluster.eventually_reaches(other, server)
        problems = cluster.ask("status")["problems"]
        assert isinstance(problems, list)
        assert any("Cilium runs on this node" in problem for problem in problems)
    finally:
        cluster.client.delete(CUSTOM_RESOURCES, str(nodes))
    cluster.eventually_reaches(other, server, expected=False)


def cilium_nodes(kind: Resource) -> Document:
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "metadata": {"name": str(kind)},
        "spec": {
            "group": kind.group,
            "scope": "Cluster",
            "names": {"kind": kind.kind, "plural": kind.plural, "singular": "ciliumnode"},
            "versions": [
                {
                    "name": kind.version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": anything},
                }
            ],
        },
    }


def node_document(kind: Resource, name: str) -> Document:
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}}
