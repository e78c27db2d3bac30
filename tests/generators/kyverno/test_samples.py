"""The samples of the public library, written anew from what they are known to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from generators.documents.json import annotations_of, labels_of, mapping, object_key_of
from generators.kyverno.model import Document, Generation, Mutation
from generators.kyverno.offline.applying import Applied, apply
from generators.kyverno.offline.lint import lint
from generators.kyverno.offline.loading import load_policies
from generators.kyverno.requests import Asker
from generators.kyverno.results import RuleOutcome
from tests.generators.kyverno.policies import ns, thing

SAMPLES = Path(__file__).parent / "samples"
ANN = Asker("ann", ("devs",))
ADMIN = Asker("root", (), (), ("cluster-admin",))


@dataclass(frozen=True)
class Case:
    """A sample, the object that triggers it, and what comes out."""

    sample: str
    trigger: Document
    generated: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    others: tuple[Document, ...] = ()
    requester: Asker | None = ANN


def noted(name: str, **annotations: str) -> Document:
    document = ns(name)
    document["metadata"] = {"name": name, "annotations": {**annotations}}
    return document


REGCRED = thing("Secret", "default", "regcred", data={"x": "eA=="})
TENANT = ns("apps", toolkit_tenant="x")
TENANT["metadata"] = {"name": "apps", "labels": {"toolkit.fluxcd.io/tenant": "blue"}}
BACKUP = thing(
    "Policy",
    "kasten-io",
    "all",
    "config.kio.kasten.io/v1alpha1",
    spec={"selector": {"matchNames": ["gold-1"]}},
)
PSA = "pod-security.kubernetes.io"
CASES = [
    Case("add-network-policy", ns("shop"), ("NetworkPolicy shop/default-deny",)),
    Case("add-networkpolicy-dns", ns("shop"), ("NetworkPolicy shop/allow-dns",)),
    Case("add-networkpolicy-dns", ns("kube-system")),
    Case("generate-networkpolicy-existing", ns("shop"), ("NetworkPolicy shop/default-deny",)),
    Case(
        "add-ns-quota",
        ns("shop"),
        ("ResourceQuota shop/default-resourcequota", "LimitRange shop/default-limitrange"),
    ),
    Case("add-rolebinding", ns("shop"), ("RoleBinding shop/ann-admin-binding",)),
    Case("add-rolebinding", ns("shop"), requester=ADMIN),
    Case("sync-secrets", ns("shop"), ("Secret shop/regcred",), others=(REGCRED,)),
    Case("label-existing-namespaces", ns("shop"), labels={"mylabel": "myvalue"}),
    Case("add-privileged-existing-namespaces", ns("shop"), labels={f"{PSA}/enforce": "privileged"}),
    Case("add-privileged-existing-namespaces", ns("kube-system")),
    Case(
        "add-psa-labels",
        ns("shop"),
        labels={f"{PSA}/enforce": "baseline", f"{PSA}/warn": "restricted"},
    ),
    Case("add-ambient-mode-namespace", ns("shop"), labels={"istio.io/dataplane-mode": "ambient"}),
    Case("add-sidecar-injection-namespace", ns("shop"), labels={"istio-injection": "enabled"}),
    Case("add-linkerd-mesh-injection", ns("shop"), annotations={"linkerd.io/inject": "enabled"}),
    Case(
        "add-linkerd-policy-annotation",
        ns("shop"),
        annotations={"config.linkerd.io/default-inbound-policy": "deny"},
    ),
    Case(
        "add-linkerd-policy-annotation",
        noted("shop", **{"config.linkerd.io/default-inbound-policy": "all"}),
        annotations={"config.linkerd.io/default-inbound-policy": "all"},
    ),
    Case("create-authorizationpolicy", ns("shop")),
    Case(
        "generate-flux-multi-tenant-resources",
        TENANT,
        ("ServiceAccount apps/flux-blue", "RoleBinding apps/flux-reconciler"),
    ),
    Case("generate-flux-multi-tenant-resources", ns("shop")),
    Case(
        "kasten-generate-policy-by-preset-label",
        ns("gold-2", dataprotection="gold"),
        ("Policy kasten-io/gold-2-gold-backup-policy",),
        others=(BACKUP,),
    ),
    Case(
        "kasten-generate-policy-by-preset-label",
        ns("gold-1", dataprotection="gold"),
        others=(BACKUP,),
    ),
]
MESH = ns("mesh")
MESH["metadata"] = {"name": "mesh", "labels": {"istio-injection": "enabled"}}
CASES.append(Case("create-authorizationpolicy", MESH, ("AuthorizationPolicy mesh/allow-nothing",)))


def run(case: Case) -> Applied:
    loaded = load_policies([str(SAMPLES / f"{case.sample}.yaml")])
    assert loaded.problems == ()
    return apply(loaded.policies, [case.trigger], case.others, requester=case.requester)


@pytest.mark.parametrize(
    "case", CASES, ids=lambda c: f"{c.sample}, {object_key_of(c.trigger).name}"
)
def test_a_sample_does_what_it_is_for(case: Case) -> None:
    applied = run(case)
    assert not [r for r in applied.results if r.outcome in (RuleOutcome.ERROR, RuleOutcome.WARN)]
    assert tuple(str(wanted.key) for wanted in applied.generated) == case.generated
    changes = (*applied.mutated, *applied.targets)
    after = changes[-1].after if changes else case.trigger
    for given, wanted in (
        (labels_of(after), case.labels),
        (annotations_of(after), case.annotations),
    ):
        assert wanted.items() <= given.items()
    assert bool(changes) is bool(case.labels or (case.annotations and labels_differ(case)))


def labels_differ(case: Case) -> bool:
    return annotations_of(case.trigger) != case.annotations


def test_every_sample_has_a_case_and_no_finding() -> None:
    files = {path.stem for path in SAMPLES.glob("*.yaml")}
    assert files == {case.sample for case in CASES}
    for name in files:
        loaded = load_policies([str(SAMPLES / f"{name}.yaml")])
        assert lint(loaded) == ()


def test_switches_of_the_policy_reach_its_rules() -> None:
    loaded = load_policies([str(SAMPLES / "generate-networkpolicy-existing.yaml")])
    action = loaded.policies[0].rules[0].action
    assert isinstance(action, Generation)
    assert (action.existing, action.synchronize) == (True, True)
    loaded = load_policies([str(SAMPLES / "label-existing-namespaces.yaml")])
    action = loaded.policies[0].rules[0].action
    assert isinstance(action, Mutation)
    assert action.existing


def test_data_reaches_the_object_unchanged() -> None:
    applied = run(CASES[4])
    quota = mapping(applied.generated[0].document, "spec", "hard")
    assert quota == {
        "requests.cpu": "4",
        "requests.memory": "16Gi",
        "limits.cpu": "4",
        "limits.memory": "16Gi",
    }
