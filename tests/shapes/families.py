"""Families of shapes: what somebody who is root in a pod may send, and whether it may arrive.

A family yields every shape that it knows for a `Scene`; each has a name, its bytes, a mark of its
own in the payload, and its expected outcome. What strangers send stays away whatever its shape;
what a friend sends well-formed arrives (that is the control beside each attempt).
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import permutations, product

from tests.shapes import frames
from tests.shapes.frames import ICMP, ICMPV6, SCTP, TCP, UDP, End, Header

MARK = b"SHAPE000000"
PORT = 5353
ROUTERS, NODES = "ff02::2", "ff02::1"
SERVICE = End("", "10.96.0.9", "fd96::9")
NOBODY = "0.0.0.0"  # noqa: S104 an address that no sender has


@dataclass(frozen=True, slots=True)
class Scene:
    """Who sends to whom."""

    sender: End
    gateway: str
    """The MAC that frames go to on their way."""
    victim: End
    friend: End
    """A pod that the victim would let in: whose name is worth wearing."""
    node: End
    direct: bool = False
    """Sender and victim are on one link."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One frame, with what becomes of it."""

    name: str
    frame: bytes
    mark: bytes
    arrives: bool = False
    offload: bytes | None = None
    """A virtio net header: what is said of its checksum and its segments."""


Made = tuple[str, bytes]
"""A name, and a frame with `MARK` in it, which becomes a mark of its own."""
OffloadMade = tuple[str, bytes, bytes]


def framed(scene: Scene, header: Header, payload: bytes, source_mac: str | None = None) -> bytes:
    """A packet in a frame of the sender."""
    ethertype = frames.IPV4 if header.family == 4 else frames.IPV6
    mac = scene.sender.mac if source_mac is None else source_mac
    return frames.ethernet(mac, scene.gateway, ethertype, header.bytes(payload))


def to_victim(scene: Scene, family: int, protocol: int) -> Header:
    """The sender's own header to the victim."""
    return frames.between(family, scene.sender, scene.victim, protocol)


def icmp_of(family: int) -> int:
    """ICMP's number in a family."""
    return ICMP if family == 4 else ICMPV6


def plain(scene: Scene) -> Iterator[Made]:
    """What a friend's kernel sends, too."""
    for family in (4, 6):
        header = to_victim(scene, family, UDP)
        for port in (53, 80, PORT, 40000):
            yield f"udp{family} {port}", framed(scene, header, frames.udp(header, port, MARK))
            segment = replace(header, protocol=TCP)
            yield f"tcp{family} {port}", framed(scene, segment, frames.tcp(segment, port, MARK))
        ping = replace(header, protocol=icmp_of(family))
        kind = 8 if family == 4 else 128

        message = frames.icmp(ping, kind, 0, b"\0\7\0\1" + MARK)
        yield f"echo{family}", framed(scene, ping, message)


def protocols(scene: Scene) -> Iterator[Made]:
    """Every protocol number."""
    for family, number in product((4, 6), range(256)):
        header = to_victim(scene, family, number)
        yield f"protocol{family} {number}", framed(scene, header, bytes(32) + MARK)


def tcp_states(scene: Scene) -> Iterator[Made]:
    """Every combination of flags, with and without a connection that could fit."""
    for family, flags in product((4, 6), range(256)):
        header = to_victim(scene, family, TCP)
        yield (
            f"tcp{family} flags {flags:#x}",
            framed(scene, header, frames.tcp(header, 443, MARK, flags, 443)),
        )


def icmp_messages(scene: Scene) -> Iterator[Made]:
    """Every type."""
    for family, kind in product((4, 6), range(256)):
        header = to_victim(scene, family, icmp_of(family))
        yield (
            f"icmp{family} {kind}",
            framed(scene, header, frames.icmp(header, kind, 0, bytes(4) + MARK)),
        )


def icmp_errors(scene: Scene) -> Iterator[Made]:
    """Errors about what the victim and its friend may have said to each other."""
    kinds = {
        4: ((3, 0), (3, 1), (3, 3), (3, 4), (4, 0), (11, 0), (12, 0)),
        6: ((1, 0), (2, 0), (3, 0), (4, 0)),
    }
    for family in (4, 6):
        header = to_victim(scene, family, icmp_of(family))
        for (kind, code), protocol, swapped, size in product(
            kinds[family], (UDP, TCP, SCTP), (False, True), (0, 200, 900)
        ):
            ends = (scene.victim, scene.friend)
            quoted = frames.between(family, *(ends[::-1] if swapped else ends), protocol)
            ports = struct.pack("!HHHH", 4000, PORT, 8, 0)
            body = struct.pack("!I", 600) + quoted.bytes(ports)
            way = "back" if swapped else "there"
            yield (
                f"error{family} {kind}/{code} about {protocol} {way} {size}",
                framed(scene, header, frames.icmp(header, kind, code, body + bytes(size) + MARK)),
            )


def tags(scene: Scene) -> Iterator[Made]:
    """Tags of every kind before a packet in the sender's own name and in a friend's."""
    for family, depth, ethertype, vlan, forged in product(
        (4, 6), (1, 2, 3), (0x8100, 0x88A8, 0x9100), (0, 1, 5, 4095), (False, True)
    ):
        header = to_victim(scene, family, UDP)
        if forged:
            header = frames.with_source(header, scene.friend.address(family))

        frame = framed(scene, header, frames.udp(header, PORT, MARK))
        tagged = frame[:12] + struct.pack("!HH", ethertype, vlan) * depth + frame[12:]
        whose = "forged" if forged else ""
        yield f"tag{family} {ethertype:#x} vlan {vlan} x{depth} {whose}", tagged


def ethertypes(scene: Scene) -> Iterator[Made]:
    """Other EtherTypes and lengths before an IP packet."""
    others = (0, 46, 1500, 0x0600, 0x0801, 0x22F3, 0x6558, 0x8035, 0x8847, 0x8848, 0x8863)
    more = (0x8864, 0x888E, 0x88CC, 0x88E5, 0x8915, 0x894F, 0x9000, 0xFFFF, 0x0805, 0x86DE)
    for family, ethertype, forged in product((4, 6), others + more, (False, True)):
        header = to_victim(scene, family, UDP)
        if forged:
            header = frames.with_source(header, scene.friend.address(family))
        yield (
            f"ethertype{family} {ethertype:#x} {'forged' if forged else ''}",
            frames.ethernet(
                scene.sender.mac,
                scene.gateway,
                ethertype,
                header.bytes(frames.udp(header, PORT, MARK)),
            ),
        )


def forged_sources(scene: Scene) -> Iterator[Made]:
    """Names that are not the sender's, in every kind of packet."""
    names = {
        4: (
            scene.friend.ip4,
            scene.node.ip4,
            scene.victim.ip4,
            NOBODY,
            "127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
        ),
        6: (
            scene.friend.ip6,
            scene.node.ip6,
            scene.victim.ip6,
            "::",
            "::1",
            "ff02::1",
            "fe80::1",
            "fe80::bad",
            "2001:db8::1",
        ),
    }
    for family in (4, 6):
        for name, mac in product(names[family], (None, scene.friend.mac)):
            header = frames.with_source(to_victim(scene, family, UDP), name)
            whose = f"{name} by {mac or 'own MAC'}"
            yield (
                f"udp{family} as {whose}",
                framed(scene, header, frames.udp(header, PORT, MARK), mac),
            )
            for flags in (0x02, 0x10, 0x12):
                segment = replace(header, protocol=TCP)
                yield (
                    f"tcp{family} {flags:#x} as {whose}",
                    framed(scene, segment, frames.tcp(segment, 80, MARK, flags), mac),
                )
            for number in (1, 2, 47, 58, 132):
                other = replace(header, protocol=number)
                yield (
                    f"protocol{family} {number} as {whose}",
                    framed(scene, other, bytes(16) + MARK, mac),
                )


def neighbour_discovery(scene: Scene) -> Iterator[Made]:
    """Neighbour and listener discovery with all that it may not say."""
    sources = ("::", scene.sender.ip6, scene.friend.ip6, scene.node.ip6, "fe80::bad")
    targets = (scene.victim.ip6, scene.sender.ip6, scene.node.ip6)
    destinations = (scene.victim.ip6, NODES, ROUTERS, "ff02::16", _solicited(scene.victim.ip6))
    for kind, source, destination, target, hops in product(
        (130, 131, 132, 133, 134, 135, 136, 137, 143), sources, destinations, targets, (255, 1)
    ):
        header = Header(6, source, destination, ICMPV6, hop_limit=hops)
        body = bytes(4) + ip_address(target).packed
        yield (
            f"discovery {kind} {source} > {destination} about {target} hops {hops}",
            framed(scene, header, frames.icmp(header, kind, 0, body + MARK)),
        )


def _solicited(address: str) -> str:
    return "ff02::1:ff" + ip_address(address).exploded[-7:]


def dhcp(scene: Scene) -> Iterator[Made]:
    """DHCP in both families, as client, as server and as neither."""
    for (ours, theirs), source, destination in product(
        ((546, 547), (547, 546), (53, 547), (53, 546)),
        (scene.sender.ip6, "fe80::bad", scene.friend.ip6),
        (NODES, "ff02::1:2", scene.victim.ip6, "fe80::1"),
    ):
        header = Header(6, source, destination, UDP)
        yield (
            f"dhcp6 {ours}>{theirs} {source} > {destination}",
            framed(scene, header, frames.udp(header, theirs, MARK, ours)),
        )
    for (ours, theirs), source in product(((68, 67), (67, 68)), (NOBODY, scene.node.ip4)):
        header = Header(4, source, "255.255.255.255", UDP)
        yield (
            f"dhcp4 {ours}>{theirs} {source}",
            framed(scene, header, frames.udp(header, theirs, MARK, ours)),
        )


def arp_messages(scene: Scene) -> Iterator[Made]:
    """ARP of every operation in every name, with something behind it."""
    names = (scene.sender.ip4, scene.friend.ip4, scene.node.ip4, scene.victim.ip4, NOBODY)
    macs = (scene.sender.mac, scene.friend.mac)
    for operation, name, said, worn, space in product(range(1, 11), names, macs, macs, (0, 700)):
        message = frames.arp(operation, (said, name), (scene.victim.mac, scene.victim.ip4))
        yield (
            f"arp {operation} {name} at {said} by {worn} +{space}",
            frames.ethernet(
                worn,
                scene.victim.mac if scene.direct else frames.EVERYBODY,
                frames.ARP,
                message + bytes(space) + MARK,
            ),
        )


def ipv4_options(scene: Scene) -> Iterator[Made]:
    """Options, and header lengths that lie."""
    hop = ip_address(scene.friend.ip4).packed
    options = {
        "nop": b"\1" * 4, "end": b"\0" * 4, "many": b"\1" * 40, "record": b"\7\7\4" + bytes(5),
        "timestamp": b"\x44\x0c\x05\x00" + bytes(8), "alert": b"\x94\4\0\0",
        "loose": b"\x83\7\4" + hop + b"\0", "strict": b"\x89\7\4" + hop + b"\0",
        "long": b"\7\xff\4\0", "empty": b"\7\0\4\0", "security": b"\x82\x0b" + bytes(10),
    }  # fmt: skip
    for (name, option), words in product(options.items(), (None, *range(16))):
        header = replace(to_victim(scene, 4, UDP), options=option, header_length=words)
        yield (
            f"option {name} length {words}",
            framed(scene, header, frames.udp(header, PORT, MARK)),
        )


def lengths(scene: Scene) -> Iterator[Made]:
    """Total lengths, versions and transport lengths that lie; frames that are cut or padded."""
    for family, claimed in product((4, 6), (0, 1, 8, 19, 20, 21, 27, 28, 40, 100, 1400, 65535)):
        header = replace(to_victim(scene, family, UDP), length=claimed)
        yield (
            f"length{family} {claimed}",
            framed(scene, header, frames.udp(header, PORT, MARK)),
        )
    for family, version in product((4, 6), range(16)):
        header = replace(to_victim(scene, family, UDP), version=version)
        yield (
            f"version{family} {version}",
            framed(scene, header, frames.udp(header, PORT, MARK)),
        )
    for family, padding in product((4, 6), (1, 30, 60, 500)):
        header = to_victim(scene, family, UDP)
        yield (
            f"padding{family} {padding}",
            framed(scene, header, frames.udp(header, PORT, b"")) + bytes(padding) + MARK,
        )


EXTENSIONS: dict[str, tuple[int, bytes]] = {
    "hop": (0, b"\0\1\4" + bytes(4)), "destination": (60, b"\0\1\4" + bytes(4)),
    "routing": (43, b"\0\0\0" + bytes(4)), "segments": (43, b"\2\0\1" + bytes(4) + bytes(16)),
    "fragment": (44, b"\0\0\0" + bytes(4)), "ah": (51, b"\4\0\0" + bytes(20)),
    "mobility": (135, b"\0" * 7), "hip": (139, b"\0\1\1" + bytes(4)),
    "shim6": (140, b"\0\1" + bytes(5)), "none": (59, b"\0" * 7),
}  # fmt: skip


def extension_headers(scene: Scene) -> Iterator[Made]:
    """Extension headers in every order."""
    for count in (1, 2, 3):
        for names in permutations(EXTENSIONS, count):
            first, chain = frames.chained((EXTENSIONS[name] for name in names), UDP)
            header = to_victim(scene, 6, first)
            yield (
                f"headers {' '.join(names)}",
                framed(scene, header, chain + frames.udp(header, PORT, MARK)),
            )


def fragments(scene: Scene) -> Iterator[Made]:
    """Fragments at every place, of every protocol, without a first one or with a wrong one."""
    for family, protocol, offset, more in product(
        (4, 6), (ICMP, TCP, UDP, 58, 47), (0, 1, 2, 3, 5, 100, 8189), (0, 1)
    ):
        header = replace(to_victim(scene, family, protocol), fragment=offset | more << 13)
        chain = b""
        if family == 6:
            chain = bytes([protocol, 0]) + struct.pack("!HI", offset << 3 | more, 77)
            header = replace(header, protocol=44, fragment=0)
        yield (
            f"fragment{family} of {protocol} at {offset} {'more' if more else 'last'}",
            framed(scene, header, chain + bytes(24) + MARK),
        )


def tunnels(scene: Scene) -> Iterator[Made]:
    """Packets of a friend in packets of the sender's own to the node."""
    for family, inner, port in product((4, 6), (4, 6), (4789, 8472, 6081)):
        outer = frames.between(family, scene.sender, scene.node, UDP)
        hidden = frames.between(inner, scene.friend, scene.victim, UDP)
        vxlan = b"\x08\0\0\0\0\0\x01\0" if port != 6081 else b"\0\0\x65\x58\0\0\x01\0"

        ethertype = frames.IPV4 if inner == 4 else frames.IPV6
        packet = hidden.bytes(frames.udp(hidden, PORT, MARK))
        whole = frames.ethernet(scene.sender.mac, TUNNEL_MAC, ethertype, packet)
        yield (
            f"tunnel{family} of {inner} to {port}",
            framed(scene, outer, frames.udp(outer, port, vxlan + whole)),
        )
    for family, inner in product((4, 6), (4, 6)):
        hidden = frames.between(inner, scene.friend, scene.victim, UDP)
        number = 4 if inner == 4 else 41
        gre = struct.pack("!HH", 0, frames.IPV4 if inner == 4 else frames.IPV6)
        for name, protocol, before in (
            ("ip", number, b""),
            ("gre", 47, gre),
            ("esp", 50, bytes(8)),
        ):
            outer = frames.between(family, scene.sender, scene.node, protocol)
            yield (
                f"{name} in {family} of {inner}",
                framed(scene, outer, before + hidden.bytes(frames.udp(hidden, PORT, MARK))),
            )


TUNNEL_MAC = "02:00:00:00:09:01"
"""Of the node's tunnel device."""


def offloads(scene: Scene) -> Iterator[OffloadMade]:
    """Checksums that somebody else is to write, at every even place, and segments to be cut."""
    for family, start, offset in product((4, 6), range(6, 90, 4), (0, 2, 6, 16)):
        header = to_victim(scene, family, UDP)
        said = struct.pack("=BBHHHH", 1, 0, 0, 0, start, offset)
        yield (
            f"checksum{family} {start}+{offset}",
            framed(scene, header, frames.udp(header, PORT, bytes(60) + MARK)),
            said,
        )
    for family, kind, size in product((4, 6), (1, 3, 4, 5), (1, 8, 100, 1400)):
        header = to_victim(scene, family, TCP)
        said = struct.pack("=BBHHHH", 1, kind, 54, size, 34 if family == 4 else 54, 16)
        yield (
            f"segments{family} {kind} of {size}",
            framed(scene, header, frames.tcp(header, 80, MARK + bytes(1200), 16)),
            said,
        )


STRANGE = (
    plain, protocols, tcp_states, icmp_messages, icmp_errors, tags, ethertypes, forged_sources,
    neighbour_discovery, dhcp, arp_messages, ipv4_options, lengths, extension_headers, fragments,
    tunnels,
)  # fmt: skip
"""What a stranger sends stays away, whatever it looks like."""
FORGED = (tags, forged_sources, neighbour_discovery, dhcp, tunnels)
"""Stays away whoever sends it."""


def strangers(scene: Scene) -> list[Shape]:
    """Every shape of somebody whom the victim's wall keeps out."""
    made = [item for family in STRANGE for item in family(scene)]
    found = [_shape(i, name, frame) for i, (name, frame) in enumerate(made)]
    found += [
        _shape(len(made) + i, name, frame, offload=said)
        for i, (name, frame, said) in enumerate(offloads(scene))
    ]
    return found


def friends(scene: Scene) -> list[Shape]:
    """What arrives of a friend, beside what stays away although it is a friend's."""
    well = [*plain(scene), *_well_formed(scene)]
    found = [_shape(i, name, frame, arrives=True) for i, (name, frame) in enumerate(well)]
    ill = [item for family in (tags, ethertypes) for item in family(scene)]
    return found + [_shape(len(well) + i, name, frame) for i, (name, frame) in enumerate(ill)]


def services(scene: Scene, *, arrives: bool) -> list[Shape]:
    """What is sent to the virtual address behind which the victim is, on every kind of port; and as
    if it came from there.
    """
    found: list[Shape] = []
    for family, protocol, port in product((4, 6), (UDP, TCP), (53, 80, PORT, 40000)):
        there = frames.between(family, scene.sender, SERVICE, protocol)
        worn = frames.between(family, SERVICE, scene.victim, protocol)
        for name, header in (("to", there), ("from", worn)):
            make = frames.udp if protocol == UDP else frames.tcp
            frame = framed(scene, header, make(header, port, MARK))
            told = f"{protocol} in {family} {name} a Service, port {port}"
            found.append(_shape(len(found), told, frame, arrives=arrives and name == "to"))
    return found


def pending_checksums(scene: Scene) -> list[Shape]:
    """A friend's packets with a pending checksum at every even place from the IP header on."""
    found: list[Shape] = []
    for family, (protocol, usual) in product((4, 6), ((UDP, 6), (TCP, 16))):
        header = to_victim(scene, family, protocol)
        transport = 34 if family == 4 else 54
        make = frames.udp if protocol == UDP else frames.tcp
        frame = framed(scene, header, make(header, PORT, bytes(40) + MARK))
        for place in range(22, transport + 32, 2):
            said = struct.pack("=BBHHHH", 1, 0, 0, 0, place - 2, 2)
            name = f"{protocol} in {family}, {place - transport} from the transport"
            fits = place >= transport + usual
            found.append(_shape(len(found), name, frame, arrives=fits, offload=said))
    return found


def _well_formed(scene: Scene) -> Iterator[Made]:
    for made in extension_headers(scene):
        if made[0] in ("headers hop", "headers destination", "headers hop destination"):
            yield made
    for made in ipv4_options(scene):
        if made[0] in ("option nop length None", "option many length None"):
            yield made
    for family, number in product((4, 6), (47, 50, 89, 136, 253)):
        header = to_victim(scene, family, number)
        yield f"protocol{family} {number}", framed(scene, header, bytes(32) + MARK)


def _shape(
    number: int,
    name: str,
    frame: bytes,
    *,
    arrives: bool = False,
    offload: bytes | None = None,
) -> Shape:
    mark = b"SHAPE" + f"{number:06d}".encode()
    return Shape(name, frame.replace(MARK, mark), mark, arrives, offload)


def some(shapes: list[Shape], seed: int, share: int) -> list[Shape]:
    """One of `share` of them, by lot, in another order; all of what arrives."""
    lot = random.Random(seed)  # noqa: S311 - chosen by lot, not secret
    chosen = [shape for shape in shapes if shape.arrives or lot.randrange(share) == 0]
    lot.shuffle(chosen)
    return chosen
