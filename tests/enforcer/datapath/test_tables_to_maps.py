"""From tables to maps: an order that never opens a pod, and too much is refused as a whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.datapath import layout
from enforcer.policy.identity import TENANT_IDS
from enforcer.policy.tables import (
    CAPACITY,
    SERVICE_BACKENDS,
    AddressEntry,
    CidrEntry,
    CidrFlag,
    CidrKey,
    Dir,
    EndpointEntry,
    EndpointFlag,
    Key,
    MapOverflow,
    MapWrite,
    PolicyKey,
    RangeKey,
    Table,
    Tables,
    Value,
    contents,
    sizes,
)
from enforcer.writes.capacity import refuse_overflow
from enforcer.writes.plan import replacing
from generators.reachability.services import Backend, ServiceKey

KEY = b"\1\0\0\0"


def endpoint(group: int = 1, ip4: tuple[str, ...] = (), ip6: tuple[str, ...] = ()) -> EndpointEntry:
    return EndpointEntry(1, group, 0, 0, group, EndpointFlag.READY, ip4, ip6)


def policy(group: int) -> PolicyKey:
    return PolicyKey(group, 256, 80, 6, Dir.INGRESS)


def ranged(group: int) -> RangeKey:
    return RangeKey(group, 256, 6, Dir.INGRESS, 1024, 6)


BLOCK = CidrKey(7, "10.1.0.0/16")
SHOP, BANK = ServiceKey("10.96.0.1", 80, "TCP"), ServiceKey("10.96.0.2", 80, "TCP")
OLD = Tables(
    endpoints={3: endpoint(1), 4: endpoint(1)},
    addresses={"10.0.0.1": AddressEntry(256), "10.0.0.2": AddressEntry(257)},
    policy={policy(1): 11},
    ranges={ranged(1): 12},
    cidrs={CidrKey(0, "10.0.0.0/8"): CidrEntry(1)},
    services={SHOP: (Backend("10.0.0.2", 8080),)},
)
NEW = Tables(
    endpoints={3: endpoint(2)},
    addresses={"10.0.0.1": AddressEntry(256), "10.0.0.3": AddressEntry(258)},
    policy={policy(2): 13},
    ranges={ranged(2): 14},
    cidrs={CidrKey(0, "10.0.0.0/8"): CidrEntry(1), BLOCK: CidrEntry(2)},
    services={BANK: (Backend("10.0.0.3", 8080),)},
)


def test_what_a_new_group_needs_is_there_before_the_flip_and_the_old_goes_after() -> None:
    steps = replacing(OLD, NEW)
    flip = steps.index(MapWrite(Table.ENDPOINTS, 3, NEW.endpoints[3]))
    before = [(Table.POLICY, policy(2)), (Table.RANGES, ranged(2)), (Table.CIDRS, BLOCK)]
    after = [(Table.POLICY, policy(1)), (Table.RANGES, ranged(1)), (Table.SERVICES, SHOP)]
    after += [(Table.ADDRESSES, "10.0.0.2"), (Table.ENDPOINTS, 4)]
    assert {(c.table, c.key) for c in steps[:flip] if c.value is not None} >= {*before}
    assert {(c.table, c.key) for c in steps[flip:] if c.value is None} >= {*after}
    assert not any(c.value is None for c in steps[:flip])


def test_equal_tables_need_no_change() -> None:
    assert replacing(NEW, NEW) == ()


def test_one_pod_elsewhere_is_one_write() -> None:
    more = Tables(
        endpoints=NEW.endpoints,
        addresses={**NEW.addresses, "10.0.0.9": AddressEntry(256)},
        policy=NEW.policy,
        ranges=NEW.ranges,
        cidrs=NEW.cidrs,
        services=NEW.services,
    )
    assert replacing(NEW, more) == (MapWrite(Table.ADDRESSES, "10.0.0.9", AddressEntry(256)),)


@pytest.mark.parametrize("table", list(Table))
def test_overflow_names_map_need_and_limit(table: Table) -> None:
    full = {**CAPACITY, table: 0}
    with pytest.raises(MapOverflow) as caught:
        refuse_overflow(sizes(NEW), full)
    assert (caught.value.table, caught.value.limit) == (table, 0)
    assert table.value in str(caught.value)
    assert str(caught.value.needed) in str(caught.value)


def test_where_old_and_new_do_not_fit_together_the_old_goes_first() -> None:
    room_for_one = {**CAPACITY, Table.POLICY: 1}
    old, new = (replace(tables, endpoints={}) for tables in (OLD, NEW))
    steps = [c for c in replacing(old, new, room_for_one) if c.table is Table.POLICY]
    assert steps == [MapWrite(Table.POLICY, policy(1), None), MapWrite(Table.POLICY, policy(2), 13)]
    with pytest.raises(MapOverflow):
        replacing(old, new, {**CAPACITY, Table.POLICY: 0})


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
    with pytest.raises(ValueError, match="IPv4-mapped"):
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


groups = st.integers(1, 3)
small_ports = st.sampled_from([0, 80, 443])
ways = st.builds(
    PolicyKey, groups, st.sampled_from([256, 257]), small_ports, st.just(6), directions
)
slices = st.builds(
    RangeKey,
    groups,
    st.sampled_from([256, 257]),
    st.just(6),
    directions,
    st.just(1024),
    st.integers(6, 8),
)
blocks = st.sampled_from([BLOCK, CidrKey(0, "10.0.0.0/8"), CidrKey(0, "10.1.0.0/16")])
addresses = st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"])
tables_of_any_kind = st.builds(
    Tables,
    endpoints=st.dictionaries(st.integers(3, 5), st.builds(endpoint, groups), max_size=3),
    addresses=st.dictionaries(addresses, st.builds(AddressEntry, st.integers(256, 259))),
    policy=st.dictionaries(ways, st.integers(1, 4), max_size=8),
    ranges=st.dictionaries(slices, st.integers(1, 4), max_size=4),
    cidrs=st.dictionaries(blocks, st.builds(CidrEntry, st.integers(1, 3))),
    services=st.dictionaries(
        st.sampled_from([SHOP, BANK]), st.just((Backend("10.0.0.2", 8080),)), max_size=2
    ),
)


@given(tables_of_any_kind, tables_of_any_kind)
def test_the_writes_turn_any_tables_into_any_others(old: Tables, new: Tables) -> None:
    held = contents(old)
    for write in replacing(old, new):
        _put(held[write.table], write)
    assert held == contents(new)


@given(tables_of_any_kind, tables_of_any_kind)
def test_without_endpoints_they_need_no_more_room_than_the_larger(old: Tables, new: Tables) -> None:
    """As a matrix on the kernel asks: one endpoint at a time is put in afterwards."""
    old, new = replace(old, endpoints={}), replace(new, endpoints={})
    largest = {table: max(sizes(old)[table], sizes(new)[table]) for table in Table}
    held = contents(old)
    for write in replacing(old, new, largest):
        _put(held[write.table], write)
        assert len(held[write.table]) <= largest[write.table]
    assert held == contents(new)


def _put(held: dict[Key, Value], write: MapWrite) -> None:
    if write.value is None:
        del held[write.key]
    else:
        held[write.key] = write.value
