"""`ringfence policy apply`, `test` and `lint` as a user runs them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml

from generators.kyverno.offline.testing import CaseSelector, find_files, run_files

Run = Callable[..., "CompletedProcess[str]"]

HERE = Path(__file__).parent
EXAMPLE = Path(__file__).parents[3] / "examples" / "kyverno"
LABEL = EXAMPLE / "add-client-label-namespaces.yaml"
ISOLATE = EXAMPLE / "generate-client-namespace-network-policy.yaml"
NAMESPACES = EXAMPLE / "namespaces.yaml"


def test_the_examples_pass_their_own_tests_and_lint(ringfence: Run) -> None:
    done = ringfence("policy", "test", EXAMPLE, "-o", "json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["summary"] == {"passed": 4, "failed": 0}
    assert report["tests"][0] == {
        "file": str(EXAMPLE / "kyverno-test.yaml"),
        "policy": "add-client-label-namespaces",
        "rule": "add-client-label",
        "resource": "Namespace shop-test02",
        "expected": "pass",
        "actual": "pass",
        "ok": True,
        "message": "mutated Namespace shop-test02",
    }
    linted = ringfence("policy", "lint", EXAMPLE)
    assert (linted.returncode, linted.stdout) == (0, "")


def test_apply_prints_objects_and_results(ringfence: Run) -> None:
    done = ringfence("policy", "apply", LABEL, ISOLATE, "-r", NAMESPACES, "-o", "json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [target["metadata"] for target in answer["targets"]] == [
        {"name": "shop-test02", "labels": {"client": "test02"}}
    ]
    (policy,) = answer["generated"]
    assert policy["metadata"]["namespace"] == "labelled-test02"
    peers = policy["spec"]["ingress"][0]["from"]
    assert [peer["namespaceSelector"]["matchLabels"] for peer in peers] == [
        {"client": "test02"},
        {"kubernetes.io/metadata.name": "ingress"},
    ]
    assert {
        "policy": "generate-client-namespace-network-policy",
        "rule": "allow-ingress-namespace",
        "resource": "Namespace labelled-test02",
        "result": "pass",
        "message": "generated NetworkPolicy labelled-test02/allow-ingress-namespace",
    } in answer["results"]
    again = ringfence("policy", "apply", LABEL, ISOLATE, "-r", NAMESPACES, "-o", "json")
    assert again.stdout == done.stdout


def test_apply_as_yaml_and_as_text_for_kubectl(ringfence: Run) -> None:
    done = ringfence("policy", "apply", ISOLATE, "-r", NAMESPACES, "-o", "yaml")
    assert yaml.safe_load(done.stdout)["generated"][0]["kind"] == "NetworkPolicy"
    done = ringfence("policy", "apply", ISOLATE, "-r", "-", stdin=NAMESPACES.read_text())
    assert "Applying 1 policy rule(s) to 4 resource(s)..." in done.stdout
    assert "pass: 1, fail: 0, warn: 0, error: 0, skip: 0" in done.stdout


RULE = """\
apiVersion: kyverno.io/v1
kind: ClusterPolicy
metadata: {name: zone}
spec:
  rules:
  - name: zone
    match: {any: [{resources: {kinds: [Namespace]}, subjects: [{kind: User, name: ann}]}]}
    context: [{name: settings, configMap: {name: settings, namespace: admin}}]
    mutate: {patchStrategicMerge: {metadata: {labels: {zone: "{{ settings.data.zone }}"}}}}
  - name: check
    match: {any: [{resources: {kinds: [Namespace]}}]}
    validate: {message: no, pattern: {metadata: {labels: {a: b}}}}
"""
VALUES = """\
apiVersion: cli.kyverno.io/v1alpha1
kind: Values
policies:
- name: zone
  rules: [{name: zone, values: {settings.data.zone: west}}]
  resources: [{name: shop-test01, values: {settings.data.zone: east}}]
"""
USER = """\
apiVersion: cli.kyverno.io/v1alpha1
kind: UserInfo
userInfo: {username: NAME}
"""
CONFIG = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: admin}
data: {zone: north}
"""


@pytest.fixture
def zone(tmp_path: Path) -> Path:
    for name, text in (("policy", RULE), ("values", VALUES), ("config", CONFIG)):
        (tmp_path / f"{name}.yaml").write_text(text)
    for name in ("ann", "bob"):
        (tmp_path / f"{name}.yaml").write_text(USER.replace("NAME", name))
    return tmp_path


@pytest.mark.parametrize(
    ("options", "zones"),
    [
        (["-f", "values.yaml", "-u", "ann.yaml"], ["west", "west", "east", "west"]),
        (["-f", "values.yaml", "-u", "bob.yaml"], []),
        (["--set", "settings.data.zone=south"], ["south"] * 4),
        (["--target-resource", "config.yaml"], ["north"] * 4),
    ],
)
def test_values_users_and_lookups_of_apply(
    ringfence: Run, zone: Path, options: list[str], zones: list[str]
) -> None:
    done = ringfence(
        "policy", "apply", "policy.yaml", "-r", NAMESPACES, *options, "-o", "json", cwd=zone
    )
    assert done.returncode == 0, done.stdout
    answer = json.loads(done.stdout)
    assert [m["metadata"]["labels"]["zone"] for m in answer["mutated"]] == zones
    warned = [r for r in answer["results"] if r["rule"] == "check"]
    assert {r["result"] for r in warned} == {"warn"}
    assert "validate rules are not carried out" in warned[0]["message"]


def test_a_lookup_that_fails_and_a_wrong_policy_exit_with_1(ringfence: Run, zone: Path) -> None:
    failed = ringfence("policy", "apply", "policy.yaml", "-r", NAMESPACES, cwd=zone)
    assert failed.returncode == 1
    assert "ConfigMap admin/settings of context settings is not there" in failed.stdout
    (zone / "wrong.yaml").write_text(RULE.replace("match:", "mach:", 1))
    wrong = ringfence("policy", "apply", "wrong.yaml", "-r", NAMESPACES, cwd=zone)
    assert wrong.returncode == 1
    assert "wrong.yaml:7" in wrong.stderr
    assert "did you mean 'match'?" in wrong.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["apply", "none.yaml", "-r", "none.yaml"],
        ["apply", str(LABEL)],
        ["apply", str(LABEL), "-r", str(NAMESPACES), "--set", "x"],
        ["apply", str(LABEL), "-r", str(NAMESPACES), "-f", "none.yaml"],
        ["test", "none"],
        ["test", str(EXAMPLE), "--test-case-selector", "rules=x"],
    ],
)
def test_bad_usage_and_missing_files_exit_with_2(ringfence: Run, arguments: list[str]) -> None:
    done = ringfence("policy", *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def edited(tmp_path: Path, name: str, old: str, new: str) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(EXAMPLE, folder)
    file = folder / name
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    return folder


PATCHED = "expected/shop-test02.yaml"
GENERATED = "expected/allow-ingress-namespace.yaml"
TEST = "kyverno-test.yaml"
MARKED = "  labels: {app.kubernetes.io/managed-by: kyverno}"
TWO = "resources: [shop-test01, ingress]"
NAMED = "    resources: [shop-test02]\n    patchedResources: expected/shop-test02.yaml\n"


@pytest.mark.parametrize(
    ("name", "old", "new", "code", "told"),
    [
        (PATCHED, "client: test02", "client: test01", 1, "metadata.labels.client is 'test02'"),
        (PATCHED, "client: test02", "client: test02\n  finalizers: []", 0, "4 passed"),
        (GENERATED, "podSelector: {}", "podSelector: {matchLabels: {a: b}}", 1, "spec.podSelector"),
        (GENERATED, "  namespace:", f"{MARKED}\n  namespace:", 0, "4 passed"),
        (TEST, "result: pass", "result: skip", 1, "expected skip, got pass"),
        (TEST, "result: pass", "result: fail", 1, "expected fail, got pass"),
        (TEST, "[shop-test02]", "[nowhere]", 1, "got not found"),
        (TEST, f"{TWO}\n    result: skip", f"{TWO}\n    result: pass", 0, "4 passed"),
        (
            TEST,
            NAMED,
            "",
            1,
            "got skip: <(name): 'ingress'",
        ),
        (TEST, "results:", "exceptions: [x]\nresults:", 0, "4 passed"),
    ],
)
def test_judging(tmp_path: Path, name: str, old: str, new: str, code: int, told: str) -> None:
    report = run_files(find_files([str(edited(tmp_path, name, old, new))]), CaseSelector())
    failed = [
        f"expected {c.expected}, got {c.actual}: {c.message}" for c in report.cases if not c.ok
    ]
    assert bool(failed) is bool(code)
    assert told in "\n".join(failed) or f"{len(report.cases)} passed" == told


def test_a_failed_comparison_passes_where_fail_is_expected_and_is_shown(
    ringfence: Run, tmp_path: Path
) -> None:
    folder = edited(tmp_path, PATCHED, "client: test02", "client: test01")
    file = folder / TEST
    file.write_text(file.read_text().replace("result: pass", "result: fail", 1))
    done = ringfence("policy", "test", folder, "--detailed-results")
    assert done.returncode == 0
    assert "expected fail, got pass: Namespace shop-test02 differs" in done.stdout


def test_cases_can_be_picked_and_failures_alone_be_shown(ringfence: Run, tmp_path: Path) -> None:
    chosen = "policy=gen*,resource=*-test02"
    picked = ringfence("policy", "test", EXAMPLE, "--test-case-selector", chosen, "-o", "json")
    assert [case["resource"] for case in json.loads(picked.stdout)["tests"]] == [
        "Namespace labelled-test02"
    ]
    folder = edited(tmp_path, TEST, "result: pass", "result: skip")
    failures = ringfence("policy", "test", folder, "--fail-only", "-o", "json")
    report = json.loads(failures.stdout)
    assert (len(report["tests"]), report["summary"]) == (1, {"passed": 3, "failed": 1})


def test_no_tests_are_a_failure_where_tests_are_required(ringfence: Run, tmp_path: Path) -> None:
    assert ringfence("policy", "test", tmp_path).returncode == 0
    assert ringfence("policy", "test", tmp_path, "--require-tests").returncode == 1


def test_an_unsupported_part_of_a_test_file_is_named(ringfence: Run, tmp_path: Path) -> None:
    folder = edited(tmp_path, TEST, "results:", "exceptions: [x.yaml]\nresults:")
    assert "exceptions is not supported" in ringfence("policy", "test", folder).stderr


def test_inline_values_and_older_spellings_of_a_test_file(ringfence: Run, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(RULE)
    (tmp_path / "shop.yaml").write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n")
    (tmp_path / "patched.yaml").write_text(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {zone: west}}\n"
    )
    (tmp_path / TEST).write_text(
        "name: zones\nkind: Test\npolicies: [policy.yaml]\nresources: [shop.yaml]\n"
        "values: {globalValues: {settings.data.zone: west}}\nresults:\n"
        "- {policy: zone, rule: zone, resource: shop, kind: Namespace, status: pass,"
        " patchedResource: patched.yaml}\n"
    )
    done = ringfence("policy", "test", tmp_path)
    assert done.returncode == 0, done.stdout


def test_lint_names_the_pair_that_can_never_work(ringfence: Run) -> None:
    done = ringfence("policy", "lint", HERE / "print", "-o", "json")
    assert done.returncode == 1
    findings = json.loads(done.stdout)["findings"]
    told = [(f["line"], f["sort"], f["what"].split(",")[0]) for f in findings]
    assert told == [
        (11, "never", "selects client=test02"),
        (21, "empty", "namespace is empty"),
        (30, "empty", "client is empty"),
    ]
    assert "add-client-label writes: contract=test02" in findings[0]["what"]


def test_lint_of_a_file_that_is_not_there_names_it(ringfence: Run) -> None:
    done = ringfence("policy", "lint", "none.yaml")
    assert done.returncode == 1
    assert done.stdout.startswith("none.yaml:1: cannot be read")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("settings.data.zone", "setings.data.zone", "no context entry is called 'setings'"),
        ("settings.data.zone", "to_uper(settings.data.zone)", "to_uper(): there is no such"),
        ("settings.data.zone", "settings..zone", "settings..zone"),
        ("settings.data.zone", "x509_decode(settings.data.zone)", "certificates are not supported"),
        ("mutate:", "mutat:", "did you mean 'mutate'?"),
    ],
)
def test_lint_names_what_would_fail(
    ringfence: Run, tmp_path: Path, old: str, new: str, told: str
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(RULE.split("  - name: check")[0].replace(old, new, 1))
    done = ringfence("policy", "lint", file)
    assert done.returncode == 1
    assert told in done.stdout
    assert f"{file}:" in done.stdout
