"""The public samples that generate or change existing objects, unmodified on a real API server."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from generators.documents.json import Document, key_of
from generators.kube.client import WatchScope
from generators.kube.resources import NAMESPACES, SECRETS, SERVICE_ACCOUNTS, Resource
from tests.controller.background.ground import OPTIONS, Ground, labels_of, quiet, started
from tests.testbed.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
SAMPLES = Path(__file__).resolve().parents[2] / "generators/kyverno/samples"
RBAC = "rbac.authorization.k8s.io"
MADE = {
    "add-ns-quota": (
        Resource("", "v1", "resourcequotas", "ResourceQuota"),
        Resource("", "v1", "limitranges", "LimitRange"),
    ),
    "sync-secrets": (SECRETS,),
    "create-authorizationpolicy": (
        Resource("security.istio.io", "v1beta1", "authorizationpolicies", "AuthorizationPolicy"),
    ),
    "generate-flux-multi-tenant-resources": (
        SERVICE_ACCOUNTS,
        Resource(RBAC, "v1", "rolebindings", "RoleBinding"),
    ),
}
NETWORK = ("add-network-policy", "add-networkpolicy-dns", "generate-networkpolicy-existing")
LABELLING = ("label-existing-namespaces", "add-privileged-existing-namespaces")
CRD = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: authorizationpolicies.security.istio.io}
spec:
  group: security.istio.io
  scope: Namespaced
  names: {kind: AuthorizationPolicy, plural: authorizationpolicies, singular: authorizationpolicy}
  versions:
  - name: v1beta1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""


KASTEN = "config.kio.kasten.io/v1alpha1/Policy"
BACKUPS = Resource("config.kio.kasten.io", "v1alpha1", "policies", "Policy")
BACKUP_CRD = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: policies.config.kio.kasten.io}
spec:
  group: config.kio.kasten.io
  scope: Namespaced
  names: {kind: Policy, plural: policies, singular: policy}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""


def sample(name: str) -> str:
    return (SAMPLES / f"{name}.yaml").read_text()


def test_samples_do_in_a_cluster_what_they_are_for(bare: Ground) -> None:
    bare.plane.kubectl("apply", "-f", "-", stdin=CRD)
    flux = SAMPLES / "generate-flux-multi-tenant-resources.yaml"
    bare.permit(*OPTIONS, "--policies", str(flux))
    bare.secret("default", "regcred", user="x")
    bare.make("older")
    started(bare)
    for name in (*MADE, *NETWORK, *LABELLING):
        bare.apply(sample(name))
    eventually(
        lambda: all(bare.is_ready(name) for name in (*MADE, *NETWORK, *LABELLING)),
        "Ready",
        30,
    )
    bare.make("team", labels={"istio-injection": "enabled", "toolkit.fluxcd.io/tenant": "blue"})
    for resource in (each for resources in MADE.values() for each in resources):
        eventually(partial(made_in, bare, resource, "team"), f"{resource}")
    eventually(lambda: bare.networks("team") == ["allow-dns", "default-deny"], "network policies")
    eventually(lambda: "default-deny" in bare.networks("older"), "in an existing namespace")
    older = bare.admin.get(NAMESPACES, "older")
    assert labels_of(older)["mylabel"] == "myvalue"
    assert labels_of(older)["pod-security.kubernetes.io/enforce"] == "privileged"
    assert "mylabel" not in labels_of(bare.admin.get(NAMESPACES, "kube-system"))


def test_the_sample_that_reads_a_custom_kind_runs_where_the_operator_names_the_kind(
    bare: Ground,
) -> None:
    """It is read by `apiCall` before it is written, with the printed rights."""
    bare.plane.kubectl("apply", "-f", "-", stdin=BACKUP_CRD)
    bare.plane.kubectl("wait", "--for=condition=Established", "crd/policies.config.kio.kasten.io")
    options = ("--policies", "cluster", "--allow-kind", KASTEN)
    bare.permit(*options)
    bare.make("kasten-io")
    meta: Document = {"name": "all", "namespace": "kasten-io"}
    selector: Document = {"selector": {"matchNames": ["covered"]}}
    backup: Document = {"apiVersion": BACKUPS.api_version, "kind": BACKUPS.kind}
    bare.admin.create(BACKUPS, backup | {"metadata": meta, "spec": selector}, manager="test")
    controller = started(bare, *options)
    name = "kasten-generate-policy-by-preset-label"
    bare.apply(sample(name))
    eventually(lambda: bare.is_ready(name), f"Ready: {controller.log}", 30)
    for namespace in ("covered", "bare"):
        bare.make(namespace, labels={"dataprotection": "gold"})
    made = "bare-gold-backup-policy"
    eventually(lambda: bare.find(BACKUPS, "kasten-io", made) is not None, f"made: {controller.log}")
    eventually(lambda: quiet(controller), "nothing waits")
    assert [key_of(each).name for each in bare.admin.list_all(BACKUPS)] == ["all", made]


def made_in(on: Ground, resource: Resource, namespace: str) -> bool:
    """Whether policies have made such objects there."""
    scope = WatchScope(namespace=namespace, labels="ringfence.io/policy")
    return bool(on.admin.list_all(resource, scope))
