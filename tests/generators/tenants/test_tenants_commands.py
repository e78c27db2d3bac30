"""`ringfence tenants check` and `assign` as a user runs them: exit codes, streams, no traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml

Run = Callable[..., "CompletedProcess[str]"]

GOOD = """\
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
labelKey: client
tenants:
- name: test01
  namespaces: {prefixes: ["test01-"], suffixes: ["-test01"]}
  members: {groups: [team-test01]}
  labels: {cost-centre: "4711"}
- name: test02
  namespaces: {suffixes: ["-test02"]}
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = tmp_path / "tenants.yaml"
    file.write_text(GOOD)
    return file


def test_check_says_nothing_about_a_right_file(ringfence: Run, good: Path) -> None:
    done = ringfence("tenants", "check", good)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_check_prints_every_defect_and_exits_1(ringfence: Run, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(GOOD.replace("test02\n", "no\n").replace("labelKey", "labelkey"))
    done = ringfence("tenants", "check", file)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [
        f'{file}:3: labelkey: unknown field "labelkey"; did you mean "labelKey"?',
        f'{file}:9: tenants[1].name: no is read as a boolean, not as text; quote it: "no"',
    ]


BAD_FILES = {
    "broken YAML": b"a: [\n",
    "empty": b"",
    "list": b"- a\n",
    "not UTF-8": b"\xff\xfe",
    "5 MB of aliases": b"a: &a [x]\nb: [" + b"*a," * 1_700_000 + b"]\n",
}


@pytest.mark.parametrize("data", BAD_FILES.values(), ids=BAD_FILES)
def test_check_of_a_hopeless_file_exits_1_with_its_line(
    ringfence: Run, tmp_path: Path, data: bytes
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(data)
    done = ringfence("tenants", "check", file)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith(f"{file}:1: ")


@pytest.mark.parametrize("command", [["check"], ["assign", "x", "-c"]], ids=["check", "assign"])
def test_file_that_is_not_there_exits_2(ringfence: Run, tmp_path: Path, command: list[str]) -> None:
    done = ringfence("tenants", *command, tmp_path / "none.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "none.yaml:1: the tenant file cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_assign_with_a_bad_file_exits_1_and_names_the_line(ringfence: Run, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(GOOD + "mode: x\n")
    done = ringfence("tenants", "assign", "x", "-c", file)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{file}:11: mode:" in done.stderr


def test_assign_json(ringfence: Run, good: Path) -> None:
    done = ringfence("tenants", "assign", "shop-test01", "-c", good, "-o", "json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {
        "namespace": "shop-test01",
        "tenant": "test01",
        "outcome": "ASSIGNED",
        "reason": f'name matches suffix "-test01" of tenant test01 ({good}:6)',
        "labels": {"client": "test01", "cost-centre": "4711"},
    }


ANSWERS: dict[str, tuple[list[str], int, str | None]] = {
    "name": (["shop-test02"], 0, "test02"),
    "nobody's": (["shop"], 0, None),
    "protected": (["kube-system"], 0, None),
    "member": (["shop", "--user", "u", "--group", "x", "--group", "team-test01"], 0, "test01"),
    "label of the name": (["shop-test02", "--label", "client=test02"], 0, "test02"),
    "label of another": (["shop-test02", "--label", "client=test01"], 1, None),
    "name of another": (["shop-test02", "--group", "team-test01"], 1, None),
    "admin": (["shop", "--group", "system:masters", "--label", "client=test02"], 0, "test02"),
    "tie": (["test01-x-test02"], 1, None),
}


@pytest.mark.parametrize(("arguments", "code", "tenant"), ANSWERS.values(), ids=ANSWERS)
def test_assign_answers(
    ringfence: Run, good: Path, arguments: list[str], code: int, tenant: str | None
) -> None:
    done = ringfence("tenants", "assign", *arguments, "-c", good, "-o", "yaml")
    answer = yaml.safe_load(done.stdout)
    assert (done.returncode, answer["tenant"], done.stderr) == (code, tenant, "")
    assert bool(answer["labels"]) is (tenant is not None)


def test_assign_table_reads_like_a_sentence_a_line(ringfence: Run, good: Path) -> None:
    done = ringfence("tenants", "assign", "test01-x-test02", "-c", good)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "NAMESPACE  test01-x-test02",
        "TENANT     -",
        "OUTCOME    AMBIGUOUS",
        f'REASON     name matches prefix "test01-" of tenant test01 ({good}:6) and matches suffix '
        f'"-test02" of tenant test02 ({good}:10); neither is longer, choose a name that only one '
        "of them matches",
        "LABELS     -",
    ]


USAGE = {
    "no file": ["x"],
    "bad name": ["X_y", "-c", "t.yaml"],
    "64 characters": ["a" * 64, "-c", "t.yaml"],
    "bad label": ["x", "-c", "t.yaml", "--label", "client"],
    "bad output": ["x", "-c", "t.yaml", "-o", "xml"],
}


@pytest.mark.parametrize("arguments", USAGE.values(), ids=USAGE)
def test_assign_with_bad_usage_exits_2(ringfence: Run, arguments: list[str]) -> None:
    done = ringfence("tenants", "assign", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


GRANTED = """\
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
shared: [{name: ingress, namespaces: {names: [ingress]}}]
tenants:
- name: blue
  namespaces: {names: [blue-db], prefixes: [blue-]}
  members: {users: [ann], groups: [blues], serviceAccounts: [ci/deployer]}
  allowFrom: [{tenant: red, ports: [{port: 5432}, {port: 8000, endPort: 8010}, {protocol: UDP}]}]
- name: red
  namespaces: {names: [red]}
  allowTo: [{tenant: blue}]
"""
SPACES = "".join(
    f"---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"
    for name in ("blue-web", "red", "sandbox")
)


def test_tenants_are_listed_with_all_that_is_theirs(ringfence: Run, tmp_path: Path) -> None:
    file = tmp_path / "tenants.yaml"
    file.write_text(GRANTED)
    done = ringfence("tenants", "list", "-c", file, "-f", "-", "-o", "json", stdin=SPACES)
    assert done.returncode == 0, done.stderr
    blue, red = json.loads(done.stdout)
    ports = ["5432/TCP", "8000-8010/TCP", "UDP"]
    assert blue == {
        "tenant": "blue",
        "namespaces": ["blue-web"],
        "members": {
            "users": ["ann"],
            "groups": ["blues"],
            "serviceAccounts": ["system:serviceaccount:ci:deployer"],
        },
        "grants": [{"from": "red", "ports": ports}],
        "shared": ["ingress"],
        "policies": ["blue-web/allow-ingress-namespace"],
        "since": None,
    }
    assert red["grants"] == [{"to": "blue", "ports": ports}]
    table = ringfence("tenants", "list", "-c", file)
    assert table.stdout.splitlines()[1].split() == [
        *("blue", "blue-db", "from", "red:5432/TCP+8000-8010/TCP+UDP", "ingress", "-")
    ]
    assert ringfence("tenants", "list", "-c", file, "-o", "name").stdout == (
        "tenant/blue\ntenant/red\n"
    )


def test_one_tenant_is_shown_line_by_line(ringfence: Run, tmp_path: Path) -> None:
    file = tmp_path / "tenants.yaml"
    file.write_text(GRANTED)
    done = ringfence("tenants", "get", "red", "-c", file)
    assert done.stdout.splitlines() == [
        "Tenant       red",
        "Claims       name red",
        "Namespaces   red",
        "Members      -",
        "Grants       to blue:5432/TCP+8000-8010/TCP+UDP",
        "Shared       ingress",
        "Policies     red/allow-ingress-namespace",
        "Since        -",
    ]
    unknown = ringfence("tenants", "get", "rad", "-c", file)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert 'there is no tenant "rad"; did you mean "red"?' in unknown.stderr


def test_manifests_without_a_tenant_file_have_no_tenants_to_list(ringfence: Run) -> None:
    done = ringfence("tenants", "list", "-f", "-", stdin=SPACES)
    assert done.returncode == 2
    assert "give the tenant file with -c FILE" in done.stderr
