"""What the maps of one node should hold, as values.

compiler/compile.py makes them, datapath/maps.py writes them. Byte layouts are in bpf/lib/layout.h
and mirrored in datapath/layout.py; here are only meanings.

Probe order of a group, the same in the kernel and in interpret.py; the first hit decides: it
allows, or with RULE_DENY denies, and names the rule; with RULE_REDIRECT it names what judges
requests. For each peer of
    identity, PEER_TENANT | tenant, cidr_peer (if USES_CIDR), place_peer (if USES_PLACES), PEER_ANY
the ports
    (port, proto), range of the proto (if USES_RANGE), (PORT_ANY, proto), (PORT_ANY, PROTO_ANY).
compiler/compile.py folds broader entries into narrower ones, so that this order meets the rule that
the evaluator names: the first in policy order, rules that deny before all others, and those with
HTTP rules behind them, all that match joined to one rule set. Groups of the
wall hold identities and tenants only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, IntFlag, StrEnum
from typing import NamedTuple

from generators.errors import Refused
from generators.http import RuleSet
from generators.objects import Rule
from generators.reachability.services import Backend, ServiceKey

PEER_ANY = 0
PEER_TENANT = 1 << 30
"""`PEER_TENANT | tenant id`: every pod of the tenant."""
PEER_CIDR = 2 << 30
"""`PEER_CIDR | cidr id`: every address whose longest matching prefix has this id."""

PEER_PLACE = 128
CIDR_PLACE_SHIFT = 27
CIDRS = 1 << CIDR_PLACE_SHIFT
"""Cidr ids are below: they share a peer with PEER_CIDR and a place."""

RULE_DENY = 1 << 31
"""Of the number of a rule in an entry: what it matches is dropped."""
RULE_REDIRECT = 1 << 30
"""Of the same: what it matches goes to the proxy; the number is that of a rule set."""
RULE_NUMBER = RULE_REDIRECT - 1
"""What of an entry's rule is its number; the rest are flags."""


def rule_flags(rule: Rule) -> int:
    """What an entry carries beside the number of its rule."""
    return RULE_DENY if rule.deny else 0


ICMP_PORT = 256
"""`ICMP_PORT | type` stands in the place of a port for a message of ICMP."""

IDENTITY_UNKNOWN = 0
IDENTITY_HOST = 1
"""An address of this node: its own processes (a local socket proves it) or masked traffic."""
IDENTITY_REMOTE_NODE = 6
FIRST_POD_IDENTITY = 256

SERVICE_BACKENDS = 16
"""Kinds of backends of one Service port that fit into its map entry."""

PORT_ANY = 0
PROTO_ANY = 0


def place_peer(identity: int) -> int:
    """Whoever is no pod, by identity: the node, another one, or who is outside."""
    return PEER_PLACE | identity


def cidr_peer(cidr: int, place: int | None = None) -> int:
    """A block; `place`: as far as its addresses have this identity and are no pods."""
    return PEER_CIDR | (0 if place is None else (place + 1) << CIDR_PLACE_SHIFT) | cidr


def cidr_of(peer: int) -> int:
    """The cidr id in a peer that is a block."""
    return peer & (CIDRS - 1)


def place_of(peer: int) -> int | None:
    """The identity of those that a block's peer is about; None: whoever it is."""
    place = (peer & ~PEER_CIDR) >> CIDR_PLACE_SHIFT
    return place - 1 if place else None


class Dir(IntEnum):
    """Direction in keys, events and statistics, seen from the endpoint."""

    INGRESS = 0
    EGRESS = 1


class EndpointFlag(IntFlag):
    """What the programs have to do for an endpoint."""

    READY = 1  # has policy state; without it the endpoint is closed (DropReason 203)
    WALL = 2  # ingress passes the tenant wall first (group `wall`)
    WALL_AUDIT = 4  # a wall denial is reported with verdict AUDIT and passes
    ISOLATED_INGRESS = 8
    ISOLATED_EGRESS = 16
    USES_CIDR = 32  # the policy group has entries by CIDR
    USES_RANGE = 64  # the policy group or the wall has entries with a port range
    ALLOW_MASKED = 128  # the wall lets masked sources in
    GRACE = 256  # existed before us: mid-stream connections are adopted for a while
    KEEP_INGRESS = 512  # open connections stay when the policy of the direction changes
    KEEP_EGRESS = 1024
    REACH = 8192  # where walls of others keep its packets out, they open no connection (`reach`)
    QUARANTINE = 16384  # of a namespace with a tenant label that no record confirms
    AUDIT = 2048  # a denial by NetworkPolicies is reported with verdict AUDIT and passes
    AUDIT_INGRESS = 32768  # the same, of what comes in only
    ENCAPSULATES = 4096  # may send encapsulated packets towards nodes
    SHORTCUT = 65536  # what it sends to a pod of this node may reach it past `to_pod`
    USES_PLACES = 131072  # the policy group has entries for nodes, or for who is outside
    USES_DENY = 262144  # the policy group has rules that deny


class AddressFlag(IntFlag):
    """What else is known of an address."""

    QUARANTINE = 1  # of a namespace with a tenant label that no record confirms
    AUDIT = 2  # the wall around it only reports
    MOVING = 4  # for a moment it is two: a tenant's pod before, after or both
    SERVICE = (
        8  # nobody's but a Service's, of which a port found no room: what is not known is closed
    )


class CidrFlag(IntFlag):
    """What else is known of a block."""

    IN_CLUSTER = 1  # inside the pod ranges: without an identity it is an unknown sender
    CROWDED = 2  # pods in it found no place: the same for who sends, not for who is called


@dataclass(frozen=True, slots=True)
class EndpointEntry:
    """One pod under enforcement on this node, keyed by the ifindex of its host-side veth."""

    endpoint: int
    group: int  # policy group; 0 = none (not isolated)
    wall: int  # policy group of the tenant wall; 0 = none
    tenant: int  # 0 = none
    generation: int  # connections stamped with another one are judged again; nobody else's, ever
    flags: EndpointFlag
    ip4: tuple[str, ...] = ()
    ip6: tuple[str, ...] = ()
    mac: str = ""  # of the pod; empty = not known
    reach: int = 0  # policy group of the walls that let it in, beside its own tenant's; 0 = none

    @property
    def groups(self) -> tuple[int, int, int]:
        """All groups that it is judged by; 0 among them is none."""
        return self.group, self.wall, self.reach

    def is_judged_as(self, other: EndpointEntry) -> bool:
        """Whether nothing but the generation differs."""
        return self == replace(other, generation=self.generation)


@dataclass(frozen=True, slots=True)
class AddressEntry:
    """The owner of an address."""

    identity: int
    tenant: int = 0
    flags: AddressFlag = AddressFlag(0)
    interface: int = 0  # of a pod of this node while endpoints have SHORTCUT; else 0


@dataclass(frozen=True, slots=True, order=True)
class PolicyKey:
    """One way through a policy group."""

    group: int
    peer: int
    port: int  # PORT_ANY = every port
    protocol: int  # IANA number, PROTO_ANY = every protocol
    direction: Dir


@dataclass(frozen=True, slots=True, order=True)
class RangeKey:
    """A port prefix of a range: `length` leading bits of `port` count. `peer` as in PolicyKey."""

    group: int
    peer: int
    protocol: int
    direction: Dir
    port: int
    length: int


class CidrKey(NamedTuple):
    """A canonical prefix in the trie of a tenant's endpoints; endpoints without a tenant share trie
    0."""

    tenant: int
    prefix: str

    @property
    def length(self) -> int:
        """Bits of the prefix that count."""
        return int(self.prefix.rpartition("/")[2])


@dataclass(frozen=True, slots=True)
class CidrEntry:
    """A block of addresses; the longest one that holds an address speaks for it."""

    cidr: int
    flags: CidrFlag = CidrFlag(0)


@dataclass(frozen=True, slots=True)
class Tables:
    """All that the maps of a node should hold, and the names behind its numbers."""

    endpoints: Mapping[int, EndpointEntry] = field(default_factory=dict)
    """By ifindex of the host-side veth."""
    addresses: Mapping[str, AddressEntry] = field(default_factory=dict)
    """By canonical address."""
    policy: Mapping[PolicyKey, int] = field(default_factory=dict)
    """Entry -> rule id, with RULE_DENY where the rule denies, RULE_REDIRECT where it is a set."""
    ranges: Mapping[RangeKey, int] = field(default_factory=dict)
    """Port prefix -> the same."""
    cidrs: Mapping[CidrKey, CidrEntry] = field(default_factory=dict)
    """By trie and prefix."""
    services: Mapping[ServiceKey, tuple[Backend, ...]] = field(default_factory=dict)
    """What isolated pods call -> the first backend, in order, of each kind that policies can tell
    apart; all of them must be allowed. Without backends: more kinds than SERVICE_BACKENDS, closed.
    """
    rules: Mapping[int, str] = field(default_factory=dict)
    """Rule id -> name as in verdicts.Judgement.rule; of a rule set its first rule's."""
    rule_sets: Mapping[int, RuleSet] = field(default_factory=dict)
    """Rule id -> what judges requests."""
    isolating: Mapping[tuple[int, Dir], tuple[str, ...]] = field(default_factory=dict)
    """Policy group and direction -> the NetworkPolicies that isolate, sorted."""
    walls: Mapping[int, str] = field(default_factory=dict)
    """Wall group -> the rule that a denial names, `tenant/NAME#wall`."""
    tenants: Mapping[int, str] = field(default_factory=dict)
    """Tenant id -> name."""


class Table(StrEnum):
    """The maps that user space fills; the value is the name of the pin."""

    POLICY = "pol_map"
    RANGES = "rng_map"
    CIDRS = "cidr_map"
    SERVICES = "svc_map"
    ADDRESSES = "addr_map"
    ENDPOINTS = "ep_map"


CAPACITY: Mapping[Table, int] = {
    Table.POLICY: 131_072,
    Table.RANGES: 32_768,
    Table.CIDRS: 131_072,
    Table.SERVICES: 32_768,
    Table.ADDRESSES: 131_072,
    Table.ENDPOINTS: 1_024,
}
"""As in bpf/lib/maps.h; a test compares them with the loaded maps."""


Key = int | str | CidrKey | PolicyKey | RangeKey | ServiceKey


Value = int | EndpointEntry | AddressEntry | CidrEntry | tuple[Backend, ...]


@dataclass(frozen=True, slots=True)
class MapWrite:
    """One write to a map; `value` None deletes the key."""

    table: Table
    key: Key
    value: Value | None


class MapOverflow(Refused):
    """A map cannot hold what is wanted; nothing was written, the last good state stays in force."""

    def __init__(self, table: Table, needed: int, limit: int) -> None:
        self.table = table
        self.needed = needed
        self.limit = limit
        super().__init__(
            f"map {table.value} ({table.name.lower()}) would need {needed} entries and "
            f"holds {limit}; no policy is to blame: start the agent with "
            f"--map-size {table.value}=NUMBER"
        )


def contents(tables: Tables) -> dict[Table, dict[Key, Value]]:
    """Every map's entries."""
    return {
        Table.POLICY: dict[Key, Value](tables.policy.items()),
        Table.RANGES: dict[Key, Value](tables.ranges.items()),
        Table.CIDRS: dict[Key, Value](tables.cidrs.items()),
        Table.SERVICES: dict[Key, Value](tables.services.items()),
        Table.ADDRESSES: dict[Key, Value](tables.addresses.items()),
        Table.ENDPOINTS: dict[Key, Value](tables.endpoints.items()),
    }


def sizes(tables: Tables) -> Mapping[Table, int]:
    """How many entries each map needs."""
    return {table: len(entries) for table, entries in contents(tables).items()}
