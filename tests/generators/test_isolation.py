"""Into a tenant's namespace come its own tenant, shared components and consented grants only."""

from __future__ import annotations

from generators.isolation import is_ours, isolation_policies
from generators.manifests import policy_document, to_yaml
from tests.generators.builders import config

FULL = """
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
labelKey: client
shared:
  - name: ingress
    namespaces: {names: [ingress]}
  - name: monitoring
    namespaces: {names: [metrics, logs]}
    ports: [{port: 9090}, {protocol: UDP, port: 100, endPort: 200}]
tenants:
  - name: test01
    namespaces: {suffixes: ["-test01"]}
    allowFrom: [{tenant: test02, ports: [{port: 5432}]}]
  - name: test02
    namespaces: {suffixes: ["-test02"]}
    allowTo: [{tenant: test01}]
"""

EXPECTED = """apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: allow-ingress-namespace
  namespace: app-test01
  labels:
    app.kubernetes.io/managed-by: ringfence
    ringfence.io/policy: tenant-isolation
    ringfence.io/rule: allow-ingress-namespace
spec:
  podSelector: {}
  policyTypes:
  - Ingress
  ingress:
  - from:
    - namespaceSelector:
        matchLabels:
          client: test01
  - from:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: ingress
  - from:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: logs
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: metrics
    ports:
    - protocol: TCP
      port: 9090
    - protocol: UDP
      port: 100
      endPort: 200
  - from:
    - namespaceSelector:
        matchLabels:
          client: test02
    ports:
    - protocol: TCP
      port: 5432
"""


def test_the_isolation_policy_has_exactly_this_shape() -> None:
    policies = isolation_policies(config(FULL), "app-test01", "test01")
    assert to_yaml(policy_document(policy) for policy in policies) == EXPECTED


def test_a_grant_opens_one_direction_only() -> None:
    (policy,) = isolation_policies(config(FULL), "app-test02", "test02")
    assert len(policy.ingress) == 3


def test_a_policy_names_the_tenant_file_and_line_that_wants_it() -> None:
    (policy,) = isolation_policies(config(FULL), "app-test01", "test01")
    assert str(policy.origin) == "tenants.yaml:12"


def test_what_ringfence_manages_for_other_reasons_is_not_ours() -> None:
    managed = {"app.kubernetes.io/managed-by": "ringfence"}
    assert is_ours(managed)
    assert not is_ours({**managed, "ringfence.io/policy": "add-quota"})
    assert not is_ours({"app.kubernetes.io/managed-by": "Helm"})
