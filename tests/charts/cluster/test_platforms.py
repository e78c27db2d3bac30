"""What `platform` makes of the chart: directories of the node, and what else is asked for there."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import yaml

from generators.documents.json import Document, mapping, mappings, text
from tests.charts.cluster.rendered import (
    CHART,
    CHECKOUT,
    SYSTEM,
    containers,
    documents,
    find,
    name,
    pod_specs,
)
from tests.charts.helm import Helm, said
from tests.testbed.plane import ControlPlane

pytestmark = pytest.mark.cluster

DIRECTORIES: Mapping[str, tuple[str, str]] = {
    "generic": ("/etc/cni/net.d", "/opt/cni/bin"),
    "k3s": ("/var/lib/rancher/k3s/agent/etc/cni/net.d", "/var/lib/rancher/k3s/data/cni"),
    "gke": ("/etc/cni/net.d", "/home/kubernetes/bin"),
    "openshift": ("/etc/kubernetes/cni/net.d", "/var/lib/cni/bin"),
    "aks": ("/etc/cni/net.d", "/opt/cni/bin"),
    "eks": ("/etc/cni/net.d", "/opt/cni/bin"),
    "talos": ("/etc/cni/net.d", "/opt/cni/bin"),
    "microk8s": (
        "/var/snap/microk8s/current/args/cni-network",
        "/var/snap/microk8s/current/opt/cni/bin",
    ),
}
QUOTA = "ResourceQuota/ringfence-critical-pods"
CONSTRAINTS = "SecurityContextConstraints/ringfence-enforcer"


def rendered(helm: Helm, **values: object) -> list[Document]:
    words = helm.values(values)
    return documents(helm.template("ringfence", CHART, *words, namespace=SYSTEM))


def agent(found: list[Document]) -> Mapping[str, object]:
    """The pod of the DaemonSet."""
    (spec,) = (s for owner, s in pod_specs(found) if owner == "DaemonSet/ringfence-enforcer")
    return spec


def directories(spec: Mapping[str, object]) -> tuple[str, ...]:
    """Of the node's CNI: mounted where the node has them, and as the agent is told."""
    (container,) = containers(spec)
    found = []
    for volume, option in (("cni-conf", "--cni-conf-dir="), ("cni-bin", "--cni-bin-dir=")):
        (on_node,) = (v for v in mappings(spec, "volumes") if v["name"] == volume)
        (inside,) = (m for m in mappings(container, "volumeMounts") if m["name"] == volume)
        path = text(mapping(on_node, "hostPath"), "path")
        arguments = container["args"]
        assert isinstance(arguments, list)
        assert inside["mountPath"] == path
        assert f"{option}{path}" in arguments
        found.append(path)
    return tuple(found)


@pytest.mark.parametrize("platform", DIRECTORIES)
@pytest.mark.parametrize("remove", [False, True], ids=["runs", "is removed"])
def test_the_agent_looks_where_the_platform_has_its_cni(
    helm: Helm, platform: str, remove: bool
) -> None:
    found = rendered(helm, platform=platform, enforcer={"remove": remove})
    spec = agent(found)
    if remove:
        spec = {**spec, "containers": []}
    assert directories(spec) == DIRECTORIES[platform]
    names = {name(document) for document in found}
    assert (QUOTA in names) == (platform == "gke")
    assert (CONSTRAINTS in names) == (platform == "openshift")


def test_what_enforcer_cni_says_goes_before_the_platform(helm: Helm) -> None:
    cni = {"confDir": "/etc/other/net.d", "binDir": "/opt/other/bin"}
    found = rendered(helm, platform="k3s", enforcer={"cni": cni})
    assert directories(agent(found)) == ("/etc/other/net.d", "/opt/other/bin")


def test_a_platform_that_is_none_is_refused_with_those_that_are(helm: Helm) -> None:
    words = helm.values({"platform": "k8s"})
    done = helm.attempt("template", "ringfence", CHART, *words, namespace=SYSTEM)
    assert done.returncode != 0
    assert "at '/platform': value must be one of 'generic', 'k3s'" in said(done)


def test_on_gke_a_quota_admits_every_pod_of_critical_priority(
    helm: Helm, system: ControlPlane
) -> None:
    found = rendered(helm, platform="gke")
    quota = find(found, QUOTA)
    (scope,) = mappings(mapping(mapping(quota, "spec"), "scopeSelector"), "matchExpressions")
    asked = {text(spec, "priorityClassName") for _, spec in pod_specs(found)} - {""}
    assert asked == set(scope["values"])  # type: ignore[call-overload]  # a list of words
    words = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
    assert system.kubectl(*words, stdin=yaml.safe_dump(quota))


def test_on_openshift_the_agent_s_constraints_are_what_its_pod_asks_for(helm: Helm) -> None:
    found = rendered(helm, platform="openshift")
    constraints, spec = find(found, CONSTRAINTS), agent(found)
    (container,) = containers(spec)
    context = mapping(container, "securityContext")
    assert constraints["users"] == [f"system:serviceaccount:{SYSTEM}:ringfence-enforcer"]
    assert constraints["allowedCapabilities"] == mapping(context, "capabilities")["add"]
    for option, asked in (
        ("allowHostNetwork", spec["hostNetwork"]),
        ("allowHostPID", spec["hostPID"]),
        ("allowHostIPC", spec["hostIPC"]),
        ("allowPrivilegedContainer", context["privileged"]),
        ("allowPrivilegeEscalation", context["allowPrivilegeEscalation"]),
        ("readOnlyRootFilesystem", context["readOnlyRootFilesystem"]),
    ):
        assert constraints[option] is asked, option
    kinds = {key for v in mappings(spec, "volumes") for key in v if key != "name"}
    assert kinds | {"projected"} == set(constraints["volumes"])  # type: ignore[call-overload]
    assert context["seLinuxOptions"] == {"type": "spc_t"}


def test_on_openshift_all_other_pods_take_the_user_that_their_namespace_has(helm: Helm) -> None:
    """The user of `restricted-v2`, which refuses any other."""
    for owner, spec in pod_specs(rendered(helm, platform="openshift")):
        if owner == "DaemonSet/ringfence-enforcer":
            continue
        context = mapping(spec, "securityContext")
        assert context["runAsNonRoot"] is True
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(context), owner


def test_the_page_has_a_row_for_every_platform_with_its_directories() -> None:
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in (CHECKOUT / "docs/platforms.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    rows = [row for row in rows if row[0].strip("`") in DIRECTORIES]
    written = {row[0].strip("`"): (row[1].strip("`"), row[2].strip("`")) for row in rows}
    assert {key: written.get(key) for key in DIRECTORIES} == DIRECTORIES
