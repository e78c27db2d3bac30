"""Install, test, upgrade, refuse, roll back and uninstall by real helms, on a real API server.

Webhook and controller run from the chart with their own ServiceAccounts, so each right that a role
lacks fails here. Each helm has a cluster of its own: what one leaves is no concern of the other.
"""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import pytest

from generators.documents.json import mapping, text
from tests.charts.cluster.conftest import Site
from tests.charts.cluster.rendered import CHART, SYSTEM
from tests.charts.helm import Done, Helm, said
from tests.testbed.waiting import patience

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

TENANTS: dict[str, object] = {
    "labelKey": "client",
    "admins": {"groups": ["platform-team"]},
    "tenants": [
        {
            "name": "test01",
            "namespaces": {"suffixes": ["-test01"]},
            "members": {"groups": ["team-test01"]},
        },
        {"name": "test02", "namespaces": {"suffixes": ["-test02"]}},
    ],
}
MEMBERS = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: members}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: team-test01}]
"""
POLICY = "networkpolicy.networking.k8s.io/allow-ingress-namespace"
QUOTA = """\
apiVersion: kyverno.io/v1
kind: ClusterPolicy
metadata: {name: settings}
spec:
  rules:
  - name: settings
    match: {any: [{resources: {kinds: [Namespace], names: ["late*"]}}]}
    generate:
      apiVersion: v1
      kind: ConfigMap
      name: settings
      namespace: "{{request.object.metadata.name}}"
      synchronize: true
      data: {data: {team: test03}}
"""
ADMISSION = (
    "validatingwebhookconfigurations,mutatingwebhookconfigurations,"
    "validatingadmissionpolicies,validatingadmissionpolicybindings"
)
BY_ITSELF = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
ACCOUNTS = (
    "ringfence-controller",
    "ringfence-webhook",
    "ringfence-enforcer",
    "ringfence-agents-gone",
    "ringfence-unregister",
    "ringfence-forget",
    "ringfence-verify",
)
HOOKS = ("-n", SYSTEM, "-l", "app.kubernetes.io/component=hook")
WAIT = ("--timeout", f"{patience(300):.0f}s")


def tenants(*more: dict[str, object]) -> dict[str, object]:
    file = deepcopy(TENANTS)
    listed = file["tenants"]
    assert isinstance(listed, list)
    listed.extend(more)
    return file


def advice(done: Done) -> list[str]:
    """The commands that a refused hook names."""
    return re.findall(r'^  ([^"\n]+)', said(done).partition("try again:")[2], re.MULTILINE)


MEMBER = ("--as=alice", "--as-group=team-test01", "--as-group=system:authenticated")


@dataclass(frozen=True, slots=True)
class Release:
    """The chart's release at a site, in the hands of one helm."""

    helm: Helm
    site: Site
    values: dict[str, object]

    def run(self, *words: str, **values: object) -> str:
        told = self.helm.values(self.values | values) if values else []
        return self.helm.run(*words, *told, *WAIT, namespace=SYSTEM)

    @property
    def old(self) -> str:
        return f"old{self.helm.major.value}-test02"


def release_at(site: Site, helm: Helm) -> Release:
    return Release(
        helm.at(site.plane), site, site.values() | {"uninstall": {"removeIsolation": True}}
    )


def install(release: Release, **values: object) -> None:
    """A namespace that existed before, and one of a member, are their tenants'."""
    site, plane, old = release.site, release.site.plane, release.old
    plane.kubectl("apply", "-f", "-", stdin=MEMBERS)
    plane.kubectl("create", "namespace", old)
    words = ("install", "ringfence", str(CHART), "--create-namespace")
    release.run(*words, tenantFile=tenants(), **values)
    site.find_service()
    site.wait_for_webhook()
    site.soon(lambda: site.labels(old).get("client") == "test02", "label of what was there")
    assert "Phase:          Succeeded" in release.run("test", "ringfence")
    new = f"new{release.helm.major.value}"
    plane.kubectl("create", "namespace", new, *MEMBER)
    assert site.labels(new)["client"] == "test01", "labelled as it was created"
    site.soon(lambda: POLICY in site.names("networkpolicies", "-n", new), "isolation policy")
    forged = ("label", "namespace", old, "client=test01", "--overwrite")
    refused = plane.try_kubectl(*forged, *MEMBER)
    assert refused.returncode != 0
    assert "client" in refused.stderr


def uninstall(release: Release) -> None:
    """Admission goes first and stays away, though a controller still runs; then all the rest."""
    site = release.site
    release.run("uninstall", "ringfence")
    assert site.names(ADMISSION) == []
    assert set(site.names("configmaps,secrets,serviceaccounts,leases", "-n", SYSTEM)) == BY_ITSELF
    ours = ("clusterroles,clusterrolebindings", "-l", "app.kubernetes.io/name=ringfence")
    assert site.names(*ours) == []
    assert site.names("networkpolicies", "-A") == []
    site.plane.kubectl("label", "namespace", release.old, "client=anything", "--overwrite")


def test_an_install_works_and_leaves_without_a_trace(helm4: Helm, site: Site) -> None:
    release = release_at(site, helm4)
    install(release, enforcer={"enabled": False})
    uninstall(release)


@pytest.mark.slow
def test_every_upgrade_rollback_and_refusal_in_the_life_of_an_install(
    helm: Helm, site: Site, tmp_path: Path
) -> None:
    release = release_at(site, helm)
    helm, plane, run, here = release.helm, site.plane, release.run, release.values
    install(release)
    site.follow_as_agent(tmp_path)

    # --- upgrade: a bad tenant file changes nothing, a good one comes into force.
    overlap: dict[str, object] = {"name": "test03", "namespaces": {"suffixes": ["-test02"]}}
    words = (
        "upgrade",
        "ringfence",
        str(CHART),
        *helm.values(here | {"tenantFile": tenants(overlap)}),
    )
    bad = helm.attempt(*words, *WAIT, namespace=SYSTEM)
    assert bad.returncode != 0
    assert "tenants.yaml:" in said(bad)
    assert "test02" in said(bad)
    assert "test03" not in plane.kubectl(
        "get", "cm", "ringfence-tenants", "-n", SYSTEM, "-o", "yaml"
    )
    third: dict[str, object] = {"name": "test03", "namespaces": {"suffixes": ["-test03"]}}
    policies = {"cluster": True, "installCRDs": True}
    run("upgrade", "ringfence", str(CHART), tenantFile=tenants(third), policies=policies)
    for component in ("controller", "webhook"):
        site.restart(component)
    site.wait_for_webhook()
    assert "Phase:          Succeeded" in run("test", "ringfence")
    late = f"late{helm.major.value}-test03"
    plane.kubectl("create", "namespace", late)
    site.soon(lambda: site.labels(late).get("client") == "test03", "a tenant of the new file")
    site.soon(lambda: site.try_apply(QUOTA), "the kinds of policies")
    ready = (
        "wait",
        "clusterpolicy",
        "settings",
        "--for=condition=Ready",
        f"--timeout={patience(180):.0f}s",
    )
    plane.kubectl(*ready)
    later = f"later{helm.major.value}-test03"
    plane.kubectl("create", "namespace", later)
    generated = "configmap/settings"
    site.soon(lambda: generated in site.names("configmaps", "-n", later), "generated")

    # --- rollback
    run("rollback", "ringfence", "1")
    assert "test03" not in plane.kubectl(
        "get", "cm", "ringfence-tenants", "-n", SYSTEM, "-o", "yaml"
    )

    # --- neither upgrade nor rollback nor uninstall leaves nodes with what agents left there.
    def refuse(*words: str) -> list[str]:
        done = helm.attempt(*words, *WAIT, namespace=SYSTEM)
        assert done.returncode != 0
        assert "still runs agents" in said(done)
        assert site.names("roles,rolebindings,serviceaccounts", *HOOKS) == []
        return advice(done)

    def follow(commands: list[str]) -> None:
        for command in commands:
            program, *words = command.replace("CHART", str(CHART)).split()
            if program == "helm":
                helm.run(*words, *WAIT, namespace=SYSTEM)
            else:
                plane.kubectl(*words, f"--timeout={patience(180):.0f}s")

    quick = {"checkTenantFile": False}
    without = helm.values(here | quick | {"enforcer": {"enabled": False}})
    refuse("upgrade", "ringfence", str(CHART), *without)
    refuse("rollback", "ringfence", "5")
    run("rollback", "ringfence", "4")
    follow(refuse("uninstall", "ringfence")[:1])
    refuse("upgrade", "ringfence", str(CHART), *without)
    told = refuse("uninstall", "ringfence")
    assert len(site.names(ADMISSION)) == 6
    follow(told)

    uninstall(release)

    # --- nothing that any of them asked for was forbidden.
    asked = {account: site.requests(account) for account in ACCOUNTS}
    assert all(asked.values())
    denied = [
        (account, request["verb"], text(mapping(request, "objectRef"), "resource"))
        for account, requests in asked.items()
        for request in requests
        if mapping(request, "responseStatus").get("code") == 403
        # Its question whether admission holds is meant to be refused, by admission.
        and "RBAC" in str(mapping(request, "responseStatus"))
    ]
    assert denied == []
