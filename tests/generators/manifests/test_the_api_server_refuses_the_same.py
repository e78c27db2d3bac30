"""What a real API server refuses of NetworkPolicies is refused here too, in its words; no more.

One table, asked twice: of our reader, and of the API server by a dry run. Each row is a spec and
the words of the refusal, or none where the server takes it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from generators.errors import InputError
from generators.kube.client import Client, DryRun
from generators.kube.errors import BadRequest, Invalid
from generators.kube.resources import NETWORK_POLICIES
from generators.manifests import read_bytes
from tests.testbed.plane import ControlPlane

TAKEN = ""


def row(name: str, spec: str, words: str = TAKEN) -> object:
    return pytest.param(spec, words, id=name)


def peer(name: str, text: str, words: str = TAKEN) -> object:
    return row(name, f"podSelector: {{}}\ningress: [{{from: [{text}]}}]", words)


def port(name: str, text: str, words: str = TAKEN) -> object:
    return row(name, f"podSelector: {{}}\ningress: [{{ports: [{text}]}}]", words)


RANGE = "must be between 1 and 65535, inclusive"
CIDR = "must be a valid CIDR value"
SUBSET = "must be a strict subset of `cidr`"
ROWS = [
    row("every pod", "podSelector: {}"),
    row("no rules", "podSelector: {}\npolicyTypes: []\ningress: []\negress: []"),
    row("types twice", "podSelector: {}\npolicyTypes: [Ingress, Ingress]"),
    row("rules aside", "podSelector: {}\npolicyTypes: [Ingress]\negress: [{}]"),
    row("unknown type", "podSelector: {}\npolicyTypes: [ingress]", 'Unsupported value: "ingress"'),
    row(
        "three types",
        "podSelector: {}\npolicyTypes: [Ingress, Egress, Ingress]",
        "may not specify more than two policyTypes",
    ),
    row("subject by a bad value", "podSelector: {matchLabels: {a: -x}}", "a valid label must be"),
    row("subject by a bad key", "podSelector: {matchLabels: {-a: x}}", "name part must"),
    row(
        "subject by a bad operator",
        "podSelector: {matchExpressions: [{key: a, operator: in, values: [b]}]}",
        "not a valid selector operator",
    ),
    peer("empty list", ""),
    peer("empty peer", "{}", "must specify a peer"),
    peer("null peer", "{podSelector: null}", "must specify a peer"),
    peer("every pod here", "{podSelector: {}}"),
    peer("every namespace", "{namespaceSelector: {}}"),
    peer(
        "block and selector",
        "{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}",
        "may not specify both ipBlock and another peer",
    ),
    peer(
        "In without values",
        "{podSelector: {matchExpressions: [{key: a, operator: In}]}}",
        "must be specified when `operator` is 'In' or 'NotIn'",
    ),
    peer(
        "NotIn without values",
        "{podSelector: {matchExpressions: [{key: a, operator: NotIn, values: []}]}}",
        "must be specified when `operator` is 'In' or 'NotIn'",
    ),
    peer(
        "Exists with values",
        "{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}",
        "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
    ),
    peer(
        "DoesNotExist with values",
        "{namespaceSelector: {matchExpressions: [{key: a, operator: DoesNotExist, values: [b]}]}}",
        "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
    ),
    peer(
        "one key twice",
        "{podSelector: {matchExpressions: [{key: a, operator: Exists}, {key: a, "
        "operator: DoesNotExist}]}}",
    ),
    peer("empty value", "{podSelector: {matchLabels: {a: ''}}}"),
    peer("key with a prefix", "{podSelector: {matchLabels: {example.com/a: b}}}"),
    peer(
        "key with a bad prefix", "{podSelector: {matchLabels: {Example.com/a: b}}}", "prefix part"
    ),
    peer("value of 64", f"{{podSelector: {{matchLabels: {{a: {'b' * 64}}}}}}}", "no more than 63"),
    peer("key of 64", f"{{podSelector: {{matchLabels: {{{'a' * 64}: b}}}}}}", "no more than 63"),
    peer("block", "{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.2.0.0/16]}}"),
    peer("block of IPv6", "{ipBlock: {cidr: 'fd00::/8', except: ['fd01::/16']}}"),
    peer("block without cidr", "{ipBlock: {}}", "Required value"),
    peer("empty cidr", "{ipBlock: {cidr: ''}}", "Required value"),
    peer("address without prefix", "{ipBlock: {cidr: 10.0.0.0}}", CIDR),
    peer("prefix too long", "{ipBlock: {cidr: 10.0.0.0/33}}", CIDR),
    peer("three octets", "{ipBlock: {cidr: 10.0.0/8}}", CIDR),
    peer("no address", "{ipBlock: {cidr: nonsense}}", CIDR),
    peer("except without prefix", "{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.1]}}", CIDR),
    peer("except is all", "{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}", SUBSET),
    peer("except is wider", "{ipBlock: {cidr: 10.0.0.0/8, except: [8.0.0.0/6]}}", SUBSET),
    peer("except is elsewhere", "{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}", SUBSET),
    peer("except of IPv6", "{ipBlock: {cidr: 10.0.0.0/8, except: ['fd00::/64']}}", SUBSET),
    peer("except twice", "{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.1.0.0/16]}}"),
    port("empty list", ""),
    port("any port of TCP", "{}"),
    port("number", "{port: 80}"),
    port("first", "{port: 1}"),
    port("last", "{port: 65535}"),
    port("zero", "{port: 0}", RANGE),
    port("too high", "{port: 65536}", RANGE),
    port("negative", "{port: -1}", RANGE),
    port("name", "{port: http-alt}"),
    port("name of digits", "{port: '80'}", "must contain at least one letter"),
    port("upper case", "{port: Http}", "must contain only alpha-numeric characters"),
    port("name of 15", "{port: abcdefghijklmno}"),
    port("name of 16", "{port: abcdefghijklmnop}", "must be no more than 15 characters"),
    port("name with two hyphens", "{port: a--b}", "must not contain consecutive hyphens"),
    port("name with a first hyphen", "{port: -a}", "must not begin or end with a hyphen"),
    port("SCTP", "{port: 80, protocol: SCTP}"),
    port("lower case", "{port: 80, protocol: tcp}", 'Unsupported value: "tcp"'),
    port("ICMP", "{protocol: ICMP}", 'Unsupported value: "ICMP"'),
    port("range", "{port: 80, endPort: 90}"),
    port("range of one", "{port: 80, endPort: 80}"),
    port("every port", "{port: 1, endPort: 65535}"),
    port("range of a name", "{port: http, endPort: 90}", "when `port` is non-numeric"),
    port("range without port", "{endPort: 90}", "when `port` is not specified"),
    port("range backwards", "{port: 90, endPort: 80}", "greater than or equal to `port`"),
    port("range too high", "{port: 80, endPort: 65536}", RANGE),
]


def document(spec: str) -> str:
    head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: "
    body = "".join(f"  {line}\n" for line in spec.splitlines())
    return f"{head}default}}\nspec:\n{body}"


def refusal_of_ours(spec: str) -> str:
    """What our reader says; empty when it takes the object."""
    try:
        read_bytes(document(spec).encode(), "in.yaml")
    except InputError as error:
        return str(error)
    return TAKEN


def refusal_of_theirs(client: Client, spec: str) -> str:
    """The same of an API server, which keeps nothing."""
    wanted = yaml.safe_load(document(spec))
    try:
        client.create(NETWORK_POLICIES, wanted, manager="ringfence-test", dry_run=DryRun.ALL)
    except (Invalid, BadRequest) as error:
        return str(error)
    return TAKEN


@pytest.mark.parametrize(("spec", "words"), ROWS)
def test_our_reader_takes_it_or_says_why_not(spec: str, words: str) -> None:
    said = refusal_of_ours(spec)
    assert bool(said) == bool(words), said
    assert words in said
    assert said.startswith("in.yaml:" if words else TAKEN)


@pytest.fixture(scope="module")
def admin(api: ControlPlane) -> Iterator[Client]:
    with Client.connect(str(api.kubeconfig())) as client:
        yield client


@pytest.mark.cluster
@pytest.mark.parametrize(("spec", "words"), ROWS)
def test_a_real_api_server_says_the_same(admin: Client, spec: str, words: str) -> None:
    said = refusal_of_theirs(admin, spec)
    assert bool(said) == bool(words), said
    assert words in said
