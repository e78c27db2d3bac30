"""Values that are refused before anything is installed, and tenant files on which the chart's
schema and the tenant file's own check agree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import pytest
import yaml

from generators.errors import InvalidConfig
from generators.tenants.document import read_document
from generators.tenants.jsonschema import json_schema
from generators.tenants.load import parse_tenants
from generators.tenants.schema import TENANT_FILE, check_shape
from tests.charts.cluster.rendered import CASES, CHART, SYSTEM, documents, find
from tests.charts.helm import Helm, said

pytestmark = pytest.mark.cluster

TENANT: dict[str, object] = {"name": "test01", "namespaces": {"suffixes": ["-test01"]}}

REFUSED: dict[str, tuple[Mapping[str, object], str]] = {
    "an unknown value": ({"webhok": {}}, "additional properties 'webhok' not allowed"),
    "an unknown value of a group": ({"webhook": {"replica": 3}}, "'replica' not allowed"),
    "text for a number": ({"webhook": {"replicas": "3"}}, "at '/webhook/replicas': got string"),
    "a port that there is not": ({"webhook": {"port": 70000}}, "at '/webhook/port': maximum"),
    "a word that is none": (
        {"enforcer": {"startMode": "closed"}},
        "at '/enforcer/startMode': value must be one of 'strict', 'tenant-default', 'open'",
    ),
    "a digest that is none": ({"image": {"digest": "latest"}}, "does not match pattern"),
    "a pin directory elsewhere": ({"enforcer": {"pinDir": "/tmp/x"}}, "does not match pattern"),
    "an unknown field of the tenant file": (
        {"tenantFile": {"tennants": []}},
        "at '/tenantFile': additional properties 'tennants' not allowed",
    ),
    "a tenant without a name": (
        {"tenantFile": {"tenants": [{"labels": {}}]}},
        "at '/tenantFile/tenants/0': missing property 'name'",
    ),
    "a tenant name over 63 characters": (
        {"tenantFile": {"tenants": [TENANT | {"name": "x" * 64}]}},
        "at '/tenantFile/tenants/0/name': maxLength: got 64, want 63",
    ),
    "a label value over 63 characters": (
        {"tenantFile": {"tenants": [TENANT | {"labels": {"cost-centre": "x" * 64}}]}},
        "at '/tenantFile/tenants/0/labels/cost-centre': maxLength: got 64, want 63",
    ),
    "a label that YAML takes for a number": (
        {"tenantFile": {"tenants": [TENANT | {"labels": {"cost-centre": 4711}}]}},
        "at '/tenantFile/tenants/0/labels/cost-centre': got number, want string",
    ),
    "own certificates without their Secret": (
        {"certificates": {"source": "secret"}},
        'certificates.source is "secret" but certificates.existingSecret is empty; name the Secret',
    ),
    "a Secret that nobody would use": (
        {"certificates": {"existingSecret": "x"}},
        "set certificates.source=secret or remove certificates.existingSecret",
    ),
    "an issuer that nobody would ask": (
        {"certificates": {"certManager": {"issuer": "x"}}},
        "set certificates.source=cert-manager or remove the issuer",
    ),
    "tenants in two places": (
        {"existingTenantFile": "x", "tenantFile": {"tenants": [TENANT]}},
        "both existingTenantFile and tenantFile.tenants are set; keep the tenants in one of them",
    ),
    "a budget that no drain could meet": (
        {"webhook": {"minAvailable": 3}},
        "webhook.minAvailable=3 leaves no pod of webhook.replicas=3 that a node could be drained",
    ),
    "removal without pods that remove": (
        {"enforcer": {"enabled": False, "remove": True}},
        "set enforcer.enabled=true until the programs are removed",
    ),
    "CRDs that nobody reads": (
        {"policies": {"installCRDs": True}},
        "set policies.cluster=true too",
    ),
    "kinds for no policy": (
        {"policies": {"allowKinds": [{"kind": "Secret", "group": "", "resource": "secrets"}]}},
        "set policies.cluster=true or fill policies.files",
    ),
}


@pytest.mark.parametrize("row", REFUSED)
def test_bad_values_are_refused_with_the_value_and_the_fix(helm: Helm, row: str) -> None:
    values, message = REFUSED[row]
    words = helm.values(values)
    done = helm.attempt("template", "ringfence", CHART, *words, namespace=SYSTEM)
    assert done.returncode != 0
    assert message in said(done)


def test_another_namespace_is_refused_with_the_fix(helm: Helm) -> None:
    done = helm.attempt("template", "ringfence", CHART, namespace="elsewhere")
    assert done.returncode != 0
    assert "add --namespace ringfence-system --create-namespace" in said(done)


def test_globals_of_a_parent_chart_are_no_error(helm4: Helm) -> None:
    values = helm4.values({"global": {"anything": {"at": "all"}}})
    assert "ringfence-webhook" in helm4.run(
        "template", "ringfence", CHART, *values, namespace=SYSTEM
    )


# --- the tenant file ----------------------------------------------------------------------------

GOOD: dict[str, object] = {
    "apiVersion": "ringfence.io/v1alpha1",
    "kind": "TenantConfig",
    "labelKey": "example.com/client",
    "mode": "strict",
    "admins": {"users": ["jane"], "groups": ["platform team"], "serviceAccounts": ["ci/deployer"]},
    "protectedNamespaces": ["kube-system"],
    "shared": [
        {
            "name": "ingress",
            "namespaces": {"names": ["ingress"]},
            "ports": [{"port": 80, "endPort": 90, "protocol": "TCP"}],
            "hostNetwork": True,
        }
    ],
    "tenants": [
        {
            "name": "test01",
            "namespaces": {"names": ["shop"], "prefixes": ["test01-"], "suffixes": ["-test01"]},
            "members": {"groups": ["team-test01"]},
            "labels": {"cost-centre": "4711", "y": "no", "empty": ""},
            "allowMasked": False,
            "allowFrom": [{"tenant": "test02", "ports": [{"port": 5432}]}],
        },
        {"name": "test02", "namespaces": {"suffixes": ["-x"]}, "allowTo": [{"tenant": "test01"}]},
    ],
    "defaults": {"unassigned": "deny"},
}
NAMES = ["a", "a-b", "0", "", "-a", "a-", "A", "a.b", "a_b", "ä", "a\n", "a b", "a" * 63, "a" * 64]
SUBJECTS = [
    *("a", "a b", "ä", "system:x", " a", "a ", "", "a\n", "a\tb", "\xa0a", "a\u2003", "a\x85"),
    *("\u200ba", "x" * 253, "x" * 254),
]
VALUES: list[tuple[tuple[str | int, ...], list[object]]] = [
    (("apiVersion",), ["ringfence.io/v1", 1, True]),
    (("kind",), ["tenantConfig", ""]),
    (("labelKey",), ["client", "a/b", "/b", "a/", "A/b", "a" * 64, "a.b/c_d", "a/b/c", "a\n", 1]),
    (("mode",), ["audit", "Strict", "", True]),
    (("admins",), [{}, [], {"user": []}, {"users": "jane"}]),
    (("admins", "users", 0), [*SUBJECTS, 1, True]),
    (("admins", "serviceAccounts", 0), ["a/b", "a", "a/b/c", "A/b", "a/b.c", "a/"]),
    (("shared", 0, "name"), [*NAMES, 1, True]),
    (("shared", 0, "namespaces"), [{}, {"names": []}, {"names": ["a"], "prefixes": ["b"]}]),
    (("shared", 0, "ports"), [[], [{}], [{"protocol": "UDP"}], [{"endPort": 3}], {}]),
    (("shared", 0, "ports", 0, "port"), [1, 65535, 0, 65536, -1, "80", True, "http"]),
    (("shared", 0, "ports", 0, "protocol"), ["UDP", "SCTP", "tcp", "ICMP"]),
    (("shared", 0, "hostNetwork"), [False, "yes", 1]),
    (("tenants", 0, "namespaces", "prefixes", 0), ["a", "a-", "-a", "", "A", "a" * 62, "a" * 63]),
    (("tenants", 0, "namespaces", "suffixes", 0), ["a", "-a", "a-", "", "a\n", "a" * 63]),
    (("tenants", 0, "labels"), [{}, {"A/b": "x"}, {"a/b": "x"}, {"": "x"}, {"a": 1}, {"a": "-"}]),
    (("tenants", 0, "labels", "cost-centre"), ["", "a.b", "-a", "a" * 63, "a" * 64, "a\n", True]),
    (("tenants", 0, "allowFrom"), [[], [{}], [{"tenant": "a", "port": 1}], "test02"]),
    (("defaults",), [{}, {"unassigned": "allow"}, {"assigned": "deny"}]),
    (("tenants",), [[], {}, [{}], ["a"], [{"name": "a"}]]),
]
"""Where in the good file -> what stands there instead."""


def replaced(path: tuple[str | int, ...], value: object) -> dict[str, object]:
    document = deepcopy(GOOD)
    inner: object = document
    for step in path[:-1]:
        assert isinstance(inner, dict | list)
        inner = inner[step]  # type: ignore[index]  # a path names keys of mappings, places of lists
    assert isinstance(inner, dict | list)
    inner[path[-1]] = value  # type: ignore[index]
    return document


def sound(document: Mapping[str, object]) -> bool:
    """Whether the tenant file's own check finds its shape good."""
    read = read_document(json.dumps(document).encode(), "tenants.yaml")
    return not read.problems and not check_shape(read)[1]


def test_schema_and_check_agree_on_every_value(helm4: Helm) -> None:
    rows = [(path, value) for path, values in VALUES for value in values]
    files = [replaced(path, value) for path, value in rows]

    def taken(document: dict[str, object]) -> bool:
        values = helm4.values({"tenantFile": document, "checkTenantFile": False})
        words = [*values, "--show-only", "templates/tenants.yaml"]
        done = helm4.attempt("template", "ringfence", CHART, *words, namespace=SYSTEM)
        return done.returncode == 0

    with ThreadPoolExecutor(2) as workers:
        found = list(workers.map(taken, files))
    wanted = [sound(document) for document in files]
    assert {True, False} <= set(wanted)
    differing = [row for row, a, b in zip(rows, found, wanted, strict=True) if a != b]
    assert differing == []


def test_every_pattern_means_the_same_to_python_when_it_searches() -> None:
    patterns = set(
        re.findall(r'"pattern": ("(?:[^"\\]|\\.)*")', json.dumps(json_schema(TENANT_FILE)))
    )
    assert len(patterns) >= 6
    for pattern in map(json.loads, patterns):
        assert re.search(pattern, " a") is None
        assert "\\Z" not in pattern


def test_the_config_map_holds_exactly_the_tenant_file(helm: Helm) -> None:
    values = helm.values({"tenantFile": GOOD})
    rendered = helm.template("ringfence", CHART, *values, namespace=SYSTEM)
    data = find(documents(rendered), "ConfigMap/ringfence-tenants")["data"]
    assert isinstance(data, dict)
    assert yaml.safe_load(data["tenants.yaml"]) == GOOD
    config = parse_tenants(data["tenants.yaml"].encode(), "tenants.yaml")
    assert dict(config.tenants["test01"].labels) == {"cost-centre": "4711", "y": "no", "empty": ""}


@pytest.mark.parametrize(
    "word", ["no", "on", "y", "1_000", "0x1f", "12:30:45", "null", "1e3", ".inf", "~", "010", "+1"]
)
def test_text_that_yaml_could_take_for_something_else_arrives_as_text(
    helm4: Helm, word: str
) -> None:
    file = replaced(("admins", "users", 0), word)
    values = helm4.values({"tenantFile": file})
    rendered = helm4.template("ringfence", CHART, *values, namespace=SYSTEM)
    data = find(documents(rendered), "ConfigMap/ringfence-tenants")["data"]
    assert isinstance(data, dict)
    try:
        config = parse_tenants(data["tenants.yaml"].encode(), "tenants.yaml")
    except InvalidConfig as error:
        pytest.fail(str(error))
    assert config.admins.users == frozenset({word})


def test_every_case_has_a_tenant_file_that_is_good(helm4: Helm) -> None:
    for arguments in CASES.values():
        rendered = helm4.template("ringfence", CHART, *arguments, namespace=SYSTEM)
        for document in documents(rendered):
            data = document.get("data")
            if isinstance(data, dict) and "tenants.yaml" in data:
                parse_tenants(data["tenants.yaml"].encode(), "tenants.yaml")
