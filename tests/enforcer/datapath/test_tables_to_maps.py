"""From tables to maps: an order that never opens a pod, and too much is refused as a whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.datapath import layout
from enforcer.datapath.maps import diff, refuse_overflow
from enforcer.policy.identity import TENANT_IDS
from enforcer.policy.tables import (
    CAPACITY,
    SERVICE_BACKENDS,
    AddressEntry,
    Change,
    CidrEntry,
    CidrFlag,
    CidrKey,
    Dir,
    EndpointEntry,
    EndpointFlag,
    MapOverflow,
    PolicyKey,
    RangeKey,
    Table,
    Tables,
)
from generators.reachability.services import Backend, ServiceKey

KEY = b"\1\0\0\0"


def endpoint(group: int = 1, ip4: tuple[str, ...] = (), ip6: tuple[str, ...] = ()) -> EndpointEntry:
    return EndpointEntry(1, group, 0, 0, group, EndpointFlag.READY, ip4, ip6)


def policy(group: int) -> PolicyKey:
    return PolicyKey(group, 256, 80, 6, Dir.INGRESS)


SHOP, BANK = ServiceKey("10.96.0.1", 80, "TCP"), ServiceKey("10.96.0.2", 80, "TCP")
OLD = Tables(
    endpoints={3: endpoint(1), 4: endpoint(1)},
    addresses={"10.0.0.1": AddressEntry(256), "10.0.0.2": AddressEntry(257)},
    policy={policy(1): 11},
    ranges={RangeKey(1, 256, 6, Dir.INGRESS, 1024, 6): 12},
    cidrs={CidrKey(0, "10.0.0.0/8"): CidrEntry(1)},
    services={SHOP: (Backend("10.0.0.2", 8080),)},
)
NEW = Tables(
    endpoints={3: endpoint(2)},
    addresses={"10.0.0.1": AddressEntry(256), "10.0.0.3": AddressEntry(258)},
    policy={policy(2): 13},
    ranges={RangeKey(2, 256, 6, Dir.INGRESS, 1024, 6): 14},
    cidrs={CidrKey(0, "10.0.0.0/8"): CidrEntry(1), CidrKey(7, "10.1.0.0/16"): CidrEntry(2)},
    services={BANK: (Backend("10.0.0.3", 8080),)},
)


def test_what_a_new_group_needs_is_there_before_the_flip_and_the_old_goes_after() -> None:
    steps = [(c.table, c.value is None) for c in diff(OLD, NEW)]
    assert steps == [
        (Table.POLICY, False),
        (Table.RANGES, False),
        (Table.CIDRS, False),
        (Table.SERVICES, False),
        (Table.ADDRESSES, False),
        (Table.ENDPOINTS, False),
        (Table.ENDPOINTS, True),
        (Table.ADDRESSES, True),
        (Table.SERVICES, True),
        (Table.RANGES, True),
        (Table.POLICY, True),
    ]


def test_equal_tables_need_no_change() -> None:
    assert diff(NEW, NEW) == ()


def test_one_pod_elsewhere_is_one_write() -> None:
    more = Tables(
        endpoints=NEW.endpoints,
        addresses={**NEW.addresses, "10.0.0.9": AddressEntry(256)},
        policy=NEW.policy,
        ranges=NEW.ranges,
        cidrs=NEW.cidrs,
        services=NEW.services,
    )
    assert diff(NEW, more) == (Change(Table.ADDRESSES, "10.0.0.9", AddressEntry(256)),)


@pytest.mark.parametrize("table", list(Table))
def test_overflow_names_map_need_and_limit(table: Table) -> None:
    full = {**CAPACITY, table: 0}
    with pytest.raises(MapOverflow) as caught:
        refuse_overflow(NEW, capacity=full)
    assert (caught.value.table, caught.value.limit) == (table, 0)
    assert table.value in str(caught.value)
    assert str(caught.value.needed) in str(caught.value)


def test_old_and_new_must_fit_together_while_one_replaces_the_other() -> None:
    room_for_one = {**CAPACITY, Table.POLICY: 1}
    refuse_overflow(NEW, capacity=room_for_one)
    with pytest.raises(MapOverflow):
        refuse_overflow(NEW, OLD, capacity=room_for_one)


@pytest.mark.parametrize(
    ("prefix", "bits"),
    [
        ("0.0.0.0/0", 32 + 96),
        ("10.0.0.0/8", 32 + 104),
        ("10.0.0.1/32", 32 + 128),
        ("::/0", 32),
        ("fd00::/8", 40),
        ("fd00::1/128", 32 + 128),
    ],
)
def test_prefixes_keep_their_trie_family_and_length(prefix: str, bits: int) -> None:
    for tenant in (0, TENANT_IDS):
        key = layout.pack_cidr(CidrKey(tenant, prefix))
        assert int.from_bytes(key[:4], "little") == bits
        assert layout.unpack_cidr(key) == CidrKey(tenant, prefix)


def test_second_address_of_a_family_is_refused() -> None:
    with pytest.raises(ValueError, match="at most one IPv4"):
        layout.pack_endpoint(KEY, endpoint(ip4=("10.0.0.1", "10.0.0.2")))


def test_ipv4_in_disguise_is_refused() -> None:
    with pytest.raises(ValueError, match="disguise"):
        layout.pack_address("::ffff:10.0.0.1")


def test_rule_that_would_read_as_a_miss_is_refused() -> None:
    with pytest.raises(ValueError, match="begin at 1"):
        layout.pack_rule(KEY, 0)


numbers = st.integers(0, 2**32 - 1)
ports = st.integers(0, 2**16 - 1)
protocols = st.integers(0, 255)
directions = st.sampled_from(Dir)


@given(st.builds(PolicyKey, numbers, numbers, ports, protocols, directions))
def test_policy_keys_survive_packing(key: PolicyKey) -> None:
    assert layout.unpack_policy(layout.pack_policy(key)) == key


@given(st.builds(RangeKey, numbers, numbers, protocols, directions, ports, st.integers(0, 16)))
def test_range_keys_survive_packing(key: RangeKey) -> None:
    assert layout.unpack_range(layout.pack_range(key)) == key


@given(st.ip_addresses().map(str))
def test_addresses_survive_packing(address: str) -> None:
    if address.startswith("::ffff:"):
        return
    assert layout.unpack_address(layout.pack_address(address)) == address


def test_entries_survive_packing() -> None:
    for flags in CidrFlag(0), CidrFlag.IN_CLUSTER:
        entry = CidrEntry(7, flags)
        assert layout.unpack_cidr_value(layout.pack_cidr_value(entry)) == entry
    whole = endpoint(ip4=("10.0.0.1",), ip6=("fd00::1",))
    assert layout.unpack_endpoint(layout.pack_endpoint(KEY, whole)) == whole


@pytest.mark.parametrize("count", [0, 1, SERVICE_BACKENDS])
def test_services_come_back_as_they_were_written(count: int) -> None:
    key = ServiceKey("fd96::1", 443, "SCTP")
    backends = tuple(Backend(f"10.0.0.{i}", 8000 + i) for i in range(1, count + 1))
    assert layout.unpack_service(layout.pack_service(key)) == key
    assert layout.unpack_backends(layout.pack_backends(KEY, backends)) == backends


def test_more_backends_than_fit_are_never_cut_short() -> None:
    with pytest.raises(ValueError, match="at most 16 backends, not 17"):
        layout.pack_backends(KEY, (Backend("10.0.0.1", 80),) * (SERVICE_BACKENDS + 1))
