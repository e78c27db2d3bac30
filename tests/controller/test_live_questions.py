"""`plan` and `matrix` about a live cluster: what another tenant file would do to it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from generators.documents.json import Document
from generators.kube.client import PatchKind
from generators.kube.resources import PODS
from tests.controller.cluster import TENANTS, Cluster, guarded
from tests.controller.test_synchronization import versions
from tests.testbed.planes import Planes
from tests.testbed.waiting import eventually

pytestmark = pytest.mark.cluster
Run = Callable[..., "subprocess.CompletedProcess[str]"]
SPACES = {"a-test01": "10.0.0.1", "b-test02": "10.0.0.2", "annas": "10.0.0.3"}


@pytest.fixture(scope="module")
def lived_in(planes: Planes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two tenants with a pod in each namespace; one namespace is a tenant's by who made it."""
    with guarded(tmp_path_factory.mktemp("lived-in"), plane=planes.one()) as (made, _):
        made.make("a-test01")
        made.make("b-test02")
        made.make("annas", made.as_user("anna", "team-test01"))
        for namespace, address in SPACES.items():
            eventually(partial(recorded, made, namespace), "recorded")
            add_pod(made, namespace, address)
        yield made


def add_pod(cluster: Cluster, namespace: str, address: str, name: str = "db") -> None:
    port: Document = {"containerPort": 5432}
    pod: Document = {
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {
            "containers": [{"name": "db", "image": "db", "ports": [port]}],
            "automountServiceAccountToken": False,
        },
    }
    eventually(lambda: cluster.has_default_account(namespace), "default ServiceAccount")
    cluster.admin.create(PODS, pod, manager="test")
    status: Document = {
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
    }
    cluster.admin.patch(
        *(PODS, name, namespace, status),
        kind=PatchKind.STRATEGIC,
        manager="test",
        subresource="status",
    )


def test_a_plan_of_the_file_in_force_keeps_everything(lived_in: Cluster, ringfence: Run) -> None:
    done = ringfence("plan", "-c", lived_in.tenants, *where(lived_in), "-o", "json")
    assert done.returncode == 0, done.stderr
    changes = json.loads(done.stdout)
    assert {change["action"] for change in changes} == {"Keep"}
    assert {c["name"] for c in changes if c["kind"] == "Namespace"} == set(SPACES)


def test_a_plan_of_another_file_says_what_it_would_do_and_does_nothing(
    lived_in: Cluster, ringfence: Run
) -> None:
    newer = lived_in.folder / "newer.yaml"
    newer.write_text(TENANTS.replace('suffixes: ["-test02"]', "names: [c]"))
    before = versions(lived_in.admin)
    done = ringfence("plan", "-c", newer, *where(lived_in), "-o", "json")
    found = {(c["action"], c["kind"], c["namespace"] or c["name"]) for c in json.loads(done.stdout)}
    assert ("Update", "Namespace", "b-test02") in found
    assert ("Delete", "NetworkPolicy", "b-test02") in found
    # A member made it: no name has to claim it.
    assert ("Keep", "Namespace", "annas") in found
    assert versions(lived_in.admin) == before


def where(cluster: Cluster) -> tuple[str, str]:
    return "--kubeconfig", str(cluster.plane.kubeconfig())


def verdicts(text: str) -> dict[tuple[str, str], str]:
    return {(c["source"], c["destination"]): c["verdict"] for c in json.loads(text)["cells"]}


def test_a_matrix_of_the_live_cluster_follows_the_record(lived_in: Cluster, ringfence: Run) -> None:
    done = ringfence("matrix", "-c", lived_in.tenants, *where(lived_in), "-o", "json")
    found = verdicts(done.stdout)
    assert found["a-test01/db", "annas/db"] == "FORWARDED"
    assert found["b-test02/db", "a-test01/db"] == "FORWARDED"
    assert found["a-test01/db", "b-test02/db"] == "DROPPED"


def test_a_matrix_shows_who_would_lose_and_gain_whom(lived_in: Cluster, ringfence: Run) -> None:
    newer = lived_in.folder / "no-grant.yaml"
    lines = TENANTS.splitlines(keepends=True)
    newer.write_text("".join(line for line in lines if "allow" not in line))
    former = ("--instead-of", lived_in.tenants)
    done = ringfence("matrix", "-c", newer, *former, *where(lived_in), "-o", "json")
    assert verdicts(done.stdout) == {
        ("b-test02/db", "a-test01/db"): "DROPPED",
        ("b-test02/db", "annas/db"): "DROPPED",
    }


@pytest.mark.parametrize("command", ["plan", "matrix"])
def test_files_and_a_live_cluster_at_once_are_refused(ringfence: Run, command: str) -> None:
    done = ringfence(command, "-c", "t.yaml", "-f", "x.yaml", "--kubeconfig", "y")
    assert done.returncode == 2
    assert "-f PATH is about files, --kubeconfig and --context about a live cluster" in done.stderr


def recorded(cluster: Cluster, namespace: str) -> bool:
    return cluster.recorded(namespace) is not None


def test_a_plan_says_what_another_key_means_for_each_namespace(
    lived_in: Cluster, ringfence: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file in force is the controller's own; the cluster is that of KUBECONFIG."""
    file = tmp_path / "tenants.yaml"
    file.write_text(TENANTS.replace("labelKey: client", "labelKey: proof"))
    monkeypatch.setenv("KUBECONFIG", str(lived_in.plane.kubeconfig()))
    done = ringfence("plan", "-c", file)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "labelKey client becomes proof: for some seconds namespaces can be neither"
    )
    assert "labels that change: client, proof" in done.stdout
    assert "until all namespaces of test01 carry proof" in done.stdout
    told = ringfence("plan", "-c", file, "-o", "json")
    assert "note: labelKey client becomes proof" in told.stderr
    annas = [c for c in json.loads(told.stdout) if c["name"] == "annas"]
    assert annas[0]["effect"].startswith("opens to no one new")


def test_a_plan_says_what_becomes_of_a_tenant_that_leaves_the_file(
    lived_in: Cluster, ringfence: Run, tmp_path: Path
) -> None:
    file = tmp_path / "tenants.yaml"
    kept = TENANTS[: TENANTS.index("  - name: test02")]
    grant = "    allowFrom: [{tenant: test02, ports: [{port: 5432, protocol: TCP}]}]\n"
    file.write_text(kept.replace(grant, ""))
    done = ringfence("plan", "-c", file, *where(lived_in))
    assert "tenant test02 leaves the file" in done.stdout
    assert "stays test02's, in quarantine: closed to everybody but" in done.stdout
    assert "in quarantine: tenant test02 is not in" in done.stdout
    assert "every pod may enter them: default\n" in done.stdout


def test_without_a_tenant_file_the_cluster_s_own_decides(lived_in: Cluster, ringfence: Run) -> None:
    asked = ("a-test01/db", "b-test02/db", "5432/TCP", *where(lived_in))
    done = ringfence("trace", *asked, "--expect", "DROPPED")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DROPPED (TENANT_WALL)" in done.stdout
    assert (
        "note: tenants by the record and ConfigMap ringfence-system/ringfence-guard" in done.stderr
    )
    found = verdicts(ringfence("matrix", *where(lived_in), "-o", "json").stdout)
    assert found["a-test01/db", "b-test02/db"] == "DROPPED"
    assert found["b-test02/db", "annas/db"] == "FORWARDED"


def test_another_file_than_the_cluster_s_is_said(
    lived_in: Cluster, ringfence: Run, tmp_path: Path
) -> None:
    file = tmp_path / "tenants.yaml"
    file.write_text(TENANTS.replace("test02", "test03"))
    asked = ("a-test01/db", "b-test02/db", "5432/TCP", *where(lived_in))
    told = ringfence("trace", *asked, "-c", file).stderr
    assert f"note: {file}" in told
    assert "is not the tenant file in force" in told
    assert ringfence("trace", *asked, "-c", lived_in.tenants).stderr == ""


def test_tenants_of_the_live_cluster_are_those_of_the_record(
    lived_in: Cluster, ringfence: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`annas` belongs by who made it, which no file says; the cluster is found as kubectl does."""
    monkeypatch.setenv("KUBECONFIG", str(lived_in.plane.kubeconfig()))
    done = ringfence("tenants", "list", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert "note: tenants by " in done.stderr
    found = {tenant["tenant"]: tenant for tenant in json.loads(done.stdout)}
    assert found["test01"]["namespaces"] == ["a-test01", "annas"]
    assert found["test01"]["policies"] == [
        "a-test01/allow-ingress-namespace",
        "annas/allow-ingress-namespace",
    ]
    assert found["test02"]["namespaces"] == ["b-test02"]
    assert found["test02"]["since"].startswith("20")
    one = ringfence("tenants", "get", "test01", "-o", "json", *where(lived_in))
    assert json.loads(one.stdout) == [found["test01"]]
