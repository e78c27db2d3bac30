"""What charts/ringfence renders: golden files, least rights, pods that fit, flags that exist."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import click
import pytest
import yaml

from generators.cli import root
from generators.documents.json import Document, mapping, mappings, text
from tests.charts import golden
from tests.charts.cluster.rendered import (
    CASES,
    CHART,
    CHECKOUT,
    FOREIGN,
    SYSTEM,
    containers,
    documents,
    find,
    name,
    pod_specs,
    render,
)
from tests.charts.helm import Helm
from tests.testbed.plane import ControlPlane
from webhook import rbac
from webhook.rbac import RbacRule

pytestmark = pytest.mark.cluster

COMMAND = Path(sys.executable).with_name("ringfence")
GOLDEN = Path(__file__).with_name("golden")
ROLES = sorted((CHART / "templates").rglob("*.yaml"))


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


charts = _load(CHECKOUT / "tools" / "charts.py")


@pytest.mark.parametrize("case", CASES)
def test_the_render_is_the_one_on_file_and_the_same_twice(helm: Helm, case: str) -> None:
    once = render(helm, case)
    again = helm.template("ringfence", CHART, *CASES[case], namespace=SYSTEM)
    assert once == again
    # Dashboards are files of their own, and not the templates' doing.
    parts = [p for p in once.split("---\n") if "monitoring/dashboards.yaml" not in p]
    golden.matches("---\n".join(parts), GOLDEN / f"{case}.yaml")


def test_dashboards_are_the_files_of_the_repository(helm4: Helm) -> None:
    found = documents(render(helm4, "everything"))
    for path in sorted((CHECKOUT / "charts/ringfence/dashboards").glob("*.json")):
        data = mapping(find(found, f"ConfigMap/ringfence-dashboard-{path.stem}"), "data")
        assert json.loads(text(data, path.name)) == json.loads(path.read_text())


@pytest.mark.parametrize("case", CASES)
def test_lint_finds_nothing(helm: Helm, case: str) -> None:
    said = helm.run("lint", "--strict", CHART, *CASES[case], namespace=SYSTEM)
    assert "0 chart(s) failed" in said


def test_schema_and_reference_of_values_are_those_of_the_comments() -> None:
    stale = [p.name for p, words in charts.outputs(CHART).items() if p.read_text() != words]
    assert stale == [], "run .venv/bin/python tools/charts.py --write charts/ringfence"


def test_the_schema_of_the_tenant_file_is_the_one_that_the_command_prints() -> None:
    printed = subprocess.run(
        [COMMAND, "tenants", "schema"], capture_output=True, text=True, check=True
    ).stdout
    whole = json.loads((CHART / "values.schema.json").read_text())
    inside = whole["properties"]["tenantFile"]
    assert inside["properties"] == json.loads(printed)["properties"]


def test_a_value_without_a_comment_is_no_value(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text("# --  said\na: 1\nb: 2\n")
    with pytest.raises(SystemExit, match=r"values.yaml:3: b has no"):
        charts.read_values(tmp_path / "values.yaml")


# --- rights -------------------------------------------------------------------------------------


def rules(found: list[Document], role: str) -> list[dict[str, object]]:
    return [dict(rule) for rule in mappings(find(found, role), "rules")]


def flat(found: list[Mapping[str, object]] | list[dict[str, object]]) -> set[tuple[str, ...]]:
    """Each right by itself: group, resource, verb, name."""
    rights: set[tuple[str, ...]] = set()
    for rule in found:
        parts = (rule["apiGroups"], rule["resources"], rule["verbs"], rule.get("resourceNames"))
        groups, resources, verbs, names = (p if isinstance(p, list) else [""] for p in parts)
        rights |= {(g, r, v, n) for g in groups for r in resources for v in verbs for n in names}
    return rights


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("default", ("--cilium-policies",)),
        ("cert-manager", ("--certificate-secret", "ringfence-webhook-issued")),
        ("own-certificates", ("--cilium-policies", "--certificate-secret", "webhook-tls")),
    ],
)
def test_the_controller_has_the_rules_that_its_command_prints_and_no_others(
    helm4: Helm, case: str, options: tuple[str, ...]
) -> None:
    printed = subprocess.run(
        [COMMAND, "controller", "rules", *options],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    wanted, found = documents(printed), documents(render(helm4, case))
    for role in ("ClusterRole/ringfence-controller", "Role/ringfence-controller"):
        assert flat(rules(found, role)) == flat(rules(wanted, role))


BEYOND = {
    *{("apps", "statefulsets", verb, "") for verb in ("get", "list", "watch")},
    *{("apiextensions.k8s.io", "customresourcedefinitions", v, "") for v in ("get", "create")},
    ("rbac.authorization.k8s.io", "clusterroles", "bind", "view"),
}
"""What the values of the case ask for by themselves."""


@pytest.mark.parametrize("who", ["controller", "webhook"])
def test_with_policies_it_has_the_rules_that_its_command_prints(helm4: Helm, who: str) -> None:
    options = ["--policies", "cluster", "--allow-kind", "Secret"]
    options += ["--allow-kind", "config.kio.kasten.io/v1alpha1/Policy"]
    extras = ["--walls", "--cilium-policies", "--install-cilium-crds"]
    options += extras if who == "controller" else []
    command: list[str | Path] = [COMMAND, who, "rules", *options]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    role = f"ClusterRole/ringfence-{who}"
    wanted = flat(rules(documents(printed), role))
    found = flat(rules(documents(render(helm4, "everything")), role))
    assert found == wanted | (BEYOND if who == "controller" else set())


def _documents(*needed: RbacRule) -> list[Document]:
    return [rule.document() for rule in needed]


HOOKS: dict[str, tuple[RbacRule, ...]] = {
    "ClusterRole/ringfence-unregister": rbac.UNREGISTER.cluster,
    "Role/ringfence-unregister": rbac.UNREGISTER.system,
    "ClusterRole/ringfence-forget": rbac.FORGET_ISOLATION.cluster,
    "Role/ringfence-forget": (*rbac.FORGET.system, *rbac.FORGET_ISOLATION.system),
    "Role/ringfence-agents-gone": rbac.AGENTS_GONE.system,
    "ClusterRole/ringfence-verify": rbac.VERIFY.cluster,
    "Role/ringfence-verify": rbac.VERIFY.system,
}


@pytest.mark.parametrize("role", HOOKS)
def test_a_hook_has_the_rules_that_its_command_needs_and_no_others(helm4: Helm, role: str) -> None:
    found = documents(render(helm4, "everything"))
    assert flat(rules(found, role)) == flat(_documents(*HOOKS[role]))


@pytest.mark.parametrize("case", CASES)
def test_no_role_has_a_wildcard_and_the_agent_only_reads_and_tells(helm4: Helm, case: str) -> None:
    found = documents(render(helm4, case))
    roles = [d for d in found if text(d, "kind") in ("Role", "ClusterRole")]
    for role in roles:
        for right in flat([dict(rule) for rule in mappings(role, "rules")]):
            assert "*" not in "".join(right), name(role)
            if name(role).endswith("/ringfence-enforcer"):
                telling = right[:3] == ("events.k8s.io", "events", "create")
                assert telling or right[2] in ("get", "list", "watch"), right


def test_every_rule_of_every_role_has_its_reason_above_it() -> None:
    rule = re.compile(r"^( *)- apiGroups:", re.MULTILINE)
    explained = 0
    for path in ROLES:
        lines = path.read_text().splitlines()
        for at, line in enumerate(lines):
            if not rule.match(line):
                continue
            # Rules of one reason may follow each other, one a resource.
            before = at - 1
            while not lines[before].strip().startswith(("#", "rules:", "{{")):
                before -= 1
            assert lines[before].strip().startswith("#"), f"{path.name}:{at + 1}"
            explained += 1
    assert explained > 20


# --- pods ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_every_pod_but_the_agents_fits_the_standard_restricted(helm4: Helm, case: str) -> None:
    for owner, spec in pod_specs(documents(render(helm4, case))):
        if owner == "DaemonSet/ringfence-enforcer":
            continue
        pod = mapping(spec, "securityContext")
        assert pod["runAsNonRoot"] is True
        assert mapping(pod, "seccompProfile") == {"type": "RuntimeDefault"}
        for container in containers(spec):
            context = mapping(container, "securityContext")
            assert context["allowPrivilegeEscalation"] is False, owner
            assert context["readOnlyRootFilesystem"] is True
            assert mapping(context, "capabilities") == {"drop": ["ALL"]}
        assert not [v for v in mappings(spec, "volumes") if "hostPath" in v]


def test_the_agent_has_exactly_these_rights_on_its_node(helm4: Helm) -> None:
    daemon = find(documents(render(helm4, "default")), "DaemonSet/ringfence-enforcer")
    spec = mapping(mapping(mapping(daemon, "spec"), "template"), "spec")
    assert {key: spec[key] for key in ("hostNetwork", "hostPID", "hostIPC")} == {
        "hostNetwork": True,
        "hostPID": False,
        "hostIPC": False,
    }
    (container,) = containers(spec)
    context = mapping(container, "securityContext")
    assert context["privileged"] is False
    assert mapping(context, "capabilities") == {
        "drop": ["ALL"],
        "add": ["BPF", "NET_ADMIN", "PERFMON"],
    }
    paths = {text(mapping(v, "hostPath"), "path") for v in mappings(spec, "volumes")} - {""}
    wanted = {"/sys/fs/bpf", "/run/ringfence", "/etc/cni/net.d", "/opt/cni/bin", "/var/lib/cni"}
    assert paths == wanted


def test_removal_reaches_the_cni_plugin_of_an_earlier_revision(helm4: Helm) -> None:
    # The case has cni.enabled=false.
    daemon = find(documents(render(helm4, "own-certificates")), "DaemonSet/ringfence-enforcer")
    spec = mapping(mapping(mapping(daemon, "spec"), "template"), "spec")
    (remove,) = mappings(spec, "initContainers")
    assert remove["args"] == [
        *("enforcer", "uninstall", "--pin-dir=/sys/fs/bpf/ringfence", "--run-dir=/run/ringfence"),
        *("--cni-conf-dir=/etc/cni/net.d", "--cni-bin-dir=/opt/cni/bin"),
    ]
    paths = {text(mount, "mountPath") for mount in mappings(remove, "volumeMounts")}
    assert {"/etc/cni/net.d", "/opt/cni/bin"} <= paths


@pytest.mark.parametrize(
    ("values", "hook"),
    [
        ({}, "pre-delete"),
        ({"enforcer": {"remove": True}}, "pre-delete"),
        ({"enforcer": {"enabled": False}}, "pre-delete,pre-upgrade,pre-rollback"),
        ({"uninstall": {"leaveAgents": True}}, ""),
    ],
)
def test_no_release_goes_on_without_agents_before_their_nodes_are_clean(
    helm4: Helm, values: Mapping[str, object], hook: str
) -> None:
    rendered = helm4.template("ringfence", CHART, *helm4.values(values), namespace=SYSTEM)
    hooks = {
        name(d): mapping(mapping(d, "metadata"), "annotations")
        for d in documents(rendered)
        if "helm.sh/hook" in mapping(mapping(d, "metadata"), "annotations")
    }
    found = {key: h for key, h in hooks.items() if key.endswith("/ringfence-agents-gone")}
    assert {text(h, "helm.sh/hook") for h in found.values()} == ({hook} - {""})
    others = {
        int(text(h, "helm.sh/hook-weight"))
        for key, h in hooks.items()
        if key not in found and set(text(h, "helm.sh/hook").split(",")) & set(hook.split(","))
    }
    assert all(int(text(h, "helm.sh/hook-weight")) < min(others) for h in found.values())


def test_the_webhook_has_no_token_unless_it_executes_policies(helm4: Helm) -> None:
    specs = {
        case: dict(pod_specs(documents(render(helm4, case))))["Deployment/ringfence-webhook"]
        for case in CASES
    }
    closed = {
        case for case, spec in specs.items() if spec.get("automountServiceAccountToken") is False
    }
    assert closed == set(CASES) - {"everything"}
    roles = {name(d) for d in documents(render(helm4, "default"))}
    assert "ClusterRole/ringfence-webhook" not in roles


@pytest.mark.parametrize("case", CASES)
def test_every_container_says_what_the_command_understands(helm4: Helm, case: str) -> None:
    checked = 0
    for _, spec in pod_specs(documents(render(helm4, case))):
        for container in containers(spec):
            if "command" in container:
                continue
            arguments = container["args"]
            assert isinstance(arguments, list)
            environment = {"$(NODE_NAME)": "n", "$(NODE_ADDRESS)": "192.0.2.1"}
            words = [_filled(str(word), environment) for word in arguments]
            _parse(root(), words)
            checked += 1
    assert checked >= 5


def _filled(word: str, values: Mapping[str, str]) -> str:
    for key, value in values.items():
        word = word.replace(key, value)
    return word


def _parse(command: click.Command, words: list[str]) -> None:
    """click's own look at the words, down to the last sub-command; nothing runs."""
    context = command.make_context("ringfence", list(words))
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        found, sub, rest = command.resolve_command(context, rest)
        assert sub is not None, words
        context = sub.make_context(found, rest, parent=context)
        command = sub


@pytest.mark.parametrize("case", CASES)
def test_what_a_controller_owns_is_never_rendered(helm4: Helm, case: str) -> None:
    rendered = render(helm4, case)
    assert "caBundle" not in rendered
    kinds = {text(d, "kind") for d in documents(rendered)}
    assert not {k for k in kinds if k.endswith(("WebhookConfiguration", "AdmissionPolicy"))}


# --- the API server's view ----------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_the_api_server_takes_every_object(helm4: Helm, case: str, system: ControlPlane) -> None:
    ours = [d for d in documents(render(helm4, case)) if text(d, "apiVersion") not in FOREIGN]
    words = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
    taken = system.kubectl(*words, stdin=yaml.safe_dump_all(ours))
    assert len(taken.splitlines()) == len(ours)


def test_the_foreign_objects_name_kinds_that_their_owners_have(helm4: Helm) -> None:
    found = {
        (text(d, "apiVersion"), text(d, "kind"))
        for case in CASES
        for d in documents(render(helm4, case))
        if text(d, "apiVersion") in FOREIGN
    }
    assert found == {
        ("cert-manager.io/v1", "Certificate"),
        ("cert-manager.io/v1", "Issuer"),
        ("monitoring.coreos.com/v1", "PodMonitor"),
        ("monitoring.coreos.com/v1", "PrometheusRule"),
    }


def test_alerts_ask_for_metrics_that_are_documented(helm4: Helm) -> None:
    rule = find(documents(render(helm4, "everything")), "PrometheusRule/ringfence")
    asked = set(re.findall(r"ringfence_[a-z_]+", yaml.safe_dump(mapping(rule, "spec"))))
    assert asked
    page = (CHECKOUT / "docs/metrics.md").read_text()
    assert [metric for metric in sorted(asked) if metric not in page] == []
