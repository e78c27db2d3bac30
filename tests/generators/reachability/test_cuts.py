"""Who is cut by a tenant file, in which order it is told, and whose labels leave policies."""

from __future__ import annotations

import json

import pytest

from generators.cluster import Cluster
from generators.errors import InputError
from generators.reachability.cuts import Cut, cuts, observed_flows, selections, sentences
from generators.reachability.matrix import EVALUATE, PortProtocol, answer, questions
from tests.generators.builders import TENANTS, cluster, documents, namespace, pod

SPACES = (namespace("a-blue", "client: blue"), namespace("a-red", "client: red"))
PODS = (pod("a-blue/web", "10.0.0.1"), pod("a-red/web", "10.0.0.2"))
AUDITED = TENANTS + "mode: audit\n"
TO_BLUE = ("a-red/web", "a-blue/web", "TCP", 80)
TO_RED = ("a-blue/web", "a-red/web", "TCP", 80)


def found(after: Cluster, used: dict[tuple[str, str, str, int], int]) -> tuple[Cut, ...]:
    before = cluster(*SPACES, *PODS)
    asked = questions(before, (PortProtocol(80, "TCP"),))
    return cuts(answer(EVALUATE, before, asked), answer(EVALUATE, after, asked), used, {})


def test_what_was_used_comes_first_and_the_wall_is_named() -> None:
    cut = found(cluster(*SPACES, *PODS, tenants=TENANTS), {TO_BLUE: 3})
    assert [c.connection for c in cut] == [TO_BLUE, TO_RED]
    assert list(sentences(cut, observed=True)) == [
        "connections that pass today and would not: 2, of which were used: 1",
        "cut: a-red/web -> a-blue/web 80/TCP, by tenant/blue#wall, used by 3 observed flows",
        "cut: a-blue/web -> a-red/web 80/TCP, by tenant/red#wall",
    ]


def test_under_audit_it_would_be_cut_once_that_ends() -> None:
    cut = found(cluster(*SPACES, *PODS, tenants=AUDITED), {})
    assert [c.audited for c in cut] == [True, True]
    said = next(iter(sentences(cut, observed=False)))
    assert said.startswith("would be cut once audit ends: a-blue/web -> a-red/web 80/TCP")


def test_nothing_cut_is_said_and_a_long_list_ends() -> None:
    same = cluster(*SPACES, *PODS)
    assert len(list(sentences(found(same, {}), observed=True))) == 1
    many = tuple(Cut((f"n/{n}", "n/x", "TCP", 80), "n/p", audited=False) for n in range(60))
    assert list(sentences(many, observed=False))[-1].startswith("and 10 more: ringfence matrix")


def test_flows_are_counted_by_connection_without_replies_and_strangers() -> None:
    ends = {
        "source": {"namespace": "a-red", "pod_name": "web"},
        "destination": {"namespace": "a-blue", "pod_name": "web"},
        "l4": {"TCP": {"source_port": 4000, "destination_port": 80}},
    }
    stranger = {**ends, "source": {"labels": ["reserved:world"]}}
    lines = [{"flow": ends}, ends, {"flow": {**ends, "is_reply": True}}, stranger, {"l4": {}}]
    text = [*(json.dumps(line) for line in lines), ""]
    assert observed_flows(text, "flows.json") == {TO_BLUE: 2}


@pytest.mark.parametrize("line", ["[]", "no json", "3"])
def test_a_line_that_is_no_flow_is_named(line: str) -> None:
    with pytest.raises(InputError, match=r"flows\.json:2"):
        observed_flows(["{}", line], "flows.json")


def test_labels_that_move_are_told_to_policies_and_affinities() -> None:
    read = documents(
        namespace("shop", "client: old"),
        """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: mine, namespace: web}
spec: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {client: old}}}]}]}""",
        """\
apiVersion: v1
kind: Pod
metadata: {name: near, namespace: web}
spec:
  containers: [{name: c, image: i}]
  affinity:
    podAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
      - {topologyKey: zone, namespaceSelector: {matchLabels: {client: new}}}""",
    )
    before = {space.name: space for space in read.namespaces}
    after = {s.name: s for s in documents(namespace("shop", "client: new")).namespaces}
    assert list(selections(before, after, read.policies, read.pods)) == [
        "NetworkPolicy web/mine no longer selects namespace shop: its labels change",
        "the affinity of Pod web/near selects namespace shop: its labels change",
    ]
