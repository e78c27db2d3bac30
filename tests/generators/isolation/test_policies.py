"""Into a tenant's namespace come its own tenant, shared components and consented grants only."""

from __future__ import annotations

from dataclasses import replace

import pytest

from generators.documents.writing import to_yaml
from generators.isolation.policies import is_ours, isolation_policies
from generators.manifests import policy_document
from generators.objects import Node, Rule
from tests.generators.builders import TENANTS, ask, cluster, config, node, pod

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


HOSTS = (Node("n2", ("192.168.0.2", "fd99::2")), Node("n1", ("192.168.0.10", "192.168.0.2")))
ADDRESSES = ["192.168.0.2/32", "192.168.0.10/32", "fd99::2/128"]


def blocks(rule: Rule) -> list[str]:
    return [peer.ip_block.cidr for peer in rule.peers if peer.ip_block is not None]


def test_a_component_on_its_nodes_network_enters_by_every_node_address_and_its_ports() -> None:
    text = FULL.replace("name: monitoring\n", "name: monitoring\n    hostNetwork: true\n", 1)
    before = isolation_policies(config(FULL), "app-test01", "test01", HOSTS)[0].ingress
    after = isolation_policies(config(text), "app-test01", "test01", HOSTS)[0].ingress
    place = next(i for i, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1])
    assert (*after[:place], *after[place + 1 :]) == before
    assert blocks(after[place]) == ADDRESSES
    assert after[place].ports == after[place - 1].ports != ()


def test_masked_sources_that_a_tenant_allows_enter_by_every_node_address() -> None:
    text = FULL.replace("  - name: test01\n", "  - name: test01\n    allowMasked: true\n")
    before = isolation_policies(config(FULL), "app-test01", "test01", HOSTS)[0].ingress
    after = isolation_policies(config(text), "app-test01", "test01", HOSTS)[0].ingress
    assert after[:-1] == before
    assert (blocks(after[-1]), after[-1].ports) == (ADDRESSES, ())


def test_an_address_that_only_an_interface_has_is_named_by_no_generated_policy() -> None:
    text = FULL.replace("  - name: test01\n", "  - name: test01\n    allowMasked: true\n")
    bridged = tuple(replace(host, interface_ips=("10.244.1.1",)) for host in HOSTS)
    policies = isolation_policies(config(text), "app-test01", "test01", bridged)
    assert policies == isolation_policies(config(text), "app-test01", "test01", HOSTS)


def test_without_known_nodes_no_rule_lets_everybody_in() -> None:
    text = FULL.replace("name: monitoring\n", "name: monitoring\n    hostNetwork: true\n", 1)
    text = text.replace("  - name: test01\n", "  - name: test01\n    allowMasked: true\n")
    (policy,) = isolation_policies(config(text), "app-test01", "test01")
    assert policy == isolation_policies(config(FULL), "app-test01", "test01", HOSTS)[0]


@pytest.mark.parametrize("source", ["ip/192.168.0.2", "ingress/host2"])
def test_what_the_wall_lets_in_masked_is_let_in_by_the_generated_policy(source: str) -> None:
    shared_host = TENANTS.replace("{names: [ingress]}", "{names: [ingress]}\n    hostNetwork: true")
    of = cluster(
        node("n2", "192.168.0.2"),
        pod("a-blue/web"),
        pod("ingress/host2", "192.168.0.2", "nodeName: n2, hostNetwork: true"),
        tenants=shared_host,
    )
    cell = ask(of, source, "a-blue/web")
    assert cell.ingress.rule == "a-blue/allow-ingress-namespace#ingress[2]"
