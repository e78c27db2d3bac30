"""Each field of Cilium's policies is either enforced or refused, by name, line and what to do.

docs/cilium-policies.md is made of FIELDS: tests/docs/test_cilium_page.py compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from generators.errors import InputError
from generators.manifests import read_bytes
from generators.objects import CiliumPolicy, Direction, PolicyKind

POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: p, namespace: a}
spec:
  endpointSelector: {}
"""


@dataclass(frozen=True)
class Field:
    """A field as the page calls it, and `spec` with it. `refused`: part of the message."""

    path: str
    spec: str
    refused: str = ""


def ingress(rule: str) -> str:
    return f"{{endpointSelector: {{}}, ingress: [{{{rule}}}]}}"


def egress(rule: str) -> str:
    return f"{{endpointSelector: {{}}, egress: [{{{rule}}}]}}"


def ports(entry: str) -> str:
    return ingress(f"toPorts: [{{ports: [{{port: '80', protocol: TCP}}], {entry}}}]")


def http(rule: str) -> str:
    return ports(f"rules: {{http: [{rule}]}}")


FIELDS = (
    Field(
        "endpointSelector.matchLabels", "{endpointSelector: {matchLabels: {app: x}}, ingress: [{}]}"
    ),
    Field(
        "endpointSelector.matchExpressions",
        "{endpointSelector: {matchExpressions: [{key: app, operator: Exists}]}, ingress: [{}]}",
    ),
    Field("nodeSelector", "{nodeSelector: {}, ingress: [{}]}", "nodeSelector is not supported"),
    Field("ingress", "{endpointSelector: {}, ingress: [{}]}"),
    Field("ingressDeny", "{endpointSelector: {}, ingressDeny: [{}]}"),
    Field("egress", "{endpointSelector: {}, egress: [{}]}"),
    Field("egressDeny", "{endpointSelector: {}, egressDeny: [{}]}"),
    Field(
        "enableDefaultDeny.ingress",
        "{endpointSelector: {}, enableDefaultDeny: {ingress: false}, ingress: [{}]}",
    ),
    Field(
        "enableDefaultDeny.egress",
        "{endpointSelector: {}, enableDefaultDeny: {egress: false}, egress: [{}]}",
    ),
    Field("description", "{endpointSelector: {}, description: text, ingress: [{}]}"),
    Field(
        "labels", "{endpointSelector: {}, labels: [{key: k, source: s, value: v}], ingress: [{}]}"
    ),
    Field("log.value", "{endpointSelector: {}, log: {value: text}, ingress: [{}]}"),
    Field("fromEndpoints, toEndpoints", ingress("fromEndpoints: [{matchLabels: {app: x}}]")),
    Field("fromEntities, toEntities", egress("toEntities: [world, cluster]")),
    Field("fromCIDR, toCIDR", ingress("fromCIDR: [192.0.2.0/24]")),
    Field("fromCIDRSet.cidr, toCIDRSet.cidr", egress("toCIDRSet: [{cidr: 192.0.2.0/24}]")),
    Field(
        "fromCIDRSet.except, toCIDRSet.except",
        ingress("fromCIDRSet: [{cidr: 192.0.2.0/24, except: [192.0.2.1/32]}]"),
    ),
    Field(
        "fromCIDRSet.cidrGroupRef, toCIDRSet.cidrGroupRef",
        ingress("fromCIDRSet: [{cidrGroupRef: g}]"),
        "cidrGroupRef is not supported",
    ),
    Field(
        "fromCIDRSet.cidrGroupSelector, toCIDRSet.cidrGroupSelector",
        ingress("fromCIDRSet: [{cidrGroupSelector: {}}]"),
        "cidrGroupSelector is not supported",
    ),
    Field(
        "toServices.k8sService",
        egress("toServices: [{k8sService: {serviceName: s, namespace: a}}]"),
    ),
    Field(
        "toServices.k8sServiceSelector",
        egress("toServices: [{k8sServiceSelector: {selector: {matchLabels: {app: x}}}}]"),
    ),
    Field("fromNodes, toNodes", ingress("fromNodes: [{}]"), "fromNodes is not supported"),
    Field("fromGroups, toGroups", egress("toGroups: [{aws: {}}]"), "toGroups is not supported"),
    Field(
        "fromRequires, toRequires", ingress("fromRequires: [{}]"), "fromRequires is not supported"
    ),
    Field("toFQDNs", egress("toFQDNs: [{matchName: example.com}]"), "toFQDNs is not supported"),
    Field("toPorts.ports.port", ports("")),
    Field(
        "toPorts.ports.endPort",
        ingress("toPorts: [{ports: [{port: '80', endPort: 90, protocol: TCP}]}]"),
    ),
    Field("toPorts.ports.protocol", ingress("toPorts: [{ports: [{port: '53', protocol: ANY}]}]")),
    Field("toPorts.rules.http.method", http("{method: GET}")),
    Field("toPorts.rules.http.path", http("{path: '/v1/.*'}")),
    Field("toPorts.rules.http.host", http("{host: 'a[.]example'}")),
    Field("toPorts.rules.http.headers", http("{headers: ['X-Token: 1', X-Other]}")),
    Field("toPorts.rules.http.headerMatches.name", http("{headerMatches: [{name: X-Token}]}")),
    Field(
        "toPorts.rules.http.headerMatches.value",
        http("{headerMatches: [{name: X-Token, value: '1'}]}"),
    ),
    Field(
        "toPorts.rules.http.headerMatches.mismatch",
        http("{headerMatches: [{name: X-Token, value: '1', mismatch: LOG}]}"),
        "mismatch LOG is not supported",
    ),
    Field(
        "toPorts.rules.http.headerMatches.secret",
        http("{headerMatches: [{name: X-Token, secret: {name: s, namespace: a}}]}"),
        "secret is not supported",
    ),
    Field(
        "toPorts.rules.dns", ports("rules: {dns: [{matchName: x}]}"), "dns rules are not supported"
    ),
    Field("toPorts.rules.kafka", ports("rules: {kafka: [{topic: x}]}"), "kafka rules are not"),
    Field(
        "toPorts.rules.l7proto, toPorts.rules.l7", ports("rules: {l7proto: x}"), "l7proto rules are"
    ),
    Field("toPorts.listener", ports("listener: {name: x}"), "listener is not supported"),
    Field("toPorts.terminatingTLS", ports("terminatingTLS: {}"), "terminatingTLS is not supported"),
    Field("toPorts.originatingTLS", ports("originatingTLS: {}"), "originatingTLS is not supported"),
    Field("toPorts.serverNames", ports("serverNames: [x]"), "serverNames is not supported"),
    Field("icmps.fields.type", ingress("icmps: [{fields: [{type: EchoRequest}]}]")),
    Field("icmps.fields.family", ingress("icmps: [{fields: [{type: 128, family: IPv6}]}]")),
    Field("authentication", ingress("authentication: {mode: required}"), "authentication is not"),
)


def policy(spec: str, kind: str = "CiliumNetworkPolicy") -> CiliumPolicy:
    meta = "{name: p, namespace: a}"
    text = f"apiVersion: cilium.io/v2\nkind: {kind}\nmetadata: {meta}\nspec: {spec}\n"
    (found,) = read_bytes(text.encode(), "in.yaml").cilium_policies
    return found


def problems(spec: str) -> str:
    with pytest.raises(InputError) as refused:
        policy(spec)
    return str(refused.value)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.path)
def test_a_field_is_taken_or_refused_by_name(field: Field) -> None:
    if not field.refused:
        assert policy(field.spec).parts
        return
    said = problems(field.spec)
    assert field.refused in said
    assert said.startswith("in.yaml:4: CiliumNetworkPolicy a/p: spec")
    assert "; " in said.partition(field.refused)[2]


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        ("{ingress: [{}]}", "endpointSelector: Required value"),
        ("{endpointSelector: {}}", "must have at least one of ingress"),
        ("{endpointSelector: {}, ingress: []}", "must have at least one of ingress"),
        ("{endpointSelector: {}, ingress: [null]}", "null: must be an object"),
        (
            "{endpointSelector: {}, ingres: [{}]}",
            "unknown field \"ingres\"; did you mean 'ingress'?",
        ),
        (ingress("fromEndpoint: []"), 'unknown field "fromEndpoint"'),
        (ingress("fromEndpoints: [{}], fromCIDR: [10.0.0.0/8]"), "may not stand beside"),
        (ingress("fromEntities: [World]"), 'Unsupported value: "World"'),
        (ingress("fromCIDR: [10.0.0.1]"), "is no CIDR"),
        (ingress("fromCIDRSet: [{cidr: 10.0.0.0/8, except: [11.0.0.0/8]}]"), "is not inside"),
        (ingress("toPorts: [{ports: [{port: 80}]}]"), "is a number to YAML"),
        (ingress("toPorts: [{ports: [{port: '080'}]}]"), "no port number and no port name"),
        (ingress("toPorts: [{ports: [{port: '65536'}]}]"), "no port number and no port name"),
        (ingress("toPorts: [{ports: [{port: my_port}]}]"), "no port number and no port name"),
        (ingress("toPorts: [{ports: [{port: '80', protocol: tcp}]}]"), 'write "TCP"'),
        (ingress("toPorts: [{ports: [{port: '0', protocol: GRE}]}]"), "GRE is not supported"),
        (ingress("icmps: [{fields: [{type: Hello}]}]"), "is no type of ICMP"),
        (ingress("icmps: [{fields: [{type: 8}]}], toPorts: [{}]"), "may not stand beside toPorts"),
        (ingress("fromEndpoints: [{matchLabels: {'reserved:host': '', app: x}}]"), "alone only"),
        (ingress("fromEndpoints: [{matchLabels: {app: x, 'any:app': y}}]"), "asked for twice"),
        (http("{path: '/a/[b'}"), "proxy takes at character 4: missing ]: [b; correct"),
        (http("{method: '(?=x)'}"), "at character 1: invalid perl operator"),
        (http("{host: 'x{1,600}'}"), "makes a program of"),
        (http(f"{{path: {'x' * 1_000_000}}}"), "is longer than 4096 characters (1000000)"),
        (http("{pat: /}"), "unknown field \"pat\"; did you mean 'path'?"),
        (http("{headers: ['X-Token:1']}"), "is no name of a header"),
        (http("{headers: ['Host: x']}"), "use host"),
        (http("{headerMatches: [{value: x}]}"), "name: Required value"),
        (http("{headerMatches: [{name: x, mismatch: No}]}"), 'Unsupported value: "No"'),
        (ports(f"rules: {{http: [{', '.join(['{}'] * 501)}]}}"), "501 rules are too many"),
        (ingress("toPorts: [{ports: [{port: '80'}], rules: {http: [{}]}}]"), "must be TCP beside"),
        (
            ingress("toPorts: [{ports: [{port: '0', protocol: TCP}], rules: {http: [{}]}}]"),
            "0 may not stand beside HTTP rules",
        ),
        (ports("rules: {http: [{}], dns: [{}]}"), "exactly one of http and dns"),
        (ports("rules: {}"), "exactly one of http and dns"),
        (egress("toServices: [{}]"), "exactly one of k8sService and k8sServiceSelector"),
        ("{endpointSelector: {}, log: {value: " + "x" * 33 + "}, ingress: [{}]}", "at most 32"),
    ],
)
def test_what_cilium_refuses_is_refused(spec: str, wrong: str) -> None:
    assert wrong in problems(spec)


def test_all_that_is_wrong_is_told_at_once_with_its_line() -> None:
    text = POLICY + "  ingress:\n  - toFQDNs: []\n  - fromCIDR: [x]\n"
    with pytest.raises(InputError) as refused:
        read_bytes(text.encode(), "in.yaml")
    lines = [str(problem).partition(": ")[0] for problem in refused.value.problems]
    assert lines == ["in.yaml:8", "in.yaml:9"]


def test_one_with_a_field_that_is_refused_is_refused_as_a_whole() -> None:
    text = (
        POLICY
        + "  ingress: [{}]\n"
        + POLICY.replace("name: p", "name: q")
        + "  egress: [{toFQDNs: [{}]}]\n"
    )
    with pytest.raises(InputError) as refused:
        read_bytes(text.replace("\napiVersion", "\n---\napiVersion").encode(), "in.yaml")
    assert "a/q" in str(refused.value)
    assert "a/p" not in str(refused.value)


def test_spec_and_specs_are_parts_under_names_of_their_own() -> None:
    text = """
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: all}
spec: {endpointSelector: {}, ingressDeny: [{}]}
specs:
- {endpointSelector: {}, egress: [{}, {}], enableDefaultDeny: {egress: false}}
"""
    (found,) = read_bytes(text.encode(), "in.yaml").cilium_policies
    first, second = found.parts
    assert (found.key, first.key, second.key) == ("ccnp:all", "ccnp:all", "ccnp:all#specs[0]")
    assert first.rule_name(Direction.INGRESS, 0) == "ccnp:all#ingressDeny[0]"
    assert second.rule_name(Direction.EGRESS, 1) == "ccnp:all#specs[0].egress[1]"
    assert (first.directions, second.directions) == (frozenset({Direction.INGRESS}), frozenset())
    assert {part.kind for part in found.parts} == {PolicyKind.CILIUM_CLUSTERWIDE}


def test_policies_of_all_kinds_may_have_one_name() -> None:
    plain = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: a}
"""
    text = "\n---\n".join((POLICY + "  ingress: [{}]\n", plain))
    found = read_bytes(text.encode(), "in.yaml")
    assert [p.key for p in found.policies] == ["a/p"]
    assert [p.key for p in found.cilium_policies] == ["a/cnp:p"]
