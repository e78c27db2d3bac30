"""Walls in an API server: as the tenant file in force wants them, protected, and removed last."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest

from generators.documents.json import Document, key_of, mapping, text
from generators.isolation.walls import walls
from generators.kube.client import Client
from generators.kube.errors import Forbidden
from generators.kube.resources import CLUSTER_NETWORK_POLICIES, NETWORK_POLICIES
from generators.tenants.load import load_tenants
from tests.conftest import COMMAND
from tests.controller.cluster import SYSTEM, Cluster, ControllerProcess, allowing, guarded
from tests.controller.policies import grant
from tests.generators.isolation.test_walls import CRD
from tests.testbed import build
from tests.testbed.waiting import eventually, patience

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
RIGHTS = allowing(
    "walls-user",
    ['{apiGroups: [policy.networking.k8s.io], resources: [clusternetworkpolicies], verbs: ["*"]}'],
    ["team-test01", "platform-team"],
)


@pytest.fixture(scope="module")
def walled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, ControllerProcess]]:
    with guarded(tmp_path_factory.mktemp("walls")) as (made, first):
        first.terminate()
        grant(made, "controller", "--walls")
        made.plane.kubectl("apply", "-f", "-", stdin=RIGHTS)
        controller = made.controller("--walls")
        eventually(controller.in_force, "admission in force")
        yield made, controller


def live(client: Client) -> dict[str, Document]:
    return {key_of(wall).name: wall for wall in client.list_all(CLUSTER_NETWORK_POLICIES)}


def versions_of(client: Client) -> dict[str, str]:
    return {name: text(w, "metadata", "resourceVersion") for name, w in live(client).items()}


def as_wanted(made: Cluster) -> Callable[[], bool]:
    """Whether the specs are those of the tenant file."""

    def same() -> bool:
        wanted = {key_of(w).name: mapping(w, "spec") for w in walls(load_tenants(made.tenants))}
        return {name: mapping(w, "spec") for name, w in live(made.admin).items()} == wanted

    return same


def test_walls_come_with_the_kind_stay_as_wanted_and_go_last(
    walled: tuple[Cluster, ControllerProcess],
) -> None:
    made, controller = walled
    eventually(lambda: "install its CRD" in controller.get("/readyz")[1], "the kind is missed")
    assert controller.get("/readyz")[0] == 200

    folder = build.module("clusternetworkpolicy", "sigs.k8s.io/network-policy-api")
    made.plane.kubectl("apply", "-f", str(folder / CRD))
    established = ("--for=condition=Established", f"--timeout={patience(60):.0f}s")
    made.plane.kubectl("wait", *established, "-f", str(folder / CRD))
    eventually(as_wanted(made), "walls are written")
    assert sorted(live(made.admin)) == ["ringfence-wall-test01", "ringfence-wall-test02"]
    eventually(lambda: "[+]walls: 2" in controller.get("/readyz")[1], "they are counted")

    refuses_members(made)
    mends_what_an_admin_broke(made)
    follows_the_tenant_file(made)
    is_removed_with_the_rest(made, controller)


def refuses_members(made: Cluster) -> None:
    member = made.as_user("anna", "team-test01")
    wall = live(member)["ringfence-wall-test01"]
    with pytest.raises(Forbidden, match=r"is generated from .* and must not be changed or deleted"):
        member.delete(CLUSTER_NETWORK_POLICIES, "ringfence-wall-test02")
    opened = {**wall, "spec": {**mapping(wall, "spec"), "ingress": []}}
    with pytest.raises(Forbidden, match="ClusterNetworkPolicy ringfence-wall-test01 is generated"):
        member.update(CLUSTER_NETWORK_POLICIES, opened, manager="anna")
    bare = {key: value for key, value in wall.items() if key != "metadata"}
    forged = bare | {"metadata": {"name": "mine", "labels": mapping(wall, "metadata", "labels")}}
    with pytest.raises(Forbidden, match="marks generated policies; leave that label out"):
        member.create(CLUSTER_NETWORK_POLICIES, forged, manager="anna")


def mends_what_an_admin_broke(made: Cluster) -> None:
    admin = made.as_user("root", "platform-team")
    wall = live(admin)["ringfence-wall-test01"]
    spec = {**mapping(wall, "spec"), "priority": 1}
    admin.update(CLUSTER_NETWORK_POLICIES, {**wall, "spec": spec}, manager="root")
    admin.delete(CLUSTER_NETWORK_POLICIES, "ringfence-wall-test02")
    eventually(as_wanted(made), "walls are mended")


def follows_the_tenant_file(made: Cluster) -> None:
    before = made.tenants.read_text()
    made.tenants.write_text(before.replace("port: 5432", "port: 5433"))
    assert made.tenants.read_text() != before
    eventually(as_wanted(made), "walls follow the file")
    versions = {
        name: text(w, "metadata", "resourceVersion") for name, w in live(made.admin).items()
    }
    made.tenants.write_text(before.replace("port: 5432", "port: 5434"))
    eventually(as_wanted(made), "walls follow the file again")
    after = versions_of(made.admin)
    # What says the same as before is not written.
    assert after["ringfence-wall-test02"] == versions["ringfence-wall-test02"]
    assert after["ringfence-wall-test01"] != versions["ringfence-wall-test01"]


def is_removed_with_the_rest(made: Cluster, controller: ControllerProcess) -> None:
    controller.terminate()

    def run(*arguments: str) -> str:
        where = ("--kubeconfig", str(made.plane.kubeconfig()), "--namespace", SYSTEM)
        command = [str(COMMAND), "controller", *arguments, *where]
        limit = patience(60)
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("unregister")
    said = run("forget", "--isolation").splitlines()
    assert not live(made.admin)
    walls_at = [n for n, line in enumerate(said) if "clusternetworkpolicies" in line]
    policies_at = [n for n, line in enumerate(said) if line.startswith(str(NETWORK_POLICIES))]
    assert len(walls_at) == 2
    assert not policies_at or min(walls_at) > max(policies_at)
