"""`policy lint` tells HTTP rules that judge nothing, because another rule allows the packets."""

from __future__ import annotations

from pathlib import Path

import pytest

from generators.manifests import lint_cilium

POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: {name}, namespace: a}}
spec:
  endpointSelector: {{matchLabels: {{app: {app}}}}}
  ingress: {rules}
"""
EMPIRE = "fromEndpoints: [{matchLabels: {org: empire}}]"
HTTP = "rules: {http: [{method: POST}]}"
JUDGED = f"{{{EMPIRE}, toPorts: [{{ports: [{{port: '80', protocol: TCP}}], {HTTP}}}]}}"


def findings(folder: Path, *files: str) -> list[str]:
    for number, text in enumerate(files):
        (folder / f"{number}.yaml").write_text(text)
    return [str(problem) for problem in lint_cilium([str(folder)]).overruled]


def one(rules: str) -> str:
    return POLICY.format(name="one", app="x", rules=f"[{JUDGED}, {rules}]")


@pytest.mark.parametrize(
    "plain",
    [
        f"{{{EMPIRE}}}",
        f"{{{EMPIRE}, toPorts: [{{ports: [{{port: '80', protocol: TCP}}]}}]}}",
        f"{{{EMPIRE}, toPorts: [{{ports: [{{port: '79', endPort: 90}}]}}]}}",
        f"{{{EMPIRE}, toPorts: [{{ports: [{{port: '0', protocol: TCP}}]}}]}}",
        "{toPorts: [{ports: [{port: '80', protocol: ANY}]}]}",
        "{fromEntities: [all]}",
    ],
)
def test_a_rule_that_allows_the_same_packets_is_told(tmp_path: Path, plain: str) -> None:
    (found,) = findings(tmp_path, one(plain))
    assert "a/one: spec.ingress[0].toPorts[0].rules.http: lets every request pass" in found
    assert "a/cnp:one#ingress[1] allows the same packets without HTTP rules; " in found


@pytest.mark.parametrize(
    "plain",
    [
        "{fromEndpoints: [{matchLabels: {org: alliance}}]}",
        f"{{{EMPIRE}, toPorts: [{{ports: [{{port: '81', protocol: TCP}}]}}]}}",
        f"{{{EMPIRE}, toPorts: [{{ports: [{{port: '80', protocol: UDP}}]}}]}}",
        "{fromEndpoints: []}",
        JUDGED,
    ],
)
def test_rules_for_other_packets_are_not(tmp_path: Path, plain: str) -> None:
    assert findings(tmp_path, one(plain)) == []


def test_policies_beside_one_another_are_looked_at_together(tmp_path: Path) -> None:
    judged = POLICY.format(name="one", app="x", rules=f"[{JUDGED}]")
    plain = POLICY.format(name="two", app="x", rules=f"[{{{EMPIRE}}}]")
    (found,) = findings(tmp_path, judged, plain)
    assert "a/cnp:two#ingress[0] allows" in found
    other_pods = POLICY.format(name="two", app="y", rules=f"[{{{EMPIRE}}}]")
    assert findings(tmp_path, judged, other_pods) == []
    next_version = POLICY.format(name="one", app="x", rules=f"[{{{EMPIRE}}}]")
    assert findings(tmp_path, judged, next_version) == []
