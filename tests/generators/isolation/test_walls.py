"""A wall as ClusterNetworkPolicies lets in whom the tenant wall lets in, and denies the rest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, reject
from hypothesis import strategies as st

from generators.cli import cli
from generators.documents.writing import to_yaml
from generators.errors import InvalidConfig
from generators.isolation.walls import MOST, walls
from generators.kube.client import Client
from generators.reachability.verdicts import Reason
from tests.generators.builders import ask, cluster, config, namespace, pod
from tests.generators.isolation.test_policies import FULL
from tests.testbed import build
from tests.testbed.plane import ControlPlane
from tests.testbed.waiting import patience

CRD = "config/crd/standard/policy.networking.k8s.io_clusternetworkpolicies.yaml"
EXPECTED = """apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata:
  name: ringfence-wall-test01
  labels:
    app.kubernetes.io/managed-by: ringfence
    ringfence.io/policy: tenant-wall
spec:
  tier: Admin
  priority: 500
  subject:
    namespaces:
      matchLabels:
        client: test01
  ingress:
  - name: own tenant
    action: Pass
    from:
    - namespaces:
        matchLabels:
          client: test01
  - name: shared components
    action: Pass
    from:
    - namespaces:
        matchLabels:
          kubernetes.io/metadata.name: ingress
  - name: shared components
    action: Pass
    from:
    - namespaces:
        matchExpressions:
        - key: kubernetes.io/metadata.name
          operator: In
          values:
          - logs
          - metrics
    protocols:
    - tcp:
        destinationPort:
          number: 9090
    - udp:
        destinationPort:
          range:
            start: 100
            end: 200
  - name: grants
    action: Pass
    from:
    - namespaces:
        matchLabels:
          client: test02
    protocols:
    - tcp:
        destinationPort:
          number: 5432
  - name: wall
    action: Deny
    from:
    - namespaces: {}
"""
TENANTS = ("a", "b", "c")
SHARED = ("dns", "logs")
PORTS = ("80/TCP", "81/TCP", "53/UDP")


def test_a_wall_as_it_is_written() -> None:
    found = walls(config(FULL))
    assert to_yaml(found[:1]) == EXPECTED
    assert [wall["metadata"]["name"] for wall in documents(found)] == [
        "ringfence-wall-test01",
        "ringfence-wall-test02",
    ]


def documents(found: Iterable[Mapping[str, object]]) -> list[Any]:
    return [dict(wall) for wall in found]


# What the file says, and what the reference makes of the same.

spans = st.tuples(st.sampled_from(("TCP", "UDP")), st.integers(52, 82), st.integers(0, 30))
ports = st.lists(
    spans.map(lambda s: {"protocol": s[0], "port": s[1], "endPort": s[1] + s[2]}), max_size=3
)
pairs = st.tuples(st.sampled_from(TENANTS), st.sampled_from(TENANTS), ports, ports).filter(
    lambda pair: pair[0] != pair[1]
)


@st.composite
def files(draw: st.DrawFn) -> str:
    """A strict tenant file of three tenants, two shared components and random grants."""
    tenants: dict[str, dict[str, Any]] = {
        name: {"name": name, "namespaces": {"names": [f"{name}1", f"{name}2"]}} for name in TENANTS
    }
    for owner, peer, ours, theirs in draw(
        st.lists(pairs, max_size=4, unique_by=lambda p: (p[0], p[1]))
    ):
        for tenant, side, other, listed in (
            (owner, "allowFrom", peer, ours),
            (peer, "allowTo", owner, theirs),
        ):
            grant = {"tenant": other} | ({"ports": listed} if listed else {})
            tenants[tenant].setdefault(side, []).append(grant)
    shared: list[dict[str, Any]] = []
    for name in SHARED:
        listed = draw(ports)
        shared.append({"name": name, "namespaces": {"names": [name]}})
        if listed:
            shared[-1]["ports"] = listed
    return json.dumps(
        {
            "apiVersion": "ringfence.io/v1alpha1",
            "kind": "TenantConfig",
            "labelKey": "client",
            "shared": shared,
            "tenants": list(tenants.values()),
        }
    )


@given(text=files())
def test_a_wall_denies_what_the_reference_denies(text: str) -> None:
    """Rule by rule, first match wins, as network-policy-api defines the kind."""
    try:
        tenants = config(text)
    except InvalidConfig:  # grants that share no port
        reject()
    homes = [*(f"{name}{n}" for name in TENANTS for n in (1, 2)), *SHARED, "free"]
    labels = {f"{name}{n}": name for name in TENANTS for n in (1, 2)}
    objects = [part for n, home in enumerate(homes) for part in placed(home, n)]
    of = cluster(*objects, tenants=text)
    found = documents(walls(tenants))
    for source in homes:
        for destination in homes:
            for port in PORTS:
                cell = ask(of, f"{source}/p", f"{destination}/p", port)
                kept_out = cell.ingress.reason is Reason.TENANT_WALL
                denied = denies(found, labels, source, destination, port)
                assert denied == kept_out, (source, destination, port)


def placed(home: str, number: int) -> list[str]:
    return [namespace(home), pod(f"{home}/p", f"10.0.0.{number + 1}")]


def denies(
    found: Iterable[Any], labels: Mapping[str, str], source: str, destination: str, port: str
) -> bool:
    def labelled(home: str) -> dict[str, str]:
        own = {"client": labels[home]} if home in labels else {}
        return own | {"kubernetes.io/metadata.name": home}

    number, _, protocol = port.partition("/")
    for wall in sorted(found, key=lambda w: w["spec"]["priority"]):
        if not selects(wall["spec"]["subject"]["namespaces"], labelled(destination)):
            continue
        for rule in wall["spec"]["ingress"]:
            fits = any(selects(peer["namespaces"], labelled(source)) for peer in rule["from"])
            if fits and named(rule.get("protocols"), protocol.lower(), int(number)):
                return bool(rule["action"] == "Deny")
    return False


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    exact = all(labels.get(k) == v for k, v in selector.get("matchLabels", {}).items())
    listed = selector.get("matchExpressions", [])
    return exact and all(labels.get(e["key"]) in e["values"] for e in listed)


def named(protocols: Iterable[Any] | None, protocol: str, number: int) -> bool:
    if protocols is None:
        return True
    for entry in protocols:
        port = entry.get(protocol, {}).get("destinationPort", {})
        span = port.get("range", {"start": port.get("number"), "end": port.get("number")})
        if port and span["start"] <= number <= span["end"]:
            return True
    return False


# Limits, modes and the command.


def many() -> str:
    """A tenant that 60 others may enter, each on ports of its own, one on 60 ports."""
    others = [f"t{n}" for n in range(60)]
    owner = {
        "name": "owner",
        "namespaces": {"names": ["owner"]},
        "allowFrom": [{"tenant": t, "ports": [{"port": 1000 + n}]} for n, t in enumerate(others)],
    }
    owner["allowFrom"][0]["ports"] = [{"port": 2 * p} for p in range(1, 61)]  # type: ignore[index]
    rest = [
        {"name": t, "namespaces": {"names": [t]}, "allowTo": [{"tenant": "owner"}]} for t in others
    ]
    head = {"apiVersion": "ringfence.io/v1alpha1", "kind": "TenantConfig", "labelKey": "client"}
    return json.dumps({**head, "tenants": [owner, *rest]})


def test_what_is_too_much_for_one_policy_goes_on_in_the_next() -> None:
    found = documents(walls(config(many())))
    parts = [w for w in found if w["metadata"]["name"].startswith("ringfence-wall-owner")]
    assert [p["metadata"]["name"] for p in parts] == [
        "ringfence-wall-owner",
        "ringfence-wall-owner.2",
        "ringfence-wall-owner.3",
    ]
    assert [p["spec"]["priority"] for p in parts] == [500, 501, 502]
    rules = [rule for part in parts for rule in part["spec"]["ingress"]]
    assert all(len(part["spec"]["ingress"]) <= MOST for part in parts)
    assert all(len(rule.get("protocols", ())) <= MOST for rule in rules)
    assert [rule["action"] for rule in rules].index("Deny") == len(rules) - 1
    assert len(rules) == 1 + 3 + 59 + 1  # own, 60 ports in three, 59 with one, the wall


@pytest.mark.parametrize(
    ("said", "names", "note"),
    [
        ("mode: audit\n", [], "the file's mode is audit"),
        ("mode: overridable\n", [], "the file's mode is overridable"),
        ("", ["ringfence-wall-blue"], "no wall for tenant red: it is under audit"),
    ],
)
def test_where_there_is_no_wall_the_command_says_why(
    said: str, names: list[str], note: str, tmp_path: Path
) -> None:
    red = "" if said else ", mode: audit"
    file = tmp_path / "tenants.yaml"
    file.write_text(
        f"apiVersion: ringfence.io/v1alpha1\nkind: TenantConfig\n{said}tenants:\n"
        "  - {name: blue, namespaces: {names: [b]}}\n"
        f"  - {{name: red, namespaces: {{names: [r]}}{red}}}\n"
    )
    arguments = ["generate", "-c", str(file), "--as", "ClusterNetworkPolicy"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0
    assert note in done.stderr
    found = [d for d in yaml.safe_load_all(done.stdout) if d]
    kinds = [(d["kind"], d["metadata"]["name"]) for d in found]
    assert kinds == [
        ("Namespace", "b"),
        ("Namespace", "r"),
        *(("ClusterNetworkPolicy", name) for name in names),
    ]


@pytest.mark.cluster
def test_the_api_server_takes_every_wall(api: ControlPlane, tmp_path: Path) -> None:
    """By the definition that network-policy-api publishes."""
    with Client.connect(str(api.kubeconfig())) as client:
        version = client.version()
    if not version.at_least(1, 31):
        pytest.skip(f"the definition asks for isCIDR() of CEL, which {version.release} has not")
    folder = build.module("clusternetworkpolicy", "sigs.k8s.io/network-policy-api")
    api.kubectl("apply", "-f", str(folder / CRD))
    try:
        established = ("--for=condition=Established", f"--timeout={patience(60):.0f}s")
        api.kubectl("wait", *established, "-f", str(folder / CRD))
        for number, text in enumerate((FULL, many())):
            file = tmp_path / f"{number}.yaml"
            found = walls(config(text))
            file.write_text(to_yaml(found))
            told = api.kubectl("apply", "--server-side", "--validate=strict", "-f", str(file))
            assert told.count("serverside-applied") == len(found)
    finally:
        api.kubectl("delete", "-f", str(folder / CRD))
