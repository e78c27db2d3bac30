"""A lab that changes: what apply and delete do is in force when they return."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import netns
from tests.conftest import Run
from tests.lab.builders import CLUSTER, TENANTS, namespace, pod
from tests.lab.conftest import Lab, fresh

pytestmark = pytest.mark.bpf

MEMBER = ("--as", "dana", "--as-group", "team-test01")


@pytest.fixture(scope="module")
def lab(ringfence: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One lab for all tests here, each of which uses names of its own."""
    with fresh(ringfence) as lab:
        folder = tmp_path_factory.mktemp("tenants")
        (folder / "tenants.yaml").write_bytes(TENANTS.read_bytes())
        lab.ok("up", "-c", folder / "tenants.yaml", "-f", CLUSTER)
        yield lab


def test_a_new_namespace_of_a_member_is_isolated_at_once(lab: Lab) -> None:
    text = namespace("shop-test01") + pod("shop-test01/till")
    done = lab.apply(text, *MEMBER)
    assert done.returncode == 0, done.stderr
    assert "namespace/shop-test01 created" in done.stdout
    assert "allow-ingress-namespace created in namespace shop-test01" in done.stdout
    assert lab.reaches("app-test01/web", "shop-test01/till", "80/TCP") == {"FORWARDED"}
    assert lab.reaches("app-test02/web", "shop-test01/till", "80/TCP") == {"DROPPED"}


def test_an_admin_moves_a_namespace_and_the_packets_follow(lab: Lab) -> None:
    lab.apply(namespace("moves-test01") + pod("moves-test01/web"))
    assert lab.reaches("app-test02/web", "moves-test01/web", "80/TCP") == {"DROPPED"}
    done = lab.apply(namespace("moves-test01", client="test02"))
    assert done.returncode == 0, done.stderr
    assert lab.reaches("app-test02/web", "moves-test01/web", "80/TCP") == {"FORWARDED"}
    assert lab.reaches("app-test01/web", "moves-test01/web", "80/TCP") == {"DROPPED"}


def test_a_policy_of_the_tenant_s_own_narrows(lab: Lab) -> None:
    lab.apply(namespace("own-test01") + pod("own-test01/a") + pod("own-test01/b"))
    deny = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nobody-leaves, namespace: own-test01}
spec: {podSelector: {}, policyTypes: [Egress]}
"""
    assert lab.reaches("own-test01/a", "own-test01/b", "80/TCP") == {"FORWARDED"}
    assert lab.apply(deny, *MEMBER).returncode == 0
    assert lab.reaches("own-test01/a", "own-test01/b", "80/TCP") == {"DROPPED"}
    lab.ok("delete", "netpol", "own-test01/nobody-leaves")
    assert lab.reaches("own-test01/a", "own-test01/b", "80/TCP") == {"FORWARDED"}


def test_a_policy_of_the_tenant_s_own_cannot_widen_beyond_the_wall(lab: Lab) -> None:
    lab.apply(namespace("open-test01") + pod("open-test01/web"))
    welcome = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: everybody-is-welcome, namespace: open-test01}
spec: {podSelector: {}, ingress: [{}]}
"""
    assert lab.apply(welcome, *MEMBER).returncode == 0
    assert lab.reaches("app-test02/web", "open-test01/web", "80/TCP") == {"DROPPED"}


def test_a_generated_policy_comes_back_and_members_cannot_delete_it(lab: Lab) -> None:
    name = "app-test01/allow-ingress-namespace"
    refused = lab("delete", "netpol", name, *MEMBER)
    assert refused.returncode == 1
    assert "denied the request" in refused.stderr
    back = lab.ok("delete", "netpol", name)
    assert "created in namespace app-test01 by ringfence" in back
    assert lab.reaches("sandbox/visitor", "app-test01/web", "80/TCP") == {"DROPPED"}


def test_a_deleted_pod_is_gone_and_its_name_can_be_used_again(lab: Lab) -> None:
    lab.apply(pod("sandbox/brief"))
    name = lab.places.pod_netns("sandbox", "brief")
    assert name in netns.names()
    lab.ok("delete", "pod", "sandbox/brief")
    assert name not in netns.names()
    assert all(p["name"] != "brief" for p in lab.status()["pods"])
    lab.apply(pod("sandbox/brief"))
    assert lab.reaches("sandbox/visitor", "sandbox/brief", "80/TCP") == {"FORWARDED"}
    assert lab.reaches("sandbox/brief", "app-test01/web", "80/TCP") == {"DROPPED"}


def test_deleting_a_namespace_stops_its_pods(lab: Lab) -> None:
    lab.apply(namespace("away-test02") + pod("away-test02/web"))
    lab.ok("delete", "namespace", "away-test02")
    assert lab.places.pod_netns("away-test02", "web") not in netns.names()
    assert "away-test02" not in lab.ok("get", "netpol")


def test_what_was_applied_from_a_file_is_deleted_by_that_file(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "extra.yaml"
    file.write_text(namespace("extra") + pod("extra/web"))
    lab.ok("apply", "-f", file)
    assert lab.ok("delete", "-f", file).splitlines() == [
        'pod "web" deleted',
        'namespace "extra" deleted',
    ]
    assert lab("delete", "-f", file).returncode == 1


def test_a_pod_whose_address_changes_moves(lab: Lab) -> None:
    def at(address: str) -> str:
        return pod("sandbox/mover", extra=f"status: {{podIP: {address}}}")

    lab.apply(at("10.244.250.2"))
    assert lab.reaches("sandbox/visitor", "sandbox/mover", "80/TCP") == {"FORWARDED"}
    lab.apply(at("10.244.250.3"))
    (moved,) = (p for p in lab.status()["pods"] if p["name"] == "mover")
    assert (moved["addresses"], moved["enforced"]) == (["10.244.250.3"], True)
    assert lab.reaches("sandbox/visitor", "sandbox/mover", "80/TCP") == {"FORWARDED"}


def test_a_changed_tenant_file_is_in_force_after_the_next_apply(lab: Lab) -> None:
    config = Path(str(lab.ok("status", "-o", "json").split('"config": "')[1].split('"')[0]))
    text = config.read_text()
    assert lab.reaches("monitoring/prometheus", "app-test02/web", "80/TCP") == {"DROPPED"}
    config.write_text(text.replace("    ports: [{port: 9090, protocol: TCP}]\n", ""))
    try:
        lab.ok("apply", "-f", CLUSTER)
        assert lab.reaches("monitoring/prometheus", "app-test02/web", "80/TCP") == {"FORWARDED"}
    finally:
        config.write_text(text)
        lab.ok("apply", "-f", CLUSTER)
    assert lab.reaches("monitoring/prometheus", "app-test02/web", "80/TCP") == {"DROPPED"}


def test_ringfence_is_turned_on_in_a_cluster_that_had_none(ringfence: Run) -> None:
    with fresh(ringfence) as lab:
        lab.ok("up", "-f", CLUSTER)
        assert {cell["verdict"] for cell in lab.probe().values()} == {"FORWARDED"}
        assert [p["name"] for p in lab.status()["processes"]] == ["enforcer", "responder"]
        lab.ok("apply", "-c", TENANTS)
        assert lab.reaches("app-test02/web", "app-test01/web", "80/TCP") == {"DROPPED"}
        assert "client=test01" in lab.ok("get", "ns", "app-test01")
        assert lab.ok("get", "ns", "app-test01", "-o", "name") == "namespace/app-test01\n"
        assert len(lab.status()["processes"]) == 3
