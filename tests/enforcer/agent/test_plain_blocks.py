"""Long lists of blocks are read past the general reader, and mean the same."""

from __future__ import annotations

import pytest

from enforcer.sources import plain_blocks
from enforcer.sources.readers import ManifestReader, Unreadable
from generators.addresses import is_canonical, parse_network
from generators.documents.json import Document, Key
from generators.manifests import parse_object
from generators.objects import Direction, NetworkPolicy, Origin

PLAIN = [{"ipBlock": {"cidr": f"192.0.{n}.0/24"}} for n in range(20)]
ODD: list[object] = [
    {"ipBlock": {"cidr": "2001:db8::/32", "except": ["2001:db8:1::/48"]}},
    {"ipBlock": {"cidr": "10.1.2.3/8"}},
    {"podSelector": {"matchLabels": {"app": "web"}}},
]


def document(rules: object, side: str = "ingress") -> Document:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": "long"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], side: rules},
    }


@pytest.mark.parametrize(
    ("side", "rules"),
    [
        pytest.param("ingress", [{"from": PLAIN}], id="plain blocks only"),
        pytest.param("egress", [{"to": [*ODD, *PLAIN], "ports": [{"port": 80}]}], id="with others"),
        pytest.param("ingress", [{"from": PLAIN}, {}, None, {"from": PLAIN[:3]}], id="rules"),
        pytest.param("egress", [{"to": PLAIN}, {"to": [*PLAIN, *PLAIN]}], id="the same again"),
    ],
)
def test_a_policy_says_the_same_however_it_is_read(side: str, rules: object) -> None:
    whole = parse_object(document(rules, side), Origin("x"))
    assert isinstance(whole, NetworkPolicy)
    found = ManifestReader(Unreadable()).policy(document(rules, side))
    for direction in Direction:
        read, wanted = found.rules(direction), whole.rules(direction)
        assert [set(rule.peers) for rule in read] == [set(rule.peers) for rule in wanted]
        assert [rule.ports for rule in read] == [rule.ports for rule in wanted]
    _, taken = plain_blocks.take(document(rules, side)["spec"])  # type: ignore[arg-type]
    assert sum(map(len, taken.values())) >= len(PLAIN) - 1


def test_what_is_wrong_beside_them_is_named_by_its_place_in_the_whole() -> None:
    problems = Unreadable()
    found = ManifestReader(problems).policy(
        document([{"from": [*PLAIN, {"ipBlock": {"cidr": "no"}}]}])
    )
    assert not found.ingress
    assert "spec.ingress[0].from[20].ipBlock.cidr" in problems.read()[str(Key("shop", "long"))]


@pytest.mark.parametrize(
    "text",
    [
        *("10.0.0.0/8", "0.0.0.0/0", "::/0", "::1/128", "2001:db8::/32", "1:0:0:2::/64"),
        *(
            "10.0.0.1/8",
            "010.0.0.0/8",
            "1.2.3.4/33",
            "1.2.3.4",
            "1.2.3.4/08",
            "1.2.3.4/٣٢",
            "/",
            "",
        ),
        *("2001:DB8::/32", "1::0:2/128", "fe80::1%eth0/64", "::ffff:1.2.3.0/120", "\0/1", "a/1"),
    ],
)
def test_only_what_is_spelled_as_we_spell_it_is_canonical(text: str) -> None:
    try:
        canonical = str(parse_network(text)) == text
    except ValueError:
        canonical = False
    assert is_canonical(text) is canonical


def test_an_ipv4_address_inside_ipv6_is_left_to_the_general_reader() -> None:
    assert not is_canonical("::102:304/128")
