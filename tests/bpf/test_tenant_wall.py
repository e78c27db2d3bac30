"""The tenant wall: an AND before NetworkPolicy, for what comes from inside the cluster."""

from __future__ import annotations

import pytest

from enforcer.datapath.flows import DropReason, ForwardReason
from enforcer.policy.tables import (
    IDENTITY_REMOTE_NODE,
    PEER_ANY,
    PEER_TENANT,
    AddressEntry,
    AddressFlag,
    CidrEntry,
    CidrFlag,
    Dir,
    EndpointFlag,
    PolicyKey,
    RangeKey,
)
from generators.reachability.verdicts import Verdict
from tests.bpf.veth import (
    GROUP,
    OTHER,
    OTHER_IDENTITY,
    OTHER_TENANT,
    OWN_TENANT,
    PEER,
    POD,
    RULE,
    TENANT,
    WALL,
    WALLED,
    WORLD,
    Veth,
    inward,
    ip,
    tcp,
)

pytestmark = pytest.mark.bpf

POD_RANGES = {
    "10.9.0.0/16": CidrEntry(1, CidrFlag.IN_CLUSTER),
    "fd09::/64": CidrEntry(2, CidrFlag.IN_CLUSTER),
}
STRANGER = {4: "10.9.0.77", 6: "fd09::77"}
REMOTE_NODE = {4: "10.8.0.1", 6: "fd08::1"}


def test_own_tenant_enters_and_another_does_not(veth: Veth, family: int) -> None:
    veth.configure(WALLED, OWN_TENANT)
    assert veth.to_pod(ip(family, PEER, POD) / tcp()).passed
    refused = veth.to_pod(ip(family, OTHER, POD) / tcp())
    assert refused.reason is DropReason.TENANT_WALL
    event = refused.events[0]
    assert (event.group, event.identity, event.tenant) == (WALL, OTHER_IDENTITY, OTHER_TENANT)


def test_no_policy_opens_the_wall(veth: Veth, family: int) -> None:
    flags = WALLED | EndpointFlag.ISOLATED_INGRESS
    veth.configure(flags, {**OWN_TENANT, **inward((0, 0), peer=PEER_ANY)})
    assert veth.to_pod(ip(family, PEER, POD) / tcp()).passed
    assert veth.to_pod(ip(family, OTHER, POD) / tcp()).reason is DropReason.TENANT_WALL


def test_the_wall_alone_opens_no_isolated_pod(veth: Veth, family: int) -> None:
    veth.configure(WALLED | EndpointFlag.ISOLATED_INGRESS, OWN_TENANT)
    assert veth.to_pod(ip(family, PEER, POD) / tcp()).reason is DropReason.POLICY_DENIED


def test_grant_lets_in_on_its_port_only(veth: Veth, family: int) -> None:
    grant = {PolicyKey(WALL, PEER_TENANT | OTHER_TENANT, 5432, 6, Dir.INGRESS): RULE}
    veth.configure(WALLED, {**OWN_TENANT, **grant})
    assert veth.to_pod(ip(family, OTHER, POD) / tcp(port=5432)).passed
    assert not veth.to_pod(ip(family, OTHER, POD) / tcp(port=5433)).passed


def test_grant_by_range(veth: Veth) -> None:
    ranges = {RangeKey(WALL, PEER_TENANT | OTHER_TENANT, 6, Dir.INGRESS, 8000, 13): RULE}
    veth.configure(WALLED | EndpointFlag.USES_RANGE, OWN_TENANT, ranges=ranges)
    assert veth.to_pod(ip(4, OTHER, POD) / tcp(port=8007)).passed
    assert not veth.to_pod(ip(4, OTHER, POD) / tcp(port=8008)).passed


def test_shared_component_enters_by_identity(veth: Veth, family: int) -> None:
    shared = {PolicyKey(WALL, OTHER_IDENTITY, 0, 0, Dir.INGRESS): RULE}
    veth.configure(WALLED, {**OWN_TENANT, **shared})
    assert veth.to_pod(ip(family, OTHER, POD) / tcp()).passed


def test_the_wall_looks_inward_only(veth: Veth, family: int) -> None:
    veth.configure(WALLED, OWN_TENANT)
    assert veth.from_pod(ip(family, POD, OTHER) / tcp()).passed


def test_outside_of_the_cluster_is_not_its_business(veth: Veth, family: int) -> None:
    veth.configure(WALLED, OWN_TENANT, cidrs=POD_RANGES)
    assert veth.to_pod(ip(family, WORLD, POD) / tcp()).reason is ForwardReason.NOT_ISOLATED


def test_pod_that_no_cache_knows_is_kept_out(veth: Veth, family: int) -> None:
    veth.configure(WALLED, OWN_TENANT, cidrs=POD_RANGES)
    assert veth.to_pod(ip(family, STRANGER, POD) / tcp()).reason is DropReason.UNKNOWN_SENDER


def test_who_sends_from_where_pods_found_no_place_is_kept_out(veth: Veth, family: int) -> None:
    crowded = {prefix: CidrEntry(e.cidr, CidrFlag.CROWDED) for prefix, e in POD_RANGES.items()}
    veth.configure(WALLED, OWN_TENANT, cidrs=crowded)
    assert veth.to_pod(ip(family, STRANGER, POD) / tcp()).reason is DropReason.UNKNOWN_SENDER
    assert veth.to_pod(ip(family, PEER, POD) / tcp()).passed


@pytest.mark.parametrize("quarantined", [True, False], ids=["quarantined", "confirmed"])
def test_quarantine_counts_as_no_tenant(veth: Veth, family: int, quarantined: bool) -> None:
    flag = AddressFlag.QUARANTINE if quarantined else AddressFlag(0)
    addresses = {PEER[family]: AddressEntry(300, TENANT, flag)}
    veth.configure(WALLED, OWN_TENANT, addresses=addresses)
    assert veth.to_pod(ip(family, PEER, POD) / tcp()).passed is not quarantined


@pytest.mark.parametrize(
    ("flags", "entries", "passes"),
    [
        pytest.param(EndpointFlag(0), {}, False, id="nothing said"),
        pytest.param(EndpointFlag.ALLOW_MASKED, {}, True, id="allowMasked"),
        pytest.param(
            EndpointFlag(0),
            {PolicyKey(WALL, IDENTITY_REMOTE_NODE, 0, 0, Dir.INGRESS): RULE},
            True,
            id="shared component on the node's network",
        ),
    ],
)
def test_node_without_a_local_socket_is_masked(
    veth: Veth, family: int, flags: EndpointFlag, entries: dict[PolicyKey, int], passes: bool
) -> None:
    addresses = {REMOTE_NODE[family]: AddressEntry(IDENTITY_REMOTE_NODE)}
    veth.configure(WALLED | flags, {**OWN_TENANT, **entries}, addresses=addresses)
    answer = veth.to_pod(ip(family, REMOTE_NODE, POD) / tcp())
    assert answer.reason is (ForwardReason.NOT_ISOLATED if passes else DropReason.UNKNOWN_SENDER)


def test_audit_reports_and_lets_pass(veth: Veth, family: int) -> None:
    veth.configure(WALLED | EndpointFlag.WALL_AUDIT, OWN_TENANT)
    answer = veth.to_pod(ip(family, OTHER, POD) / tcp())
    assert answer.passed
    assert answer.reason is DropReason.TENANT_WALL
    event = answer.events[0]
    assert (event.verdict, event.reason, event.group) == (
        Verdict.AUDIT,
        DropReason.TENANT_WALL,
        WALL,
    )
    assert veth.to_pod(ip(family, OTHER, POD) / tcp("A")).events == ()


def test_audit_does_not_soften_policies(veth: Veth, family: int) -> None:
    veth.configure(WALLED | EndpointFlag.WALL_AUDIT | EndpointFlag.ISOLATED_INGRESS, OWN_TENANT)
    answer = veth.to_pod(ip(family, OTHER, POD) / tcp())
    assert answer.reason is DropReason.POLICY_DENIED
    assert answer.events[0].group == GROUP


AUDITED = EndpointFlag.AUDIT | EndpointFlag.WALL_AUDIT


def test_namespace_under_audit_reports_what_its_policies_would_drop(
    veth: Veth, family: int
) -> None:
    both = EndpointFlag.ISOLATED_INGRESS | EndpointFlag.ISOLATED_EGRESS
    veth.configure(EndpointFlag.READY | AUDITED | both, {})
    for answer in (
        veth.to_pod(ip(family, OTHER, POD) / tcp()),
        veth.from_pod(ip(family, POD, OTHER) / tcp()),
    ):
        assert answer.passed
        event = answer.events[0]
        assert (event.verdict, event.reason, event.group, event.rule) == (
            Verdict.AUDIT,
            DropReason.POLICY_DENIED,
            GROUP,
            0,
        )


def test_of_wall_and_policies_the_wall_is_reported(veth: Veth, family: int) -> None:
    veth.configure(WALLED | AUDITED | EndpointFlag.ISOLATED_INGRESS, OWN_TENANT)
    answer = veth.to_pod(ip(family, OTHER, POD) / tcp())
    assert answer.passed
    assert (answer.events[0].reason, answer.events[0].group) == (DropReason.TENANT_WALL, WALL)


def test_audit_ends_with_the_flag_also_for_open_connections(veth: Veth, family: int) -> None:
    isolated = EndpointFlag.READY | EndpointFlag.ISOLATED_INGRESS
    veth.configure(isolated | AUDITED, {})
    assert veth.to_pod(ip(family, OTHER, POD) / tcp()).passed
    veth.generation += 1
    veth.configure(isolated, {})
    assert not veth.to_pod(ip(family, OTHER, POD) / tcp("A")).passed
