"""Policies of ten thousand rules and the like get an answer, the right one, in bounded time.

The bound is the test's time limit; what a slow machine takes is nobody's business.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.generators.builders import pod, policy

RULES = 10_000
EXCEPTS = 1_000
EXPRESSIONS = 1_000


def listed(items: Iterable[str]) -> str:
    return "[" + ", ".join(items) + "]"


def ingress(rules: Iterable[str], key: str = "x/p") -> str:
    return policy(key, f"podSelector: {{}}, ingress: {listed(rules)}")


def many_rules(wanted: str) -> str:
    """Rules for pods that are not there, then one for the client."""
    strangers = (
        f"{{from: [{{podSelector: {{matchLabels: {{app: c{i}}}}}}}], ports: [{{port: {i + 1}}}]}}"
        for i in range(RULES - 1)
    )
    return ingress([*strangers, f"{{from: [{{podSelector: {{matchLabels: {{app: {wanted}}}}}}}]}}"])


def many_excepts(first_octet: int) -> str:
    holes = (f"{first_octet}.{i // 250}.{i % 250}.0/24" for i in range(EXCEPTS))
    block = f"{{cidr: {first_octet}.0.0.0/8, except: {listed(holes)}}}"
    return ingress([f"{{from: [{{ipBlock: {block}}}]}}"])


def many_expressions(last: str) -> str:
    absent = [f"{{key: k{i}, operator: DoesNotExist}}" for i in range(EXPRESSIONS - 1)]
    chosen = listed([*absent, last])
    return ingress([f"{{from: [{{podSelector: {{matchExpressions: {chosen}}}}}]}}"])


def many_policies(wanted: str) -> str:
    return (
        "\n---\n".join(
            ingress([f"{{from: [{{podSelector: {{matchLabels: {{app: c{i}}}}}}}]}}"], f"x/p{i}")
            for i in range(EXPRESSIONS)
        )
        + "\n---\n"
        + many_rules(wanted)
    )


CASES = [
    pytest.param(many_rules("a"), "FORWARDED", id="10,000 rules, the last one allows"),
    pytest.param(many_rules("z"), "DROPPED", id="10,000 rules, none allows"),
    pytest.param(many_excepts(10), "FORWARDED", id="1,000 excepts elsewhere"),
    pytest.param(many_excepts(11), "DROPPED", id="1,000 excepts of another block"),
    pytest.param(
        many_expressions("{key: app, operator: Exists}"), "FORWARDED", id="1,000 expressions"
    ),
    pytest.param(
        many_expressions("{key: k0, operator: Exists}"), "DROPPED", id="1,000, one against another"
    ),
    pytest.param(many_policies("z"), "DROPPED", id="1,001 policies on one pod"),
]


@pytest.mark.parametrize("engine", ["evaluate", "maps"])
@pytest.mark.parametrize(("text", "expected"), CASES)
def test_large_policies_are_answered(ringfence: Run, text: str, expected: str, engine: str) -> None:
    objects = "\n---\n".join([pod("x/a", "10.244.9.9"), pod("x/b", "10.244.9.10"), text])
    asked = ("--from", "x/a", "--to", "x/b", "--port", "65000/TCP")
    done = ringfence("matrix", "-f", "-", *asked, "--engine", engine, "-o", "json", stdin=objects)
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads(done.stdout)["cells"]
    assert cell["verdict"] == expected


def test_a_large_policy_can_be_explained(ringfence: Run) -> None:
    objects = "\n---\n".join([pod("x/a"), pod("x/b"), many_rules("z")])
    done = ringfence("trace", "x/a", "x/b", "65000/TCP", "-f", "-", "-o", "json", stdin=objects)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told["stages"]["ingress"]) == RULES
    assert len(told["toAllow"]) == 1


def test_a_thousand_workloads_are_answered_on_one_screen(ringfence: Run, tmp_path: Path) -> None:
    """Each has labels and a port of its own, a tenth a policy of its own."""
    tenants = [f"- {{name: t{n}, namespaces: {{suffixes: ['-t{n}']}}}}" for n in range(10)]
    head = "apiVersion: ringfence.io/v1alpha1\nkind: TenantConfig\ntenants:\n"
    (tmp_path / "tenants.yaml").write_text(head + "\n".join(tenants))
    parts = []
    for n in range(1000):
        home = f"a{n % 4}-t{n % 10}"
        template = (
            f"{{metadata: {{labels: {{app: w{n}}}}}, spec: {{containers: [{{name: c, image: i, "
            f"ports: [{{containerPort: {8000 + n}}}]}}]}}}}"
        )
        parts.append(
            f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: w{n}, namespace: {home}}}\n"
            f"spec: {{template: {template}}}"
        )
        if n % 10 == 0:
            chosen = f"podSelector: {{matchLabels: {{app: w{n}}}}}"
            parts.append(
                policy(f"{home}/p{n}", f"{chosen}, ingress: [{{ports: [{{port: 8000}}]}}]")
            )
    asked = ("matrix", "-c", tmp_path / "tenants.yaml", "-f", "-", "--port", "8000", "--port", "9")
    done = ringfence(*asked, stdin="\n---\n".join(parts))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) < 70
    assert "by tenant, as 1000 pods are too many" in done.stderr
