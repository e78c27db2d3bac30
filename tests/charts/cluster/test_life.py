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


def upgrades_to_good_files_only(release: Release) -> None:
    """A bad tenant file changes nothing, a good one comes into force with policies, and goes."""
    helm, site, plane = release.helm, release.site, release.site.plane
    overlap: dict[str, object] = {"name": "test03", "namespaces": {"suffixes": ["-test02"]}}
    values = helm.values(release.values | {"tenantFile": tenants(overlap)})
    words = ("upgrade", "ringfence", str(CHART), *values)
    bad = helm.attempt(*words, *WAIT, namespace=SYSTEM)
    assert bad.returncode != 0
    assert "tenants.yaml:" in said(bad)
    assert "test02" in said(bad)
    live = ("get", "cm", "ringfence-tenants", "-n", SYSTEM, "-o", "yaml")
    assert "test03" not in plane.kubectl(*live)
    third: dict[str, object] = {"name": "test03", "namespaces": {"suffixes": ["-test03"]}}
    policies = {"cluster": True, "installCRDs": True}
    release.run("upgrade", "ringfence", str(CHART), tenantFile=tenants(third), policies=policies)
    for component in ("controller", "webhook"):
        site.restart(component)
    site.wait_for_webhook()
    assert "Phase:          Succeeded" in release.run("test", "ringfence")
    executes_policies_for_a_new_tenant(release)

    release.run("rollback", "ringfence", "1")
    assert "test03" not in plane.kubectl(*live)


def executes_policies_for_a_new_tenant(release: Release) -> None:
    site, plane, major = release.site, release.site.plane, release.helm.major.value
    late, later = f"late{major}-test03", f"later{major}-test03"
    plane.kubectl("create", "namespace", late)
    site.soon(lambda: site.labels(late).get("client") == "test03", "a tenant of the new file")
    site.soon(lambda: site.try_apply(QUOTA), "the kinds of policies")
    ready = ("--for=condition=Ready", f"--timeout={patience(180):.0f}s")
    plane.kubectl("wait", "clusterpolicy", "settings", *ready)
    plane.kubectl("create", "namespace", later)
    generated = "configmap/settings"
    site.soon(lambda: generated in site.names("configmaps", "-n", later), "generated")


def refuses(release: Release, *words: str) -> list[str]:
    """The commands that lead on; the hook that refused leaves nothing."""
    done = release.helm.attempt(*words, *WAIT, namespace=SYSTEM)
    assert done.returncode != 0
    assert "still runs agents" in said(done)
    assert release.site.names("roles,rolebindings,serviceaccounts", *HOOKS) == []
    return advice(done)


def follow(release: Release, commands: list[str]) -> None:
    for command in commands:
        program, *words = command.replace("CHART", str(CHART)).split()
        if program == "helm":
            release.helm.run(*words, *WAIT, namespace=SYSTEM)
        else:
            release.site.plane.kubectl(*words, f"--timeout={patience(180):.0f}s")


def leaves_no_node_with_what_agents_left(release: Release) -> None:
    """Neither upgrade nor rollback nor uninstall does."""
    quick = {"checkTenantFile": False, "enforcer": {"enabled": False}}
    upgrade = ("upgrade", "ringfence", str(CHART), *release.helm.values(release.values | quick))
    refuses(release, *upgrade)
    refuses(release, "rollback", "ringfence", "5")
    release.run("rollback", "ringfence", "4")
    follow(release, refuses(release, "uninstall", "ringfence")[:1])
    refuses(release, *upgrade)
    told = refuses(release, "uninstall", "ringfence")
    assert len(release.site.names(ADMISSION)) == 6
    follow(release, told)


def was_forbidden_nothing(site: Site) -> None:
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


@pytest.mark.slow
def test_every_upgrade_rollback_and_refusal_in_the_life_of_an_install(
    helm: Helm, site: Site, tmp_path: Path
) -> None:
    release = release_at(site, helm)
    install(release)
    site.follow_as_agent(tmp_path)
    upgrades_to_good_files_only(release)
    leaves_no_node_with_what_agents_left(release)
    uninstall(release)
    was_forbidden_nothing(site)
