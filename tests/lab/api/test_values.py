"""What nodes of a lab are made of, as values: names, addresses, journals, kubeconfigs, bindings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from generators.documents.json import Document
from generators.errors import InputError
from generators.reachability.services import Backend, ServiceKey
from lab import netns
from lab.api import assets, kubeconfig
from lab.api.binder import waiting
from lab.api.services import apply, ruleset
from lab.api.workload import assigned, hosted
from lab.journal import FIRST_HOST, LAST_HOST, Journal, NoAddress, Sandbox, Stage
from lab.names import places
from lab.topology import lab_nodes, node_named

LAB = places("values")


def test_nodes_of_a_lab_differ_in_name_address_and_range() -> None:
    nodes = list(lab_nodes(LAB, 3))
    assert [node.name for node in nodes] == ["values-1", "values-2", "values-3"]
    for values in (
        {node.addresses for node in nodes},
        {node.pod_cidrs for node in nodes},
        {node.places.netns for node in nodes},
        {node.places.pins for node in nodes},
    ):
        assert len(values) == 3
    assert node_named(LAB, "values-2") == nodes[1]


def test_a_pod_s_addresses_are_in_its_node_s_range() -> None:
    (node,) = lab_nodes(LAB, 1)
    v4, v6 = node.pod_addresses(17)
    assert v4 == node.pod_cidrs[0].replace("0/24", "17")
    assert v6 == node.pod_cidrs[1].replace("/64", "11")


@pytest.mark.parametrize("name", ["other-1", "values", "values-x", "values-1-1"])
def test_nodes_of_others_are_not_ours(name: str) -> None:
    with pytest.raises(ValueError, match="no node of lab values"):
        node_named(LAB, name)


def _sandbox(key: str, host: int) -> Sandbox:
    return Sandbox(key, f"uid-{key}", host, f"netns-{key}", "rf0", (f"10.0.0.{host}",))


def test_a_journal_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "pods.json"
    first = Journal(path)
    planned = first.plan(lambda host: _sandbox("a/one", host))
    wired = first.reach(planned, Stage.WIRED)
    first.plan(lambda host: _sandbox("a/two", host))
    first.forget("a/two")
    assert Journal(path).snapshot() == {"a/one": wired}


def test_addresses_of_pods_that_went_come_last(tmp_path: Path) -> None:
    held = Journal(tmp_path / "pods.json")
    for number in range(3):
        held.plan(lambda host, n=number: _sandbox(f"a/{n}", host))  # type: ignore[misc]
    held.forget("a/0")
    assert held.plan(lambda host: _sandbox("a/new", host)).host == FIRST_HOST + 3


def test_a_range_that_is_used_up_says_so(tmp_path: Path) -> None:
    held = Journal(tmp_path / "pods.json")
    for number in range(LAST_HOST - FIRST_HOST + 1):
        held.plan(lambda host, n=number: _sandbox(f"a/{n}", host))  # type: ignore[misc]
    with pytest.raises(NoAddress, match="delete pods"):
        held.plan(lambda host: _sandbox("a/more", host))
    held.forget("a/7")
    assert held.plan(lambda host: _sandbox("a/more", host)).host == FIRST_HOST + 7


KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: two
contexts:
- {name: one, context: {cluster: one, user: me}}
- {name: two, context: {cluster: two, user: me}}
clusters:
- {name: one, cluster: {server: "https://one:6443"}}
- {name: two, cluster: {server: "https://api.example.org", certificate-authority: ca.crt}}
users:
- {name: me, user: {client-certificate: /etc/me.crt, client-key: keys/me.key}}
"""


def test_inside_a_node_the_api_server_is_on_loopback_under_its_own_name(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(KUBECONFIG)
    assert kubeconfig.target(file) == kubeconfig.Target("https", "api.example.org", 443)
    made = json.loads(kubeconfig.inside(file))
    assert made["clusters"][1]["cluster"] == {
        "server": "https://127.0.0.1:443",
        "tls-server-name": "api.example.org",
        "certificate-authority": str(tmp_path / "ca.crt"),
    }
    assert made["users"][0]["user"] == {
        "client-certificate": "/etc/me.crt",
        "client-key": str(tmp_path / "keys/me.key"),
    }


@pytest.mark.parametrize(
    "server", ["", "ftp://a", "https://"], ids=["no server", "not http", "no host"]
)
def test_a_server_that_is_no_url_is_an_error_of_the_file(tmp_path: Path, server: str) -> None:
    file = tmp_path / "config"
    file.write_text(KUBECONFIG.replace("https://api.example.org", server))
    with pytest.raises(InputError, match="is no URL"):
        kubeconfig.target(file)


def _pod(**spec: object) -> Document:
    spec = {"containers": [{"name": "main", "image": "main"}], **spec}
    metadata = {"name": "a", "namespace": "b", "uid": "u"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _made_for(node: str) -> Document:
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    terms = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": terms}
    return _pod(affinity={"nodeAffinity": required})


@pytest.mark.parametrize(
    ("pod", "nodes"),
    [
        (_pod(), {"n1", "n2"}),
        (_pod(nodeSelector={"zone": "a"}), {"n1"}),
        (_pod(nodeSelector={"zone": "c"}), set()),
        (_made_for("n2"), {"n2"}),
    ],
    ids=["any", "selector", "selector that nobody fits", "of a DaemonSet"],
)
def test_a_pod_goes_only_to_nodes_that_it_allows(pod: Document, nodes: set[str]) -> None:
    labels = {"n1": {"zone": "a"}, "n2": {"zone": "b"}}
    asked = waiting(pod)
    assert asked is not None
    assert {name for name, own in labels.items() if asked.allows(name, own)} == nodes


@pytest.mark.parametrize(
    "pod",
    [_pod(nodeName="n1"), _pod(schedulerName="another")],
    ids=["has a node", "another scheduler's"],
)
def test_pods_that_others_place_are_left_alone(pod: Document) -> None:
    assert waiting(pod) is None


OF_A_JOB = {"name": "a", "uid": "u", "ownerReferences": [{"kind": "Job", "name": "j"}]}
OURS: Document = {"name": "hook", "image": "registry.example/team/ringfence:0.1", "args": ["-h"]}


def test_pods_of_others_jobs_are_nobody_s_here() -> None:
    owned = {**_pod(), "metadata": OF_A_JOB}
    assert waiting(owned) is None
    assert assigned(owned) is None


@pytest.mark.parametrize(
    "meta", [OF_A_JOB, {"name": "a", "annotations": {"helm.sh/hook": "test"}}], ids=["Job", "hook"]
)
def test_our_command_in_a_job_or_hook_is_a_process_of_this_host(meta: Document) -> None:
    pod = {**_pod(containers=[OURS]), "metadata": meta}
    assert hosted(pod)
    assert waiting(pod) is not None
    assert assigned(pod) is None


@pytest.mark.parametrize(
    "spec",
    [
        {"containers": [{**OURS, "image": "registry.example/ringfence/busybox:1"}]},
        {"containers": [{**OURS, "command": ["sh", "-c", "id"]}]},
        {"containers": [{**OURS, "securityContext": {"runAsUser": 0}}]},
        {"containers": [OURS], "securityContext": {"runAsGroup": 0}},
        {"containers": [OURS, OURS]},
        {"containers": [OURS], "initContainers": [OURS]},
    ],
    ids=["another image", "another program", "root", "group root", "two containers", "init"],
)
def test_nothing_else_of_a_job_is_run_on_this_host(spec: dict[str, object]) -> None:
    assert not hosted({**_pod(**spec), "metadata": OF_A_JOB})


def test_a_pod_of_no_job_is_a_network_namespace_whatever_it_would_run() -> None:
    assert not hosted(_pod(containers=[OURS]))


def _services(count: int) -> dict[ServiceKey, tuple[Backend, ...]]:
    backends = tuple(Backend(f"10.1.0.{last}", 8080) for last in (2, 3))
    return {ServiceKey(f"10.96.{n // 250}.{n % 250}", 80, "TCP"): backends for n in range(count)}


def test_services_are_elements_of_maps_in_their_family() -> None:
    services = _services(1)
    services[ServiceKey("fd00::9", 53, "UDP")] = (Backend("fd01::2", 53),)
    text = ruleset(services)
    for place, last in enumerate((2, 3)):
        head = f"map ip-backend-{place} {{"
        assert f"{{ 10.96.0.0 . tcp . 80 : 10.1.0.{last} . 8080 }}" in text.split(head)[1]
    assert "{ fd00::9 . udp . 53 : fd01::2 . 53 }" in text.split("map ip6-backend-0 {")[1]
    assert "@ip-of-2 numgen random mod 2 vmap { 0 : goto ip-pick-0, 1 : goto ip-pick-1 }" in text


def test_more_services_are_not_more_rules() -> None:
    few, many = ruleset(_services(1)), ruleset(_services(2000))
    assert len(few.splitlines()) == len(many.splitlines())


@pytest.mark.bpf
def test_the_kernel_takes_two_thousand_services(unique_name: Callable[[str], str]) -> None:
    node = unique_name("services")
    netns.create(node)
    try:
        apply(ruleset(_services(2000)), node)
        apply(ruleset(_services(1)), node)
    finally:
        netns.remove(node)


def test_an_installed_command_takes_the_programs_that_were_built_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "SOURCES", tmp_path / "not a checkout")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    assert assets.find() is None
    folder = assets.cache_root() / "kubernetes-0123456789abcdef"
    folder.mkdir(parents=True)
    for name in assets.NEEDED:
        assert assets.find() is None, "only complete folders count"
        (folder / name).touch()
    assert assets.find() == folder
