"""NetworkPolicy in the kernel: which entry lets which packet through."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from enforcer.datapath import kernel, layout
from enforcer.datapath.flows import DropReason, ForwardReason
from enforcer.datapath.proof import proven
from enforcer.policy.tables import (
    PEER_ANY,
    PEER_CIDR,
    PEER_TENANT,
    AddressEntry,
    AddressFlag,
    CidrEntry,
    Dir,
    EndpointFlag,
    PolicyKey,
    RangeKey,
    Table,
)
from generators.reachability.verdicts import Verdict
from tests.bpf.veth import (
    ADDRESSES,
    GROUP,
    ISOLATED,
    ISOLATED_BOTH,
    LOOPBACK,
    NODE,
    OTHER,
    OTHER_IDENTITY,
    OWN_TENANT,
    PEER,
    PEER_IDENTITY,
    POD,
    RULE,
    TENANT,
    WORLD,
    Veth,
    echo,
    inward,
    ip,
    outward,
    tcp,
    udp,
)

pytestmark = pytest.mark.bpf
CIDR = 5


@pytest.mark.parametrize(
    ("entry", "passes"),
    [
        pytest.param((80, 6), True, id="port and protocol"),
        pytest.param((0, 6), True, id="every port of the protocol"),
        pytest.param((0, 0), True, id="everything"),
        pytest.param((81, 6), False, id="another port"),
        pytest.param((80, 17), False, id="the port of another protocol"),
        pytest.param((0, 17), False, id="another protocol"),
        pytest.param((80, 132), False, id="SCTP never opens TCP"),
    ],
)
def test_ports(veth: Veth, family: int, entry: tuple[int, int], passes: bool) -> None:
    veth.configure(ISOLATED_BOTH, {**inward(entry), **outward(entry)})
    for answer in (
        veth.to_pod(ip(family, PEER, POD) / tcp()),
        veth.from_pod(ip(family, POD, PEER) / tcp()),
    ):
        expected = ForwardReason.POLICY_ALLOWED if passes else DropReason.POLICY_DENIED
        assert answer.reason is expected
        assert answer.rule == (RULE if passes else 0)
        assert answer.events[0].verdict is (Verdict.FORWARDED if passes else Verdict.DROPPED)


def test_an_entry_with_a_flag_lets_nobody_in_and_reads_as_no_rule(veth: Veth, pins: Path) -> None:
    veth.configure(ISOLATED, inward((80, 6)))
    assert veth.to_pod(ip(4, PEER, POD) / tcp()).passed
    ((key, rule),) = inward((80, 6)).items()
    packed = layout.pack_policy(key)
    flagged = proven(packed, bytes(layout.RuleValue(rule=rule, flags=1)))
    with kernel.open_pin(pins / Table.POLICY.value) as entries:
        kernel.map_update(entries.fd, packed, flagged)
    assert veth.maps.read().policy == {key: 0}
    another = ip(4, PEER, POD) / tcp(client_port=40001)
    assert veth.to_pod(another).reason is DropReason.POLICY_DENIED


@pytest.mark.parametrize(
    ("peer", "source", "passes"),
    [
        pytest.param(PEER_IDENTITY, PEER, True, id="identity"),
        pytest.param(PEER_IDENTITY, OTHER, False, id="another identity"),
        pytest.param(PEER_TENANT | TENANT, PEER, True, id="tenant"),
        pytest.param(PEER_TENANT | TENANT, OTHER, False, id="another tenant"),
        pytest.param(PEER_ANY, OTHER, True, id="any pod"),
        pytest.param(PEER_ANY, WORLD, True, id="anywhere"),
        pytest.param(PEER_IDENTITY, WORLD, False, id="an unknown address"),
        pytest.param(PEER_CIDR | CIDR, WORLD, True, id="CIDR outside"),
        pytest.param(PEER_CIDR | CIDR, OTHER, False, id="CIDR that does not hold the pod"),
    ],
)
def test_peers(veth: Veth, family: int, peer: int, source: dict[int, str], passes: bool) -> None:
    cidrs = {"192.0.2.0/24": CidrEntry(CIDR), "2001:db8::/32": CidrEntry(CIDR)}
    flags = ISOLATED | EndpointFlag.USES_CIDR
    veth.configure(flags, inward((80, 6), peer=peer), cidrs=cidrs)
    assert veth.to_pod(ip(family, source, POD) / tcp()).passed is passes


def test_cidr_entries_count_only_for_endpoints_that_use_them(veth: Veth) -> None:
    """The wall looks blocks up too, but for pod ranges only."""
    cidrs = {"10.9.0.0/16": CidrEntry(CIDR)}
    flags = ISOLATED | EndpointFlag.WALL
    entries = {**OWN_TENANT, **inward((80, 6), peer=PEER_CIDR | CIDR)}
    veth.configure(flags, entries, cidrs=cidrs)
    assert veth.to_pod(ip(4, PEER, POD) / tcp()).reason is DropReason.POLICY_DENIED
    veth.configure(flags | EndpointFlag.USES_CIDR, entries, cidrs=cidrs)
    assert veth.to_pod(ip(4, PEER, POD) / tcp()).passed


def test_cidr_matches_pods_too(veth: Veth, family: int) -> None:
    cidrs = {"10.9.0.2/32": CidrEntry(CIDR), "fd09::2/128": CidrEntry(CIDR)}
    flags = ISOLATED | EndpointFlag.USES_CIDR
    veth.configure(flags, inward((80, 6), peer=PEER_CIDR | CIDR), cidrs=cidrs)
    assert veth.to_pod(ip(family, PEER, POD) / tcp()).passed
    assert not veth.to_pod(ip(family, OTHER, POD) / tcp()).passed


def test_longest_prefix_speaks_for_an_address(veth: Veth) -> None:
    cidrs = {"192.0.2.0/24": CidrEntry(CIDR), "192.0.2.9/32": CidrEntry(CIDR + 1)}
    flags = ISOLATED | EndpointFlag.USES_CIDR
    veth.configure(flags, inward((80, 6), peer=PEER_CIDR | CIDR), cidrs=cidrs)
    assert veth.to_pod(ip(4, {4: "192.0.2.8"}, POD) / tcp()).passed
    assert not veth.to_pod(ip(4, WORLD, POD) / tcp()).passed


@pytest.mark.parametrize(
    ("prefix", "open_family"),
    [pytest.param("0.0.0.0/0", 4, id="all IPv4"), pytest.param("::/0", 6, id="all IPv6")],
)
def test_block_matches_its_own_family_only(
    veth: Veth, family: int, prefix: str, open_family: int
) -> None:
    flags = ISOLATED | EndpointFlag.USES_CIDR
    veth.configure(flags, inward((80, 6), peer=PEER_CIDR | CIDR), cidrs={prefix: CidrEntry(CIDR)})
    answer = veth.to_pod(ip(family, WORLD, POD) / tcp())
    assert answer.passed is (family == open_family)


@pytest.mark.parametrize(
    ("port", "passes"),
    [(1023, False), (1024, True), (1500, True), (2047, True), (2048, False)],
)
def test_range_is_its_ports_and_no_more(veth: Veth, family: int, port: int, passes: bool) -> None:
    ranges = {RangeKey(GROUP, PEER_IDENTITY, 6, Dir.INGRESS, 1024, 6): RULE}
    veth.configure(ISOLATED | EndpointFlag.USES_RANGE, ranges=ranges)
    assert veth.to_pod(ip(family, PEER, POD) / tcp(port=port)).passed is passes
    assert not veth.to_pod(ip(family, PEER, POD) / udp(port=port)).passed
    assert not veth.to_pod(ip(family, OTHER, POD) / tcp(port=port)).passed


def test_first_hit_in_the_documented_order_names_the_rule(veth: Veth) -> None:
    steps = [
        PolicyKey(GROUP, PEER_IDENTITY, 80, 6, Dir.INGRESS),
        RangeKey(GROUP, PEER_IDENTITY, 6, Dir.INGRESS, 64, 10),
        PolicyKey(GROUP, PEER_IDENTITY, 0, 6, Dir.INGRESS),
        PolicyKey(GROUP, PEER_IDENTITY, 0, 0, Dir.INGRESS),
        PolicyKey(GROUP, PEER_TENANT | TENANT, 80, 6, Dir.INGRESS),
        PolicyKey(GROUP, PEER_CIDR | CIDR, 80, 6, Dir.INGRESS),
        PolicyKey(GROUP, PEER_ANY, 80, 6, Dir.INGRESS),
    ]
    flags = ISOLATED | EndpointFlag.USES_RANGE | EndpointFlag.USES_CIDR
    for first in range(len(steps)):
        left = list(enumerate(steps))[first:]
        veth.configure(
            flags,
            {k: RULE + i for i, k in left if isinstance(k, PolicyKey)},
            ranges={k: RULE + i for i, k in left if isinstance(k, RangeKey)},
            cidrs={"10.9.0.0/16": CidrEntry(CIDR)},
        )
        port = 41000 + first  # a new connection each time
        answer = veth.to_pod(ip(4, PEER, POD) / tcp(client_port=port))
        assert answer.rule == RULE + first


def test_isolation_is_per_direction(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED)
    assert not veth.to_pod(ip(family, PEER, POD) / tcp()).passed
    assert veth.from_pod(ip(family, POD, PEER) / tcp(port=81)).passed


def test_pod_reaches_itself_whatever_isolates_it(veth: Veth, family: int) -> None:
    veth.configure(ISOLATED_BOTH)
    for answer in (
        veth.to_pod(ip(family, POD, POD) / tcp()),
        veth.from_pod(ip(family, POD, POD) / tcp()),
    ):
        assert answer.reason is ForwardReason.SELF


def test_node_reaches_the_pod_and_the_pod_its_node(veth: Veth, family: int) -> None:
    """In test runs every packet has a socket; without one is tested with real packets."""
    veth.configure(ISOLATED_BOTH)
    assert veth.to_pod(ip(family, NODE, POD) / tcp()).reason is ForwardReason.HOST
    bridged = veth.to_pod(ip(family, NODE, POD) / tcp(), came_by=LOOPBACK)
    assert bridged.reason is DropReason.POLICY_DENIED, "a socket that is not the node's"
    assert veth.from_pod(ip(family, POD, NODE) / tcp(port=10250)).reason is ForwardReason.HOST


def test_quarantined_address_speaks_for_no_tenant(veth: Veth, family: int) -> None:
    quarantined = {
        a: replace(e, flags=AddressFlag.QUARANTINE) for a, e in ADDRESSES.items() if e.tenant
    }
    veth.configure(ISOLATED, inward((80, 6), peer=PEER_TENANT | TENANT), addresses=quarantined)
    assert not veth.to_pod(ip(family, PEER, POD) / tcp()).passed
    veth.configure(ISOLATED, inward((80, 6)), addresses=quarantined)
    assert veth.to_pod(ip(family, PEER, POD) / tcp()).passed


@pytest.mark.parametrize(
    ("entry", "passes"),
    [
        pytest.param((0, 0), True, id="rule without ports"),
        pytest.param((0, 6), False, id="all of TCP"),
        pytest.param((8, 6), False, id="a port like the ICMP type"),
    ],
)
def test_ping_needs_a_rule_without_ports(
    veth: Veth, family: int, entry: tuple[int, int], passes: bool
) -> None:
    veth.configure(ISOLATED, inward(entry))
    assert veth.to_pod(ip(family, PEER, POD) / echo(family)).passed is passes


def test_address_without_entry_is_nobody(veth: Veth) -> None:
    addresses = {PEER[4]: AddressEntry(OTHER_IDENTITY)}
    veth.configure(ISOLATED, inward((80, 6)), addresses=addresses)
    assert not veth.to_pod(ip(4, PEER, POD) / tcp()).passed
