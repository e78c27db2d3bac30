"""What is written is read back as the same value, by every YAML reader, and byte for byte."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from generators.documents.writing import to_yaml
from generators.documents.yaml import resolve
from generators.manifests import (
    namespace_document,
    pod_document,
    policy_document,
    read_bytes,
)
from generators.objects import Namespace, NetworkPolicy, Pod, PolicyKind
from tests.enforcer import clusters

SURPRISES = [
    "y",
    "N",
    "no",
    "on",
    "1e3",
    "0123",
    "0o17",
    "1_000",
    "~",
    "null",
    "",
    "12:30",
    "=",
    "<<",
]


@pytest.mark.parametrize("text", SURPRISES)
def test_strings_stay_strings_for_every_reader(text: str) -> None:
    written = to_yaml([{"a": text}])
    assert yaml.safe_load(written) == {"a": text}
    plain = written.removeprefix("a: ").rstrip("\n")
    assert plain[:1] in ("'", '"') or isinstance(resolve(plain), str)


@given(st.text())
def test_any_text_survives(text: str) -> None:
    assert yaml.safe_load(to_yaml([{"a": [text]}])) == {"a": [text]}


@given(clusters.policies.filter(lambda policy: policy.kind is PolicyKind.NETWORK_POLICY))
def test_policies_survive_being_written_and_read(policy: NetworkPolicy) -> None:
    (canonical,) = read_bytes(to_yaml([policy_document(policy)]).encode(), "f").policies
    text = to_yaml([policy_document(canonical)])
    assert read_bytes(text.encode(), "f").policies == (canonical,)
    assert canonical.directions == policy.directions
    assert len(canonical.ingress) == len(policy.ingress)
    assert [rule.ports for rule in canonical.egress] == [rule.ports for rule in policy.egress]


@given(clusters.pods)
def test_pods_survive_being_written_and_read(pod: Pod) -> None:
    text = to_yaml([pod_document(pod)])
    assert read_bytes(text.encode(), "f").pods == (pod,)


def test_a_namespace_is_written_with_sorted_labels() -> None:
    namespace = Namespace("x", {"b": "no", "a": "1", "kubernetes.io/metadata.name": "x"})
    assert to_yaml([namespace_document(namespace)]) == (
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: x\n"
        '  labels:\n    a: "1"\n    b: "no"\n'
        "    kubernetes.io/metadata.name: x\n"
    )
