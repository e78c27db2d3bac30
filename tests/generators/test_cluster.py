"""A cluster made of files is the one that webhook and controller would leave."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address, ip_network

import pytest

from generators.cluster import DEFAULT_POD_CIDRS, Cluster
from generators.objects import NAME_LABEL
from tests.generators.builders import TENANTS, cluster, namespace, node, pod, policy, recorded


def ips(of: Cluster) -> dict[str, tuple[str, ...]]:
    return {found.key: found.ips for found in of.pods}


def test_namespaces_that_objects_use_exist_without_labels() -> None:
    of = cluster(pod("x/a"), policy("y/p"), namespace("z", "team: t"))
    assert {name: dict(n.labels) for name, n in of.namespaces.items()} == {
        "x": {NAME_LABEL: "x"},
        "y": {NAME_LABEL: "y"},
        "z": {NAME_LABEL: "z", "team": "t"},
    }


def test_pods_to_be_get_an_address_of_each_family_inside_the_pod_ranges() -> None:
    of = cluster(*(pod(f"x/p{i}") for i in range(300)))
    v4, v6 = (ip_network(cidr) for cidr in DEFAULT_POD_CIDRS)
    addresses = [ip for found in of.pods for ip in found.ips]
    assert max(Counter(addresses).values()) == 1
    for found in of.pods:
        first, second = map(ip_address, found.ips)
        assert first in v4
        assert second in v6
        assert int(first) & 0xFF not in (0, 1, 255)


def test_addresses_are_the_same_on_every_run_and_in_every_order() -> None:
    pods = [pod("x/a"), pod("y/b"), pod("z/c")]
    assert ips(cluster(*pods)) == ips(cluster(*reversed(pods)))
    assert ips(cluster(*pods)) == {
        "x/a": ("10.244.145.227", "fd00:10:244::91e3"),
        "y/b": ("10.244.240.178", "fd00:10:244::f0b2"),
        "z/c": ("10.244.152.2", "fd00:10:244::9802"),
    }


def test_an_address_in_use_is_never_given_out() -> None:
    (taken, other) = ips(cluster(pod("x/a")))["x/a"]
    of = cluster(pod("x/a"), pod("y/b", taken), node("n1", other))
    assert taken not in ips(of)["x/a"]
    assert other not in ips(of)["x/a"]


def test_a_node_hands_out_its_own_range_and_a_full_range_gives_nothing() -> None:
    of = cluster(
        node("n1", "192.168.0.1", "10.9.1.0/30"),
        node("n2", "192.168.0.2", "10.9.2.0/24"),
        *(pod(f"x/{name}", spec="nodeName: n1") for name in "abc"),
        pod("x/d", spec="nodeName: n2"),
    )
    assert of.pod_cidrs == ("10.9.1.0/30", "10.9.2.0/24")
    assert [ips(of)[f"x/{name}"] for name in "abc"] == [("10.9.1.2",), (), ()]
    assert ips(of)["x/d"][0].startswith("10.9.2.")


@pytest.mark.parametrize("phase", ["Pending", "Succeeded", "Failed"])
def test_pods_that_do_not_run_get_no_address(phase: str) -> None:
    assert ips(cluster(pod("x/a", phase=phase))) == {"x/a": ()}


def test_pods_on_their_nodes_network_have_its_addresses() -> None:
    host = "nodeName: {}, hostNetwork: true"
    of = cluster(
        node("n1", "192.168.0.1 fd99::1"),
        pod("x/a", spec=host.format("n1")),
        pod("x/b", spec=host.format("n2")),
        pod("x/c", spec=host.format("n2")),
    )
    assert ips(of)["x/a"] == ("192.168.0.1", "fd99::1")
    assert ips(of)["x/b"] == ips(of)["x/c"] != ips(of)["x/a"]
    assert {n.name: n.ips for n in of.nodes}["n2"] == ips(of)["x/b"]


@pytest.mark.parametrize(
    ("first", "second", "owner"),
    [("", "", "x/b"), ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z", "x/a")],
)
def test_of_two_pods_with_one_address_the_later_has_it(first: str, second: str, owner: str) -> None:
    of = cluster(
        pod("x/a", "10.0.0.1 fd00::1", created=first), pod("x/b", "10.0.0.1", created=second)
    )
    assert [key for key, found in ips(of).items() if "10.0.0.1" in found] == [owner]
    assert ips(of)["x/a"][-1] == "fd00::1"
    assert len(of.warnings) == 1
    assert f"address 10.0.0.1 now belongs to pod {owner}" in of.warnings[0]


def test_a_tenant_file_labels_and_isolates() -> None:
    of = cluster(pod("a-blue/web"), pod("free/web"), tenants=TENANTS)
    assert of.tenants == {"a-blue": "blue"}
    assert of.namespaces["a-blue"].labels["client"] == "blue"
    assert [p.key for p in of.policies] == ["a-blue/allow-ingress-namespace"]
    assert of.warnings == ()


@pytest.mark.parametrize(
    ("name", "claim", "after"),
    [("free", "blue", None), ("a-blue", "red", "blue"), ("ingress", "blue", None)],
)
def test_a_label_that_the_name_does_not_confirm_is_repaired_and_told(
    name: str, claim: str, after: str | None
) -> None:
    of = cluster(namespace(name, f"client: {claim}"), tenants=TENANTS)
    assert of.namespaces[name].labels.get("client") == after
    assert f'label client: "{claim}" proves nothing' in of.warnings[0]


def test_generated_policies_replace_what_has_their_name() -> None:
    wide = "podSelector: {}, ingress: [{}]"
    managed = "app.kubernetes.io/managed-by: ringfence"
    of = cluster(
        policy("a-blue/allow-ingress-namespace", wide),
        policy("b-blue/allow-ingress-namespace", wide, managed),
        policy("free/allow-ingress-namespace", wide, managed),
        tenants=TENANTS,
    )
    assert [p.key for p in of.policies] == [
        "a-blue/allow-ingress-namespace",
        "b-blue/allow-ingress-namespace",
    ]
    assert all(len(p.ingress) == 2 for p in of.policies)
    assert len(of.warnings) == 1
    assert "a-blue/allow-ingress-namespace has the name of a generated one" in of.warnings[0]


def test_recorded_clusters_are_taken_as_they_are() -> None:
    of = recorded(namespace("a-blue", "client: blue", uid="u1"), pod("a-blue/web"))
    assert (of.tenants, of.policies, ips(of)) == ({}, (), {"a-blue/web": ()})
