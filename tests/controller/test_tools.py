"""Tools write the namespace again and again: what leaves the tenant label out is mended, not stuck.

Each flow is run as its tool runs it, by a member of the tenant: first with the label in the
manifest, then with a manifest that does not know of it, three times.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from generators.errors import MachineLacks
from generators.kube.errors import Forbidden
from generators.labels import AUDIT_MODE, MODE_ANNOTATION
from tests.controller.cluster import Cluster
from tests.testbed import build
from tests.testbed.waiting import eventually, patience

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
Name = Callable[[str], str]
TENANT = "test01"
Done = subprocess.CompletedProcess[str]


class Person:
    """A member of test01 with kubectl and her namespace."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        self.cluster, self.namespace, self.folder = cluster, namespace, folder

    def kubectl(
        self, *arguments: str, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        groups = ["team-test01"]
        return self.cluster.plane.try_kubectl(*arguments, user="anna", groups=groups, stdin=stdin)

    def manifest(self, **labels: str) -> str:
        meta = {"name": self.namespace, "labels": {"app": "shop", **labels}}
        return json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})

    def version(self) -> str:
        done = self.kubectl("get", "namespace", self.namespace, "-o", "json")
        return str(json.loads(done.stdout)["metadata"]["resourceVersion"])


Flow = Callable[[Person, str], Done]


@pytest.fixture
def anna(guarded_cluster: Cluster, name: Name, tmp_path: Path) -> Person:
    person = Person(guarded_cluster, name("plain"), tmp_path)
    guarded_cluster.make(person.namespace, guarded_cluster.as_user("anna", "team-test01"))
    eventually(lambda: guarded_cluster.isolated(person.namespace, TENANT), "isolated")
    return person


def apply(*options: str) -> Flow:
    return lambda anna, text: anna.kubectl("apply", *options, "-f", "-", stdin=text)


def server_side(manager: str, *options: str) -> Flow:
    return apply("--server-side", f"--field-manager={manager}", *options)


def replace(anna: Person, text: str) -> Done:
    return anna.kubectl("replace", "-f", "-", stdin=text)


FORCE = "--force-conflicts"
FLOWS: dict[str, Flow] = {
    "kubectl apply": apply(),
    "kubectl apply --server-side": server_side("kubectl", FORCE),
    "kubectl replace, Argo CD Replace=true": replace,
    "Argo CD": server_side("argocd-controller", FORCE),
    "Flux": server_side("kustomize-controller", FORCE),
    "Terraform": server_side("Terraform", FORCE),
    "Helm, server side": server_side("helm", FORCE),
}


@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)
def test_a_manifest_without_the_label_is_applied_again_and_again(anna: Person, flow: Flow) -> None:
    first = flow(anna, anna.manifest(client=TENANT))
    assert first.returncode == 0, first.stderr
    without = anna.manifest()
    told = flow(anna, without)
    assert told.returncode == 0, told.stderr
    assert anna.cluster.labels(anna.namespace)["client"] == TENANT
    before = anna.version()
    for _ in range(2):
        again = flow(anna, without)
        assert again.returncode == 0, again.stderr
        assert anna.version() == before
    how = () if flow is FLOWS["kubectl apply"] else ("--server-side", FORCE)
    compared = anna.kubectl("diff", *how, "-f", "-", stdin=without)
    assert (compared.returncode, compared.stdout) == (0, "")
    assert anna.cluster.isolated(anna.namespace, TENANT)
    assert anna.cluster.labels(anna.namespace)["cost-centre"] == "4711"


@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)
def test_another_tenant_is_refused_with_a_way_out(anna: Person, flow: Flow) -> None:
    refused = flow(anna, anna.manifest(client="test02"))
    assert refused.returncode != 0
    assert "changing label client from test01 to test02 is refused" in refused.stderr
    assert "undo this change of the label or ask an admin" in refused.stderr
    assert anna.cluster.isolated(anna.namespace, TENANT)


PATCHES = {
    "strategic": ("--type=strategic", '{"metadata":{"labels":{"client":null}}}'),
    "merge": ("--type=merge", '{"metadata":{"labels":null}}'),
    "json": ("--type=json", '[{"op":"remove","path":"/metadata/labels"}]'),
}


@pytest.mark.parametrize(("kind", "patch"), PATCHES.values(), ids=PATCHES)
def test_a_patch_that_removes_the_label_is_mended(anna: Person, kind: str, patch: str) -> None:
    for _ in range(3):
        done = anna.kubectl("patch", "namespace", anna.namespace, kind, "-p", patch)
        assert done.returncode == 0, done.stderr
        assert "Warning: client=test01 is kept" in done.stderr
        assert anna.cluster.isolated(anna.namespace, TENANT)


def test_an_edit_that_removes_the_label_is_mended(
    anna: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBE_EDITOR", "sed -i '/ client:/d'")
    done = anna.kubectl("edit", "namespace", anna.namespace)
    assert done.returncode == 0, done.stderr
    assert "Warning: client=test01 is kept" in done.stderr
    assert anna.cluster.isolated(anna.namespace, TENANT)


def test_labels_of_a_former_key_are_left_out_with_a_warning(anna: Person) -> None:
    old = anna.manifest(owner=TENANT)
    for _ in range(2):
        done = anna.kubectl("apply", "-f", "-", stdin=old)
        assert done.returncode == 0, done.stderr
        assert "owner=test01 is left out: the tenant label is client" in done.stderr
        assert "owner" not in anna.cluster.labels(anna.namespace)


@pytest.mark.parametrize("product", [build.HELM3, build.HELM], ids=["helm 3", "helm 4"])
def test_a_chart_that_drops_the_label_from_its_namespace_upgrades(
    anna: Person, product: build.Product
) -> None:
    try:
        helm = build.ensure(product, lambda _: None) / "helm"
    except MachineLacks as lack:
        pytest.skip(str(lack))
    chart = anna.folder / "chart"
    (chart / "templates").mkdir(parents=True)
    meta = {"apiVersion": "v2", "name": "shop", "version": "0.1.0"}
    (chart / "Chart.yaml").write_text(yaml.safe_dump(meta))
    ours = {"app.kubernetes.io/managed-by": "Helm"}
    names = {"meta.helm.sh/release-name": "shop", "meta.helm.sh/release-namespace": anna.namespace}
    adopt = json.dumps({"metadata": {"labels": ours, "annotations": names}})
    assert anna.kubectl("patch", "namespace", anna.namespace, "-p", adopt).returncode == 0
    config = anna.cluster.plane.kubeconfig("anna", ["team-test01"])
    # Members of this cluster may not touch Secrets.
    environment = os.environ | {"HELM_DRIVER": "configmap", "HOME": str(anna.folder)}
    for text in (anna.manifest(client=TENANT), anna.manifest(), anna.manifest()):
        (chart / "templates" / "namespace.yaml").write_text(text)
        command = [helm, "upgrade", "--install", "shop", chart, "-n", anna.namespace]
        command += ["--kubeconfig", config]
        done = subprocess.run(
            [str(word) for word in command],
            env=environment,
            capture_output=True,
            text=True,
            timeout=patience(60),
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert anna.cluster.labels(anna.namespace)["client"] == TENANT
    assert anna.cluster.isolated(anna.namespace, TENANT)


BY_NAME = "-test01"
RESTORES: dict[str, tuple[str, dict[str, str], dict[str, str], str]] = {
    "by its name, with the label": (BY_NAME, {"client": TENANT}, {}, ""),
    "by its name, without it": (BY_NAME, {}, {}, ""),
    "under another tenant's name": ("-test02", {"client": TENANT}, {}, "contradicts the name"),
    "under nobody's name": ("-plain", {"client": TENANT}, {}, "an admin of"),
    "under audit": (BY_NAME, {}, {MODE_ANNOTATION: AUDIT_MODE}, "only admins of"),
}


@pytest.mark.parametrize(
    ("suffix", "labels", "annotations", "said"), RESTORES.values(), ids=RESTORES
)
def test_what_a_restore_by_nobody_brings(
    guarded_cluster: Cluster,
    name: Name,
    suffix: str,
    labels: dict[str, str],
    annotations: dict[str, str],
    said: str,
) -> None:
    """As docs/backup.md has it."""
    restored = name("x").removesuffix("-x") + suffix
    robot = guarded_cluster.as_user("system:serviceaccount:velero:velero", "robots")
    if said:
        with pytest.raises(Forbidden, match=said):
            guarded_cluster.make(restored, robot, labels=labels, annotations=annotations)
        return
    guarded_cluster.make(restored, robot, labels=labels, annotations=annotations)
    eventually(lambda: guarded_cluster.isolated(restored, TENANT), "its tenant's again")


def test_a_restore_leaves_labels_of_a_former_key_out(guarded_cluster: Cluster, name: Name) -> None:
    restored = name(TENANT)
    robot = guarded_cluster.as_user("system:serviceaccount:velero:velero", "robots")
    guarded_cluster.make(restored, robot, labels={"owner": TENANT})
    assert "owner" not in guarded_cluster.labels(restored)


def test_a_restore_by_an_admin_brings_the_tenant_back(guarded_cluster: Cluster, name: Name) -> None:
    """The namespace got its tenant from a requester; its backup carries the label."""
    restored, label = name("plain"), {"client": TENANT}
    robot = guarded_cluster.as_user("system:serviceaccount:velero:velero", "robots")
    with pytest.raises(Forbidden, match="or make the requester an admin of"):
        guarded_cluster.make(restored, robot, labels=label)
    velero = guarded_cluster.as_user(
        "system:serviceaccount:ops:mover", "system:serviceaccounts:ops"
    )
    guarded_cluster.make(restored, velero, labels=label)
    eventually(lambda: guarded_cluster.isolated(restored, TENANT), "its tenant's again")
