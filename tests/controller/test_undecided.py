"""What nobody has decided is closed and told: ties of names, and tenants that left the file."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from generators.documents.json import Document
from generators.kube.client import PatchKind
from generators.kube.resources import EVENTS, NAMESPACES
from generators.labels import AUDIT_MODE, MODE_ANNOTATION
from tests.controller.cluster import TENANTS, Cluster, ControllerProcess, guarded
from tests.testbed.planes import Planes
from tests.testbed.waiting import eventually

pytestmark = pytest.mark.cluster
Run = Callable[..., "subprocess.CompletedProcess[str]"]
GRANT = "    allowFrom: [{tenant: test02, ports: [{port: 5432, protocol: TCP}]}]\n"
WITHOUT_TEST02 = TENANTS[: TENANTS.index("  - name: test02")].replace(GRANT, "")
GAUGE = "ringfence_controller_undecided_namespaces"


@pytest.fixture(scope="module")
def running(
    planes: Planes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Cluster, ControllerProcess]]:
    with guarded(tmp_path_factory.mktemp("undecided"), plane=planes.one()) as found:
        yield found


def follow(cluster: Cluster, text: str) -> None:
    cluster.tenants.write_text(text)
    eventually(cluster.synchronized, "the tenant file is in force and followed")


def verify(cluster: Cluster, ringfence: Run) -> str:
    kubeconfig = str(cluster.plane.kubeconfig())
    return ringfence(
        "controller", "verify", "-c", cluster.tenants, "--kubeconfig", kubeconfig
    ).stdout


def made_up(namespace: str) -> Document:
    """An Event as whoever may write Events in a namespace can write it."""
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "made-up", "namespace": namespace},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "type": "Normal",
        "reason": "TenantAssigned",
        "action": "Synchronize",
        "note": "belongs to test01\n[-]all is lost",
        "reportingController": "ringfence.io/controller",
        "reportingInstance": "nobody",
        "regarding": {
            "apiVersion": "v1",
            "kind": "Namespace",
            "name": "kube-system",
            "namespace": namespace,
        },
    }


def member(cluster: Cluster) -> str:
    return str(cluster.plane.kubeconfig("theo", ["team-test02"]))


def admin(cluster: Cluster) -> str:
    return str(cluster.plane.kubeconfig("ada", ["platform-team"]))


def test_a_tie_of_an_existing_name_is_in_quarantine_until_an_admin_decides(
    running: tuple[Cluster, ControllerProcess], ringfence: Run
) -> None:
    cluster, controller = running
    cluster.make("abc-xyz")
    tied = TENANTS.replace('"test01-"', '"test01-", "abc-"').replace(
        '"-test02"', '"-test02", "-xyz"'
    )
    follow(cluster, tied)
    policy = cluster.policy("abc-xyz")
    assert policy is not None
    assert "'kubernetes.io/metadata.name': 'abc-xyz'" in str(policy["spec"])
    assert (cluster.tenant("abc-xyz"), cluster.recorded("abc-xyz")) == (None, None)
    assert "TenantAmbiguous" in cluster.reasons("abc-xyz")
    assert '[!]in quarantine: abc-xyz: name matches prefix "abc-"' in verify(cluster, ringfence)
    gauge = GAUGE + '{reason="TenantAmbiguous"}'
    assert controller.metrics()[gauge] == 1
    cluster.label("abc-xyz", "test01", cluster.as_user("ada", "platform-team"))
    eventually(partial(cluster.isolated, "abc-xyz", "test01"), "the admin has decided")
    eventually(lambda: controller.metrics()[gauge] == 0, "nothing is undecided")
    eventually(lambda: "in quarantine" not in verify(cluster, ringfence), "verify says nothing")


def test_a_name_that_becomes_a_tenants_is_told(
    running: tuple[Cluster, ControllerProcess], ringfence: Run
) -> None:
    cluster, controller = running
    follow(cluster, TENANTS)
    cluster.make("free-later")
    eventually(lambda: cluster.nobodys("free-later"), "nobody's")
    follow(cluster, TENANTS.replace('"-test02"', '"-test02", "-later"'))
    assert cluster.isolated("free-later", "test02")
    assert "TenantAssigned" in cluster.reasons("free-later")
    cluster.admin.create(EVENTS, made_up("free-later"), manager="test")
    said = verify(cluster, ringfence)
    assert "[+]free-later belonged to no tenant and now belongs to test02 by its name\n" in said
    assert "all is lost" not in said
    assert controller.metrics()['ringfence_controller_findings_total{reason="TenantAssigned"}'] == 1


def test_a_tenant_that_leaves_the_file_leaves_its_namespaces_in_quarantine(
    running: tuple[Cluster, ControllerProcess], ringfence: Run
) -> None:
    cluster, controller = running
    follow(cluster, TENANTS)
    left, released, moved, deleted = names = [f"{w}-test02" for w in ("l", "r", "m", "d")]
    for name in names:
        cluster.make(name)
        eventually(partial(cluster.isolated, name, "test02"), name)
    follow(cluster, WITHOUT_TEST02)
    gauge = GAUGE + '{reason="TenantRemoved"}'
    for name in names:
        assert cluster.isolated(name, "test02")
        assert "TenantRemoved" in cluster.reasons(name)
    assert f"[!]in quarantine: {left}: tenant test02 is not in" in verify(cluster, ringfence)
    before = controller.metrics()[gauge]
    assert before >= len(names)

    refused = ringfence(
        "namespace", "label", released, "--release", "--kubeconfig", member(cluster)
    )
    assert refused.returncode == 1
    assert "only admins of the tenant file may release it" in refused.stderr
    assert cluster.isolated(released, "test02")
    done = ringfence("namespace", "label", released, "--release", "--kubeconfig", admin(cluster))
    assert done.returncode == 0, done.stderr
    eventually(lambda: cluster.nobodys(released), "released")
    assert "TenantReleased" in cluster.reasons(released)
    cluster.label(moved, "test01", cluster.as_user("ada", "platform-team"))
    eventually(partial(cluster.isolated, moved, "test01"), "moved")
    cluster.admin.delete(NAMESPACES, deleted)
    eventually(lambda: controller.metrics()[gauge] == before - 3, "three are decided")
    assert cluster.isolated(left, "test02")
    again = ringfence("namespace", "label", moved, "--release", "--kubeconfig", admin(cluster))
    assert again.returncode == 1
    assert "belongs to tenant test01, which is in the tenant file" in again.stderr


def test_under_audit_nothing_that_isolates_is_written(
    running: tuple[Cluster, ControllerProcess],
) -> None:
    """A CNI of others knows no audit: what it could cut by must not be there."""
    cluster, _ = running
    follow(cluster, TENANTS)
    cluster.make("tried-test01")
    eventually(partial(cluster.isolated, "tried-test01", "test01"), "isolated")
    follow(cluster, TENANTS.replace("labelKey", "mode: audit\nlabelKey"))
    assert cluster.policy("tried-test01") is None
    assert cluster.tenant("tried-test01") == cluster.recorded("tried-test01") == "test01"
    follow(cluster, TENANTS)
    assert cluster.isolated("tried-test01", "test01")
    patch: Document = {"metadata": {"annotations": {MODE_ANNOTATION: AUDIT_MODE}}}
    cluster.admin.patch(*(NAMESPACES, "tried-test01", "", patch), kind=PatchKind.MERGE, manager="t")
    eventually(lambda: cluster.policy("tried-test01") is None, "under audit by its annotation")
