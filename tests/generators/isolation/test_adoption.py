"""`tenants init`: what runs becomes a tenant file that is right, and says what it cannot know."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.isolation.adoption import by_label, by_names, tenant_file
from generators.objects import NAME_LABEL, Namespace, NetworkPolicy, Peer, Rule
from generators.selectors import labels_selector
from generators.tenants.load import parse_tenants
from generators.tenants.model import Mode

Run = Callable[..., "subprocess.CompletedProcess[str]"]
CLUSTER = """\
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: web, labels: {client: acme}}}
- {apiVersion: v1, kind: Namespace, metadata: {name: db, labels: {client: acme}}}
- {apiVersion: v1, kind: Namespace, metadata: {name: shop-globex, labels: {client: globex}}}
- {apiVersion: v1, kind: Namespace, metadata: {name: mail-globex, labels: {client: globex}}}
- {apiVersion: v1, kind: Namespace, metadata: {name: odd, labels: {client: Initech_Ltd}}}
- {apiVersion: v1, kind: Namespace, metadata: {name: monitoring, labels: {team: ops}}}
- {apiVersion: v1, kind: Namespace, metadata: {name: sandbox}}
- {apiVersion: v1, kind: Namespace, metadata: {name: kube-system, labels: {client: acme}}}
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: scrape, namespace: web}
  spec:
    podSelector: {}
    ingress:
    - from: [{namespaceSelector: {matchLabels: {team: ops}}}]
      ports: [{port: 9090}]
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: from-globex, namespace: db}
  spec:
    podSelector: {}
    ingress:
    - from: [{namespaceSelector: {matchLabels: {client: globex}}}]
      ports: [{port: 5432}]
    - from: [{namespaceSelector: {matchLabels: {client: acme}}}]
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: anybody, namespace: mail-globex}
  spec: {podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(CLUSTER)
    return path


def test_labels_policies_and_what_is_left_to_decide(
    ringfence: Run, cluster: Path, tmp_path: Path
) -> None:
    done = ringfence("tenants", "init", "--from-label", "client", "-f", cluster)
    assert done.returncode == 0, done.stderr
    text, file = done.stdout, tmp_path / "tenants.yaml"
    file.write_text(text)
    assert ringfence("tenants", "check", file).stdout == ""
    made = parse_tenants(text.encode(), "t")
    assert (made.mode, made.label_key) == (Mode.AUDIT, "client")
    held = {name: tenant.namespaces.names for name, tenant in made.tenants.items()}
    assert held == {"acme": ("db", "web"), "globex": ("mail-globex", "shop-globex")}
    (monitoring,) = made.shared
    assert (monitoring.namespaces, monitoring.ports[0].port) == (("monitoring",), 9090)
    (grant,) = made.consented("acme")
    assert (grant.tenant, grant.ports[0].port) == ("globex", 5432)
    assert made.consented("globex") == ()
    said = [line.strip(" #") for line in text.splitlines() if "#" in line]
    assert "sandbox" in said
    assert 'odd: client="Initech_Ltd"' in said
    assert "mail-globex/anybody" in said
    assert "monitoring enters 1 of 2 tenants today; as shared, all" in said
    assert 'all of them have suffixes: ["-globex"]: it would also claim new ones' in said


def test_labels_that_are_there_are_adopted(ringfence: Run, cluster: Path, tmp_path: Path) -> None:
    file = tmp_path / "tenants.yaml"
    file.write_text(ringfence("tenants", "init", "--from-label", "client", "-f", cluster).stdout)
    planned = ringfence("plan", "-c", file, "-f", cluster, "-o", "json")
    spaces = {c["name"]: c for c in json.loads(planned.stdout) if c["kind"] == "Namespace"}
    adopted = ("db", "web", "mail-globex", "shop-globex")
    assert {spaces[name]["action"] for name in adopted} == {"Keep"}
    assert "removed: client=Initech_Ltd" in spaces["odd"]["because"]


def test_words_of_names() -> None:
    acme, globex = ("db-acme", "mail-acme", "web-acme"), ("globex-db", "globex-web", "globex-x")
    found = by_names([Namespace(n) for n in (*acme, *globex, "a-b", "lonely", "kube-system")])
    assert found.tenants == {"acme": acme, "globex": globex}
    assert found.unowned == ("a-b", "lonely")
    tied = by_names([Namespace(name) for name in ("app-one", "app-two", "mail-one")])
    assert tied.choices == {"app-one": ("app", "one")}


words = st.sampled_from(("a", "b", "kube", "0", "x1"))
spaces = st.lists(
    st.builds(
        lambda parts, label: Namespace("-".join(parts), {} if label is None else {"k": label}),
        st.lists(words, min_size=1, max_size=3),
        st.none() | st.sampled_from(("a", "null", "1e3", "yes", "A", "", "x_y")),
    ),
    max_size=6,
    unique_by=lambda n: n.name,
)


@given(spaces)
def test_every_file_is_right(namespaces: list[Namespace]) -> None:
    for found in (by_label(namespaces, "k"), by_names(namespaces)):
        parse_tenants(tenant_file(found, namespaces, ()).encode(), "t")


@pytest.mark.parametrize("word", ["123", "1e3", "on", "null", "no"])
def test_words_that_yaml_takes_for_something_else_stay_words(word: str) -> None:
    spaces = [Namespace("web", {word: "acme"}), Namespace(word)]
    peer = Peer(namespace_selector=labels_selector({NAME_LABEL: word}))
    policy = NetworkPolicy("web", "in", ingress=(Rule(peers=(peer,)),))
    made = parse_tenants(tenant_file(by_label(spaces, word), spaces, [policy]).encode(), "t")
    (shared,) = made.shared
    assert (made.label_key, [*made.tenants], shared.name) == (word, ["acme"], word)


@pytest.mark.parametrize("asked", [(), ("--from-names", "--from-label", "k")])
def test_one_way_to_tell_tenants_is_wanted(
    ringfence: Run, cluster: Path, asked: tuple[str, ...]
) -> None:
    done = ringfence("tenants", "init", *asked, "-f", cluster)
    assert done.returncode == 2
    assert "--from-label KEY or --from-names" in done.stderr


PODS = """\
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: web, labels: {client: acme}}}
- {apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {client: wrong}}}
- {apiVersion: v1, kind: Namespace, metadata: {name: abc-xyz}}
- apiVersion: v1
  kind: Pod
  metadata: {name: a, namespace: web}
  spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: b, namespace: shop}
  spec: {containers: [{name: c, image: i}]}
- apiVersion: v1
  kind: Pod
  metadata:
    name: c-9d8f7-x2x4z
    namespace: sandbox
    labels: {pod-template-hash: 9d8f7}
    ownerReferences:
    - {apiVersion: apps/v1, kind: ReplicaSet, name: c-9d8f7, uid: u, controller: true}
  spec:
    containers: [{name: c, image: i}]
    affinity:
      podAntiAffinity:
        preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 1
          podAffinityTerm:
            topologyKey: kubernetes.io/hostname
            labelSelector: {}
            namespaceSelector: {matchLabels: {client: globex}}
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: mine, namespace: web}
  spec:
    podSelector: {}
    ingress:
    - from: [{namespaceSelector: {matchLabels: {client: wrong}}}]
      ports: [{port: 80}]
"""
FILE = """\
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
labelKey: client
tenants:
  - {name: acme, namespaces: {names: [web], prefixes: ["abc-"]}}
  - {name: globex, namespaces: {names: [shop], suffixes: ["-xyz"]}}
"""
FLOW = {
    "source": {"namespace": "shop", "pod_name": "b"},
    "destination": {"namespace": "web", "pod_name": "a"},
    "l4": {"TCP": {"source_port": 4000, "destination_port": 80}},
}


@pytest.fixture
def planned(ringfence: Run, tmp_path: Path) -> Callable[[str, str], str]:
    def plan(text: str, flows: str) -> str:
        for name, content in (("pods.yaml", PODS), ("tenants", text), ("flows", flows)):
            (tmp_path / name).write_text(content)
        paths = ("-c", tmp_path / "tenants", "-f", tmp_path / "pods.yaml")
        done = ringfence("plan", *paths, "--observed", tmp_path / "flows")
        return done.stdout + done.stderr

    return plan


def test_a_first_plan_names_whom_it_cuts_and_what_its_labels_move(
    planned: Callable[[str, str], str],
) -> None:
    reply = {**FLOW, "is_reply": True}
    flows = "\n".join(json.dumps({"flow": flow}) for flow in (FLOW, reply, FLOW))
    said = planned(FILE, flows).split("\n")
    used = "cut: shop/b -> web/a 80/TCP, by tenant/acme#wall, used by 2 observed flows"
    assert used in said
    assert "connections that pass today and would not: 3, of which were used: 1" in said
    assert "belong to no tenant, so every pod may enter them: sandbox" in said
    assert "NetworkPolicy web/mine no longer selects namespace shop: its labels change" in said
    affinity = "the affinity of Deployment sandbox/c selects namespace shop: its labels change"
    assert affinity in said
    assert any("client=wrong becomes globex" in line for line in said)
    assert any("in quarantine: name matches prefix" in line for line in said)


def test_under_audit_what_users_wrote_still_cuts_and_is_told(
    planned: Callable[[str, str], str],
) -> None:
    """A label that moves takes the namespace out of a policy that stays in force."""
    said = planned(FILE.replace("labelKey", "mode: audit\nlabelKey"), "").split("\n")
    assert "cut: shop/b -> web/a 80/TCP, by web/mine" in said


def test_flows_that_are_none_are_refused(planned: Callable[[str, str], str]) -> None:
    assert "flows:2: flow: is not a JSON object" in planned(FILE, "{}\nhello\n")
