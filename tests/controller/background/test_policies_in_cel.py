"""GeneratingPolicy and MutatingPolicy from a file: made, kept, collected as generate rules are."""

from __future__ import annotations

from pathlib import Path

import pytest

from generators.documents.json import Document, mapping, strings
from generators.kube.resources import CONFIG_MAPS, NETWORK_POLICIES
from tests.controller.background.ground import Ground, labels_of, quiet, started
from tests.testbed.waiting import eventually

pytestmark = pytest.mark.cluster

POLICIES = """\
apiVersion: policies.kyverno.io/v1
kind: GeneratingPolicy
metadata: {name: isolate}
spec:
  evaluation: {synchronize: {enabled: true}, generateExisting: {enabled: true}}
  matchConstraints:
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [namespaces]}
  matchConditions:
  - {name: clients, expression: "object.metadata.?labels.?client.hasValue()"}
  generate:
  - template:
      interpolate: cel
      value: |
        apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata: {name: in-cel, namespace: (( object.metadata.name ))}
        spec:
          podSelector: {matchLabels: {client: (( object.metadata.labels.client ))}}
          policyTypes: [Ingress]
---
apiVersion: policies.kyverno.io/v1
kind: GeneratingPolicy
metadata: {name: settings}
spec:
  evaluation: {synchronize: {enabled: true}}
  matchConstraints:
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [namespaces]}
  matchConditions:
  - {name: clients, expression: "object.metadata.?labels.?client.hasValue()"}
  variables:
  - {name: source, expression: 'resource.Get("v1", "configmaps", "default", "settings")'}
  generate:
  - expression: generator.Apply(object.metadata.name, [variables.source])
---
apiVersion: policies.kyverno.io/v1
kind: MutatingPolicy
metadata: {name: stamp}
spec:
  evaluation: {mutateExisting: {enabled: true}, admission: {enabled: false}}
  matchConstraints:
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps],
       resourceNames: [stamped]}
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration:
      expression: 'Object{metadata: Object.metadata{labels: {"stamp": object.metadata.namespace}}}'
"""


def test_policies_in_cel_are_carried_out_from_a_file(bare: Ground, tmp_path: Path) -> None:
    file = tmp_path / "cel.yaml"
    file.write_text(POLICIES)
    options = ("--policies", str(file))
    bare.permit(*options)
    bare.config("default", "settings", {}, a="b")
    bare.config("default", "stamped", {})
    bare.make("old", labels={"client": "red"})
    bare.make("plain")
    controller = started(bare, *options)
    told = f"{controller.log}"
    eventually(lambda: bare.networks("old") == ["in-cel"], f"made: {told}")

    def stamp() -> str | None:
        return labels_of(bare.find(CONFIG_MAPS, "default", "stamped")).get("stamp")

    eventually(lambda: stamp() == "default", f"what is there is changed: {told}")
    bare.make("new", labels={"client": "blue"})
    eventually(lambda: bare.networks("new") == ["in-cel"], f"made for one that comes: {told}")

    def copied() -> dict[str, str]:
        return strings(bare.find(CONFIG_MAPS, "new", "settings") or {}, "data")

    eventually(lambda: copied() == {"a": "b"}, f"copied: {told}")
    assert bare.networks("plain") == []
    bare.merge(CONFIG_MAPS, "default", "settings", {"data": {"a": "c"}})
    eventually(lambda: copied() == {"a": "c"}, f"follows its source: {told}")

    def selected() -> dict[str, str]:
        spec = mapping(bare.find(NETWORK_POLICIES, "new", "in-cel") or {}, "spec")
        return strings(spec, "podSelector", "matchLabels")

    edited: Document = {"spec": {"podSelector": {"matchLabels": {"client": "else"}}}}
    bare.merge(NETWORK_POLICIES, "new", "in-cel", edited)
    eventually(lambda: selected() == {"client": "blue"}, "put back")
    bare.admin.delete(NETWORK_POLICIES, "in-cel", "new")
    eventually(lambda: bare.networks("new") == ["in-cel"], "made again")
    bare.label("new", "green", key="client")
    eventually(lambda: selected() == {"client": "green"}, "follows its trigger")
    bare.label("new", None, key="client")
    eventually(lambda: bare.networks("new") == [], "collected")
    eventually(lambda: quiet(controller), "at rest")
    assert bare.networks("old") == ["in-cel"]
