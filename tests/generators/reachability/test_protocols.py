"""Protocols with and without ports: how they are asked about, and which rules mean them."""

from __future__ import annotations

import pytest

from generators.addresses import Family
from generators.reachability.ends import BadQuestion
from generators.reachability.matrix import PortProtocol
from generators.reachability.protocols import number
from tests.generators.builders import TENANTS, ask, cluster, pod, policy, said


@pytest.mark.parametrize(
    ("text", "port", "protocol", "shown"),
    [
        ("80", 80, "TCP", "80/TCP"),
        ("80/tcp", 80, "TCP", "80/TCP"),
        ("65535/SCTP", 65535, "SCTP", "65535/SCTP"),
        ("ICMP", 0, "ICMP", "ICMP"),
        ("icmp", 0, "ICMP", "ICMP"),
        ("ip/1", 0, "ICMP", "ICMP"),
        ("IP/58", 0, "ICMP", "ICMP"),
        ("IP/47", 0, "IP/47", "IP/47"),
        ("IP/047", 0, "IP/47", "IP/47"),
        ("IP/255", 0, "IP/255", "IP/255"),
    ],
)
def test_what_can_be_asked(text: str, port: int, protocol: str, shown: str) -> None:
    wanted = PortProtocol.parse(text)
    assert (wanted.port, wanted.protocol, str(wanted)) == (port, protocol, shown)


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "0/TCP", "65536", "-1", "8 0", "80/", "80/XYZ", "80/ICMP", "8/icmp", "80/IP/6"),
        *("TCP", "GRE", "IP/", "IP/-1", "IP/256", "IP/6", "IP/17", "IP/132"),
        *("IP/0", "IP/44", "IP/60"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_would_do(text: str) -> None:
    with pytest.raises(BadQuestion, match="ICMP, or IP/NUMBER"):
        PortProtocol.parse(text)


@pytest.mark.parametrize(
    ("protocol", "family", "expected"),
    [
        ("TCP", Family.IPV4, 6),
        ("UDP", Family.IPV6, 17),
        ("SCTP", Family.IPV4, 132),
        ("ICMP", Family.IPV4, 1),
        ("ICMP", Family.IPV6, 58),
        ("IP/47", Family.IPV6, 47),
    ],
)
def test_numbers_as_packets_carry_them(protocol: str, family: Family, expected: int) -> None:
    assert number(protocol, family) == expected


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize(
    ("rule", "protocol", "expected"),
    [
        ("{}", "ICMP", "POLICY_ALLOWED"),
        ("{}", "IP/47", "POLICY_ALLOWED"),
        ("{from: [{podSelector: {}}]}", "ICMP", "POLICY_ALLOWED"),
        ("{from: [{podSelector: {}}]}", "IP/47", "POLICY_ALLOWED"),
        ("{ports: []}", "ICMP", "POLICY_ALLOWED"),
        ("{ports: [{protocol: TCP}, {protocol: UDP}, {protocol: SCTP}]}", "ICMP", "POLICY_DENIED"),
        (
            "{ports: [{protocol: TCP}, {protocol: UDP}, {protocol: SCTP}]}",
            "IP/47",
            "UNKNOWN_L4_PROTOCOL",
        ),
        ("{ports: [{port: 1, endPort: 65535}]}", "ICMP", "POLICY_DENIED"),
        ("{ports: [{port: 47, protocol: UDP}]}", "IP/47", "UNKNOWN_L4_PROTOCOL"),
        ("{from: [{podSelector: {matchLabels: {app: z}}}]}", "IP/4", "UNKNOWN_L4_PROTOCOL"),
    ],
)
def test_what_has_no_ports_passes_by_a_rule_without_ports_only(
    rule: str, protocol: str, expected: str, family: Family
) -> None:
    of = cluster(pod("x/a"), pod("x/b"), policy("x/p", f"podSelector: {{}}, ingress: [{rule}]"))
    assert ask(of, "x/a", "x/b", protocol, family).ingress.reason == expected


def test_the_wall_judges_every_protocol() -> None:
    granted = TENANTS.replace(
        '["-blue"]}', '["-blue"]}\n    allowFrom: [{tenant: red, ports: [{port: 80}]}]'
    ).replace('["-red"]}', '["-red"]}\n    allowTo: [{tenant: blue}]')
    of = cluster(pod("a-blue/a"), pod("b-blue/b"), pod("c-red/c"), tenants=granted)
    for protocol in ("ICMP", "IP/47"):
        assert said(ask(of, "b-blue/b", "a-blue/a", protocol)).endswith("ingress=POLICY_ALLOWED")
        assert said(ask(of, "c-red/c", "a-blue/a", protocol)).endswith("ingress=TENANT_WALL")
