"""One pod's interface without a network: frames go through the real programs by BPF_PROG_TEST_RUN.

Packets are written from the pod's point of view, `pod` against `peer`, in both families. The reason
of each verdict is read from the exact counters, so that packets without an event have one too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPv6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from enforcer.datapath import kernel
from enforcer.datapath.flows import DropReason, FlowReader, FlowRecord, ForwardReason, reason_of
from enforcer.datapath.maps import Maps, Statistic
from enforcer.policy.tables import (
    PEER_TENANT,
    AddressEntry,
    CidrEntry,
    CidrKey,
    Dir,
    EndpointEntry,
    EndpointFlag,
    PolicyKey,
    RangeKey,
    Tables,
)
from enforcer.writes.plan import replacing
from generators.reachability.services import Backend, ServiceKey

LOOPBACK = 1
"""A test run wants an interface that exists; nothing is attached to it."""
MAC, OTHER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
"""The pod's, and that of whoever is on the link."""
LOCAL = "fe80::ff:fe00:1"
"""The link-local address that follows from the pod's MAC."""

POD = {4: "10.9.0.1", 6: "fd09::1"}
PEER = {4: "10.9.0.2", 6: "fd09::2"}
OTHER = {4: "10.9.0.3", 6: "fd09::3"}
WORLD = {4: "192.0.2.9", 6: "2001:db8::9"}
NODE = {4: "10.9.255.1", 6: "fd09::ff"}

GROUP, WALL, REACH = 20, 30, 40
TENANT, OTHER_TENANT = 7, 8
PEER_IDENTITY, OTHER_IDENTITY = 256, 257
RULE = 1000

READY = EndpointFlag.READY
ISOLATED = READY | EndpointFlag.ISOLATED_INGRESS
ISOLATED_BOTH = ISOLATED | EndpointFlag.ISOLATED_EGRESS
WALLED = READY | EndpointFlag.WALL

PASS, SHOT = -1, 2

_endpoints = count(1)


def ip(family: int, source: Mapping[int, str], destination: Mapping[int, str]) -> Packet:
    """An IP header from one of the constants above to another."""
    header = IP if family == 4 else IPv6
    return header(src=source[family], dst=destination[family])


def tcp(flags: str = "S", port: int = 80, client_port: int = 40000) -> Packet:
    """A segment of a client to a server on `port`."""
    return TCP(sport=client_port, dport=port, flags=flags)


def tcp_back(flags: str = "SA", port: int = 80, client_port: int = 40000) -> Packet:
    """A segment of the server on `port` to its client."""
    return TCP(sport=port, dport=client_port, flags=flags)


def udp(port: int = 53, client_port: int = 40000) -> Packet:
    """A datagram of a client."""
    return UDP(sport=client_port, dport=port) / b"question"


def echo(family: int, identifier: int = 77) -> Packet:
    """An ICMP echo request."""
    if family == 4:
        return ICMP(type=8, id=identifier)
    return ICMPv6EchoRequest(id=identifier)


def echo_reply(family: int, identifier: int = 77) -> Packet:
    """An ICMP echo reply."""
    if family == 4:
        return ICMP(type=0, id=identifier)
    return ICMPv6EchoReply(id=identifier)


def ethernet(payload: Packet) -> bytes:
    """The frame of a packet; the EtherType follows from it."""
    return bytes(Ether(src=MAC, dst=OTHER_MAC) / payload)


def inward(*ports: tuple[int, int], peer: int = PEER_IDENTITY) -> dict[PolicyKey, int]:
    """Ingress entries of the policy group for (port, protocol) pairs, rule ids from RULE on."""
    return {
        PolicyKey(GROUP, peer, port, protocol, Dir.INGRESS): RULE + i
        for i, (port, protocol) in enumerate(ports)
    }


def outward(*ports: tuple[int, int], peer: int = PEER_IDENTITY) -> dict[PolicyKey, int]:
    """As `inward`, for egress."""
    return {
        replace(key, direction=Dir.EGRESS): rule for key, rule in inward(*ports, peer=peer).items()
    }


OWN_TENANT = {PolicyKey(WALL, PEER_TENANT | TENANT, 0, 0, Dir.INGRESS): RULE + 500}
"""The wall that lets the pod's own tenant in."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one frame."""

    verdict: int
    reason: ForwardReason | DropReason
    rule: int
    events: tuple[FlowRecord, ...]

    @property
    def passed(self) -> bool:
        """The program had nothing against it."""
        return self.verdict == PASS


class Veth:
    """The pod's host-side veth, with the maps behind it."""

    def __init__(self, pins: Path, maps: Maps, reader: FlowReader) -> None:
        self.pins = pins
        self.maps = maps
        self.reader = reader
        self.endpoint = next(_endpoints)
        self.generation = 1
        self._programs = {d: kernel.open_pin(pins / n) for d, n in PROGRAMS.items()}
        reader.read()

    def close(self) -> None:
        """Empty the maps for the next test."""
        self.put(Tables())
        self.maps.forget([0, self.endpoint])
        for handle in self._programs.values():
            handle.close()

    def put(self, tables: Tables) -> None:
        """Have the kernel hold exactly these tables."""
        self.maps.apply(replacing(self.maps.read(), tables))

    def configure(
        self,
        flags: EndpointFlag,
        policy: Mapping[PolicyKey, int] | None = None,
        *,
        ranges: Mapping[RangeKey, int] | None = None,
        cidrs: Mapping[str, CidrEntry] | None = None,
        addresses: Mapping[str, AddressEntry] | None = None,
        services: Mapping[ServiceKey, tuple[Backend, ...]] | None = None,
    ) -> None:
        """A pod with these flags and policy entries, two known neighbours and its node."""
        entry = EndpointEntry(
            endpoint=self.endpoint,
            group=GROUP,
            wall=WALL,
            tenant=TENANT,
            generation=self.generation,
            flags=flags,
            ip4=(POD[4],),
            ip6=(POD[6],),
            mac=MAC,
            reach=REACH,
        )
        self.put(
            Tables(
                endpoints={LOOPBACK: entry},
                addresses=ADDRESSES if addresses is None else addresses,
                policy=policy or {},
                ranges=ranges or {},
                cidrs={CidrKey(TENANT, prefix): entry for prefix, entry in (cidrs or {}).items()},
                services=services or {},
            )
        )

    def to_pod(self, packet: Packet | bytes, came_by: int = 0) -> Answer:
        """Send a packet towards the pod, from a local socket or an interface that it came by."""
        return self.send(Dir.INGRESS, packet, came_by)

    def from_pod(self, packet: Packet | bytes) -> Answer:
        """Let the pod send a packet."""
        return self.send(Dir.EGRESS, packet)

    def tables(self) -> Tables:
        """What the kernel holds, with names for rules and groups that the interpreter asks for."""
        held = self.maps.read()
        rules = {*held.policy.values(), *held.ranges.values()}
        return replace(
            held,
            rules={rule: str(rule) for rule in rules},
            isolating={(GROUP, direction): () for direction in Dir},
        )

    def send(self, direction: Dir, packet: Packet | bytes, came_by: int = 0) -> Answer:
        """A packet or a frame, one way or the other."""
        frame = packet if isinstance(packet, bytes) else ethernet(packet)
        before = self._counts(direction)
        context = kernel.SkbContext(ifindex=LOOPBACK, ingress_ifindex=came_by)
        run = kernel.test_run(self._programs[direction].fd, frame, context)
        counted = [s for s, n in self._counts(direction).items() if n != before.get(s, 0)]
        assert len(counted) == 1, f"one packet is counted once, not {counted}"
        return Answer(
            run.verdict, reason_of(counted[0].reason), counted[0].rule, self.reader.read()
        )

    def event(self, direction: Dir, frame: bytes, came_by: int = 0) -> FlowRecord | None:
        """What is told about one frame; None where it passed as no news."""
        context = kernel.SkbContext(ifindex=LOOPBACK, ingress_ifindex=came_by)
        run = kernel.test_run(self._programs[direction].fd, frame, context)
        events = self.reader.read()
        assert len(events) == (run.verdict == SHOT), "each drop is told once"
        return events[0] if events else None

    def _counts(self, direction: Dir) -> dict[Statistic, int]:
        return {
            replace(s, packets=0, octets=0): s.packets
            for s in self.maps.statistics()
            if s.endpoint in (0, self.endpoint) and s.direction is direction
        }


PROGRAMS = {Dir.INGRESS: "to_pod", Dir.EGRESS: "from_pod"}

ADDRESSES = {
    **{PEER[f]: AddressEntry(PEER_IDENTITY, TENANT) for f in (4, 6)},
    **{OTHER[f]: AddressEntry(OTHER_IDENTITY, OTHER_TENANT) for f in (4, 6)},
    **{NODE[f]: AddressEntry(1) for f in (4, 6)},
}


@contextmanager
def opened(pins: Path) -> Iterator[Veth]:
    """A fresh pod on the programs below `pins`."""
    with Maps.open(pins) as maps, FlowReader.open(pins) as reader:
        veth = Veth(pins, maps, reader)
        try:
            yield veth
        finally:
            veth.close()
