"""Policies that label and isolate become a tenant file, which says what it cannot say."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from generators.isolation.conversion import convert, tenant_file
from generators.kyverno.offline.loading import load_policies, policies_in
from generators.tenants.load import parse_tenants

CHECKOUT = Path(__file__).resolve().parents[3]
EXAMPLE = CHECKOUT / "examples" / "kyverno"
RULE = """
    apiVersion: kyverno.io/v1
    kind: ClusterPolicy
    metadata: {name: p}
    spec:
      rules:
      - name: r
        match: {any: [{resources: {kinds: [Namespace], names: [%s]}}]}
        %s
"""
LABEL = "mutate: {patchStrategicMerge: {metadata: {labels: {client: red}}}}"

UNTRUE = "{key: a, operator: Equals, value: b}"
EMPTY = "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {name: p}\nspec: {}\n"


def written(names: str, action: str = LABEL) -> str:
    """The tenant file of one policy."""
    loaded = policies_in(textwrap.dedent(RULE % (names, action)).encode(), "p.yaml")
    assert loaded.problems == ()
    return tenant_file(convert(loaded.policies))


def test_the_example_pair_becomes_the_tenants_that_it_means() -> None:
    text = tenant_file(convert(load_policies([str(EXAMPLE)]).policies))
    config = parse_tenants(text.encode(), "tenants.yaml")
    assert config.label_key == "client"
    assert config.tenants["test02"].namespaces.suffixes == ("-test02",)
    assert [shared.name for shared in config.shared] == ["ingress"]
    assert "Not said here" not in text


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("'*-red'", 'suffixes: ["-red"]'),
        ("'red-*'", 'prefixes: ["red-"]'),
        ("shop", 'names: ["shop"]'),
        ("'a | *-red'", 'names: ["a"], suffixes: ["-red"]'),
        ("'r?d'", "names that fit 'r?d'"),
        ("'!kube-system'", "names that fit '!kube-system'"),
    ],
)
def test_patterns_of_names(names: str, said: str) -> None:
    text = written(names)
    assert said in text
    parse_tenants(text.encode(), "tenants.yaml")


@pytest.mark.parametrize(
    ("action", "what"),
    [
        ("mutate: {patchStrategicMerge: {spec: {a: b}}}", "what it merges beside labels"),
        ("mutate: {patchesJson6902: '[]'}", "more than to merge labels"),
        ("generate: {apiVersion: v1, kind: Secret, name: a, namespace: b}", "the Secret"),
        (
            "generate: {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, name: a,"
            " namespace: b, data: {spec: {podSelector: {}, egress: [], ingress: [{}]}}}",
            "egress",
        ),
        (
            f"preconditions: {{all: [{UNTRUE}]}}\n        {LABEL}",
            "preconditions",
        ),
    ],
)
def test_what_the_file_cannot_say_is_named_with_its_place(action: str, what: str) -> None:
    text = written("'*-red'", action)
    assert "# Not said here:" in text
    told = [line for line in text.splitlines() if line.startswith("#   p.yaml:")]
    assert any(what in line for line in told), text
    parse_tenants(text.encode(), "tenants.yaml")


def test_the_command_prints_the_file_and_warns_of_what_it_cannot_read(
    ringfence: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    done = ringfence("policy", "convert", EXAMPLE)
    assert done.returncode == 0
    assert 'suffixes: ["-test02"]' in done.stdout
    bad = tmp_path / "bad.yaml"
    bad.write_text(EMPTY)
    done = ringfence("policy", "convert", bad)
    assert done.returncode == 1
    assert f"{bad}:" in done.stderr
    assert "tenants: []" in done.stdout
    bad.write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n")
    done = ringfence("policy", "convert", bad)
    assert done.returncode == 1
    assert f"no ClusterPolicy or Policy in {bad}; name the files" in done.stderr
