"""Documents become values as an API server would read them, whatever YAML makes of their words."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from generators.errors import InputError
from generators.manifests import Documents, parse_object, read, read_bytes
from generators.objects import (
    NAME_LABEL,
    ContainerPort,
    Direction,
    IPBlock,
    NetworkPolicy,
    Operator,
    Origin,
    Peer,
    Pod,
    PolicyPort,
    Requirement,
    Rule,
    Selector,
)


def documents(text: str) -> Documents:
    return read_bytes(text.encode(), "in.yaml")


def pod(text: str) -> Pod:
    head = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: x}\n"
    return documents(head + text).pods[0]


def policy(spec: str) -> NetworkPolicy:
    head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
    head += "metadata: {name: p, namespace: x}\nspec: "
    return documents(head + spec + "\n").policies[0]


@pytest.mark.parametrize("name", ["y", "n", "no", "on", "1e3", "0123", "1234", "true", "null-ish"])
@pytest.mark.parametrize("quote", ["", '"', "'"])
def test_namespace_names_survive_yaml_quoted_or_not(name: str, quote: str) -> None:
    text = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {quote}{name}{quote}}}\n"
    assert [n.name for n in documents(text).namespaces] == [name]


@pytest.mark.parametrize("value", ["y", "no", "1e3", "0123", "0o17", "1_000", "null", ""])
def test_quoted_label_values_survive_yaml(value: str) -> None:
    text = f'apiVersion: v1\nkind: Namespace\nmetadata: {{name: x, labels: {{a: "{value}"}}}}\n'
    assert documents(text).namespaces[0].labels["a"] == value


@pytest.mark.parametrize("value", ["no", "on", "true", "1e3", "0123", "0x1f", "12", "1.5", ".inf"])
def test_label_values_that_yaml_does_not_read_as_strings_are_refused(value: str) -> None:
    text = f"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: x\n  labels:\n    a: {value}\n"
    with pytest.raises(InputError, match=rf"in.yaml:6: .*labels.a: .*{value}.*; quote it"):
        documents(text)


def test_a_namespace_carries_its_name_label_whatever_the_document_says() -> None:
    text = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: x, labels: {{{NAME_LABEL}: y}}}}\n"
    assert documents(text).namespaces[0].labels == {NAME_LABEL: "x"}


@pytest.mark.parametrize(
    ("status", "ips", "phase"),
    [
        ("", (), "Running"),
        ("status: {}", (), "Running"),
        ("status: {phase: Pending}", (), "Pending"),
        ("status: {podIP: 10.0.0.1}", ("10.0.0.1",), "Running"),
        (
            "status: {podIPs: [{ip: 10.0.0.1}, {ip: 'FD00::0:1'}]}",
            ("10.0.0.1", "fd00::1"),
            "Running",
        ),
        ("status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}]}", ("10.0.0.1",), "Running"),
        ("status: {phase: Failed, podIP: '::ffff:10.0.0.1'}", ("10.0.0.1",), "Failed"),
    ],
)
def test_a_pods_addresses_and_phase(status: str, ips: tuple[str, ...], phase: str) -> None:
    found = pod(status)
    assert (found.ips, found.phase) == (ips, phase)


def test_ports_come_from_containers_and_restartable_init_containers() -> None:
    found = pod(
        """
spec:
  initContainers:
    - {name: once, ports: [{containerPort: 1}]}
    - {name: sidecar, restartPolicy: Always, ports: [{containerPort: 2, name: s, protocol: UDP}]}
  containers:
    - {name: a, ports: [{containerPort: 3, name: s}]}
    - {name: b}
"""
    )
    assert found.ports == (ContainerPort(3, "TCP", "s"), ContainerPort(2, "UDP", "s"))


def test_a_pod_keeps_what_decisions_depend_on() -> None:
    found = documents(
        """
apiVersion: v1
kind: Pod
metadata:
  name: p
  uid: u-1
  annotations: {ringfence.io/interface: veth0}
  creationTimestamp: 2026-01-02T03:04:05Z
  deletionTimestamp: "2026-01-02T03:05:05Z"
spec: {nodeName: n1, hostNetwork: true, containers: []}
status: {hostIP: 192.168.0.1}
"""
    ).pods[0]
    assert (found.namespace, found.uid, found.node) == ("default", "u-1", "n1")
    assert (found.host_network, found.host_ips) == (True, ("192.168.0.1",))
    assert (found.created, found.terminating) == ("2026-01-02T03:04:05Z", True)
    assert found.annotations == {"ringfence.io/interface": "veth0"}


INGRESS, EGRESS = Direction.INGRESS, Direction.EGRESS


@pytest.mark.parametrize(
    ("spec", "directions"),
    [
        ("{podSelector: {}}", {INGRESS}),
        ("{podSelector: {}, policyTypes: []}", {INGRESS}),
        ("{podSelector: {}, policyTypes: null, egress: null}", {INGRESS}),
        ("{podSelector: {}, egress: []}", {INGRESS}),
        ("{podSelector: {}, egress: [{}]}", {INGRESS, EGRESS}),
        ("{podSelector: {}, egress: [{}], policyTypes: [Ingress]}", {INGRESS}),
        ("{podSelector: {}, ingress: [{}], policyTypes: [Egress]}", {EGRESS}),
        ("{podSelector: {}, policyTypes: [Egress, Ingress]}", {INGRESS, EGRESS}),
        ("{podSelector: {}, policyTypes: [Egress, Egress]}", {EGRESS}),
    ],
)
def test_policy_types_default_as_on_an_api_server(spec: str, directions: set[Direction]) -> None:
    assert policy(spec).directions == directions


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ("[]", ()),
        ("null", ()),
        ("[{}]", (PolicyPort("TCP"),)),
        ("[{port: 80}]", (PolicyPort("TCP", 80),)),
        ("[{protocol: UDP}]", (PolicyPort("UDP"),)),
        ("[{port: http, protocol: SCTP}]", (PolicyPort("SCTP", "http"),)),
        ("[{port: 80, endPort: 90}]", (PolicyPort("TCP", 80, 90),)),
    ],
)
def test_ports_default_to_tcp(ports: str, expected: tuple[PolicyPort, ...]) -> None:
    assert policy(f"{{podSelector: {{}}, ingress: [{{ports: {ports}}}]}}").ingress == (
        Rule(ports=expected),
    )


@pytest.mark.parametrize(
    ("cidr", "canonical"),
    [
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("010.1.2.0/24", "10.1.2.0/24"),
        ("10.0.0.0/08", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("'::ffff:10.1.2.3/104'", "10.0.0.0/8"),
        ("'::ffff:10.1.2.3/128'", "10.1.2.3/32"),
        ("'FD00:0:0::1/64'", "fd00::/64"),
        ("'::/0'", "::/0"),
    ],
)
def test_cidrs_that_api_servers_have_stored_are_taken_and_normalised(
    cidr: str, canonical: str
) -> None:
    found = policy(f"{{podSelector: {{}}, ingress: [{{from: [{{ipBlock: {{cidr: {cidr}}}}}]}}]}}")
    assert found.ingress[0].peers == (Peer(ip_block=IPBlock(canonical)),)


def test_selectors_that_mean_the_same_compare_equal() -> None:
    one = policy("{podSelector: {matchLabels: {b: '2', a: '1'}}}")
    two = policy(
        "{podSelector: {matchExpressions: [{key: b, operator: In, values: ['2']},"
        " {key: a, operator: In, values: ['1', '1']}]}}"
    )
    assert one.pod_selector == two.pod_selector
    assert one.pod_selector == Selector(
        (Requirement("a", Operator.IN, ("1",)), Requirement("b", Operator.IN, ("2",)))
    )


def test_absent_and_empty_selectors_differ() -> None:
    found = policy("{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}")
    assert found.ingress[0].peers == (Peer(pod_selector=Selector(), namespace_selector=None),)


NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n"


def test_several_documents_lists_and_empty_ones_are_read_in_order() -> None:
    text = (
        (NAMESPACE % "b")
        + "---\n# nothing\n---\n"
        + "apiVersion: v1\nkind: List\nitems:\n"
        + "- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n"
        + "- {apiVersion: v1, kind: Pod, metadata: {name: p}}\n"
        + "---\napiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: q}\n"
    )
    found = documents(text)
    assert [n.name for n in found.namespaces] == ["b", "a"]
    assert [(p.name, p.origin.line) for p in found.pods] == [("p", 11), ("q", 16)]


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json_is_read_tabs_included(indent: int | str | None) -> None:
    document = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": "x",
            "labels": {"a": "no", "b": "1"},
            "annotations": {"u": "\u00e4/\\"},
        },
    }
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [document]}, indent=indent)
    (found,) = documents(text).namespaces
    assert (found.labels["a"], found.labels["b"]) == ("no", "1")
    assert found.annotations == {"u": "\u00e4/\\"}


def test_anchors_and_merge_keys_are_followed() -> None:
    found = documents(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: &l {a: b}}\n"
        "---\napiVersion: v1\nkind: Pod\nmetadata: &m {name: q, labels: &l {a: c}}\n"
        "spec: {<<: *m, containers: []}\n"
    )
    assert [p.labels for p in found.pods] == [{"a": "b"}, {"a": "c"}]


def test_unknown_kinds_are_skipped_and_named_once_each() -> None:
    text = "---\n".join(
        [
            "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: d}\n",
            NAMESPACE % "x",
            "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: e}\n",
            "apiVersion: crd.projectcalico.org/v1\nkind: NetworkPolicy\nmetadata: {name: c}\n",
        ]
    )
    found = documents(text)
    assert len(found.namespaces) == 1
    assert found.warnings == (
        "in.yaml:13: kind crd.projectcalico.org/v1 NetworkPolicy is not known here, skipped",
        "in.yaml:1: kind example.com/v1 Widget is not known here, skipped (2 objects)",
    )


def test_directories_are_read_recursively_in_a_fixed_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.yml").write_text(NAMESPACE % "one")
    (tmp_path / "a.yaml").write_text(NAMESPACE % "two")
    (tmp_path / "c.json").write_text(
        '{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"c"}}'
    )
    (tmp_path / "README.md").write_text("no: yaml: here")
    assert [n.name for n in read([str(tmp_path)]).namespaces] == ["two", "one", "c"]


def test_a_file_named_twice_is_read_once_and_hidden_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.yaml").write_text(NAMESPACE % "hidden")
    (tmp_path / "a.yaml").write_text(NAMESPACE % "a")
    (tmp_path / "link.yaml").symlink_to(tmp_path / "a.yaml")
    found = read([str(tmp_path), str(tmp_path / "a.yaml")])
    assert [n.name for n in found.namespaces] == ["a"]


def test_a_dash_means_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO((NAMESPACE % "x").encode()))
    monkeypatch.setattr(sys, "stdin", stream)
    (found,) = read(["-"]).namespaces
    assert found.origin == Origin("-", 1)


def test_one_object_of_an_api_server_is_parsed_and_strangers_are_none() -> None:
    origin = Origin("api-server")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}
    assert parse_object(namespace, origin) is not None
    assert parse_object({"apiVersion": "v1", "kind": "Secret", "metadata": {}}, origin) is None
    with pytest.raises(InputError, match=r"api-server:0: Namespace: metadata.name: Required"):
        parse_object({**namespace, "metadata": {}}, origin)
