"""What policies cost in processor time: conditions, substitutions, a patch; JMESPath and CEL.

One process, without an API server or HTTP; the baseline of each is the same in JMESPath.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from bench.measure import Comparison, Scale, Series, Turn, Unit, alternate
from generators.kyverno.engine import Environment, mutate
from generators.kyverno.limits import OFFLINE
from generators.kyverno.model import Document, Operation, Policy
from generators.kyverno.offline.cluster import DocumentCluster
from generators.kyverno.offline.loading import policies_in
from generators.kyverno.requests import PolicyRequest

NAMESPACE: Document = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "shop-test01", "labels": {"client": "test01", "zone": "a"}},
}
JMESPATH = """\
apiVersion: kyverno.io/v1
kind: ClusterPolicy
metadata: {{name: label}}
spec:
  rules:
  - name: label
    match: {{any: [{{resources: {{kinds: [Namespace]}}}}]}}
    preconditions:
      all:
      - {{key: "{{{{request.operation}}}}", operator: Equals, value: CREATE}}
      - {{key: "{{{{request.object.metadata.labels.client}}}}", operator: Equals, value: {client}}}
    mutate:
      patchStrategicMerge:
        metadata: {{labels: {{made: "{{{{request.object.metadata.name}}}}"}}}}
"""
CEL = """\
apiVersion: policies.kyverno.io/v1
kind: MutatingPolicy
metadata: {{name: label}}
spec:
  matchConstraints:
    resourceRules:
    - {{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [namespaces]}}
  matchConditions:
  - {{name: created, expression: "request.operation == 'CREATE'"}}
  - {{name: client, expression: "object.metadata.labels.client == '{client}'"}}
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration:
      expression: 'Object{{metadata: Object.metadata{{labels: {{"made": object.metadata.name}}}}}}'
"""


def run(scale: Scale) -> Iterator[Comparison]:
    """Rules whose conditions do not hold, then rules that label."""
    calls = scale.of(2000, 5)
    for title, client in (
        ("two conditions, of which one does not hold", "other"),
        ("two conditions that hold, and a label", "test01"),
    ):
        turns = {
            "JMESPath": _turn(_asking(JMESPATH.format(client=client)), calls),
            "CEL": _turn(_asking(CEL.format(client=client)), calls),
        }
        samples = alternate(turns, rounds=scale.of(7, 1))
        series = [Series(name, Unit.PER_SECOND, samples[name]) for name in turns]
        yield Comparison(f"Rules a second of processor time: {title}", tuple(series))


def _asking(text: str) -> Callable[[], object]:
    (policy,) = policies_in(text.encode(), "policy.yaml").policies
    request = PolicyRequest(Operation.CREATE, NAMESPACE, {})
    environment = Environment(DocumentCluster(()), OFFLINE)
    policies: tuple[Policy, ...] = (policy,)
    return lambda: mutate(policies, request, environment)


def _turn(work: Callable[[], object], calls: int) -> Turn:
    def turn() -> Sequence[float]:
        start = time.process_time()
        for _ in range(calls):
            work()
        return (calls / max(time.process_time() - start, 1e-9),)

    return turn
