"""The engine `kernel` of `ringfence matrix`: the real programs on crafted frames, nothing is sent.

Programs and maps are loaded below a directory of their own and removed afterwards; the loopback
interface stands for each pod in turn. In a test run every packet has a socket, so a masked source
from the pod's own node cannot be tested here.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from secrets import token_hex

from enforcer.datapath import kernel, loader
from enforcer.datapath.engine import answer
from enforcer.datapath.flows import DropReason, FlowReader, FlowRecord
from enforcer.datapath.maps import Maps
from enforcer.policy.interpret import EndpointPacket
from enforcer.policy.tables import (
    IDENTITY_HOST,
    Dir,
    EndpointEntry,
    MapWrite,
    Table,
    Tables,
)
from enforcer.writes.plan import replacing
from generators.cluster import Cluster
from generators.errors import RingfenceError
from generators.reachability.packets import Question
from generators.reachability.protocols import TUNNEL_PORTS
from generators.reachability.verdicts import Cell, Judgement, Reason, Verdict

LOOPBACK = 1
PROGRAMS = {Dir.INGRESS: "to_pod", Dir.EGRESS: "from_pod"}
NO_PROXY = DropReason.PROXY_REDIRECTION_NOT_SUPPORTED_FOR_PROTOCOL
"""What a test run, which has none, says of a connection that goes to it."""
WALL = (DropReason.TENANT_WALL, DropReason.UNKNOWN_SENDER)
CLIENT_PORT = 40000
CONTINUE = -1
ECHO_REQUESTS = {1: 8, 58: 128}
"""Protocol number of ICMP -> type of its echo request."""
ETHERTYPES = {4: 0x0800, 6: 0x86DD}


PINS = "ringfence-matrix-"
"""What directories of pins begin with; the process that made them follows."""


class NoEvent(RingfenceError):
    """The programs judged a frame without giving a reason: a bug of ours."""


def engine(cluster: Cluster, questions: Iterable[Question]) -> tuple[Cell, ...]:
    """The engine: an answer for each question, in order."""
    with loaded() as judge:
        return answer(cluster, questions, judge)


@contextmanager
def loaded() -> Iterator[TestRuns]:
    """The programs, freshly loaded, as a judge of packets; nothing of them is left afterwards."""
    _sweep()
    directory = loader.BPF_FS / f"{PINS}{os.getpid()}-{token_hex(4)}"
    try:
        pins = loader.ensure_loaded(directory)
        with Maps.open(pins) as maps, FlowReader.open(pins) as reader, ExitStack() as stack:
            programs = {
                direction: stack.enter_context(kernel.open_pin(pins / name))
                for direction, name in PROGRAMS.items()
            }
            maps.lead_to_tunnels(TUNNEL_PORTS)
            yield TestRuns(maps, reader, programs)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _sweep() -> None:
    """Remove the pins of runs that were killed: nothing else would ever find them."""
    for left in loader.BPF_FS.glob(f"{PINS}*-*"):
        owner = left.name.removeprefix(PINS).partition("-")[0]
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(left, ignore_errors=True)


class TestRuns:
    """Judges packets by running programs; holds the tables that were asked last."""

    def __init__(
        self, maps: Maps, reader: FlowReader, programs: Mapping[Dir, kernel.Handle]
    ) -> None:
        self._maps = maps
        self._reader = reader
        self._programs = programs
        self._written = Tables()
        self._asked: Tables | None = None
        self._endpoints = count(1)

    def __call__(self, tables: Tables, ifindex: int, packet: EndpointPacket) -> Judgement:
        """The programs' judgement at one interface."""
        verdict, records = self._run(tables, ifindex, packet)
        if records:
            return _judgement(records[-1], tables, tables.endpoints[ifindex])
        # What passes unconditionally is counted but no news.
        if verdict == CONTINUE and packet.own == packet.peer:
            return Judgement(Verdict.FORWARDED, Reason.SELF)
        peer = tables.addresses.get(packet.peer)
        if verdict == CONTINUE and peer is not None and peer.identity == IDENTITY_HOST:
            return Judgement(Verdict.FORWARDED, Reason.HOST)
        raise NoEvent(f"no event for {packet}; report this with the objects that were asked about")

    def verdict(self, tables: Tables, ifindex: int, packet: EndpointPacket) -> Verdict:
        """The same without the reason, for tables that may hold anything."""
        verdict, records = self._run(tables, ifindex, packet)
        if records:
            proxied = records[-1].reason is NO_PROXY
            return Verdict.REDIRECTED if proxied else records[-1].verdict
        return Verdict.FORWARDED if verdict == CONTINUE else Verdict.DROPPED

    def _run(
        self, tables: Tables, ifindex: int, packet: EndpointPacket
    ) -> tuple[int, list[FlowRecord]]:
        """What the programs return and report of one packet."""
        if tables is not self._asked:
            without = replace(tables, endpoints={})
            self._maps.apply(replacing(self._written, without))
            self._asked, self._written = tables, without
        entry = tables.endpoints.get(ifindex)
        if entry is not None:
            # An endpoint id of its own for each packet: none is taken for a reply to another.
            entry = replace(entry, endpoint=next(self._endpoints))
        self._maps.apply([MapWrite(Table.ENDPOINTS, LOOPBACK, entry)])
        self._reader.read()
        program = self._programs[packet.direction]
        # A test run has a socket; what came in by an interface has none that counts.
        came_by = 0 if packet.from_socket else LOOPBACK
        context = kernel.SkbContext(ifindex=LOOPBACK, ingress_ifindex=came_by)
        run = kernel.test_run(program.fd, frame(packet), context)
        return run.verdict, list(self._reader.read())


def _judgement(record: FlowRecord, tables: Tables, entry: EndpointEntry) -> Judgement:
    http = tables.rule_sets.get(record.rule)
    if record.reason is NO_PROXY and http:
        policies = tables.isolating[entry.group, record.direction]
        return Judgement(Verdict.REDIRECTED, Reason.L7, http.rule, policies, http)
    reason = Reason[record.reason.name]
    if reason in (Reason.HOST, Reason.NOT_ISOLATED, Reason.ENCAP_PROHIBITED):
        return Judgement(record.verdict, reason)
    policies = tables.isolating.get((entry.group, record.direction), ())
    if record.reason in WALL:
        return Judgement(record.verdict, reason, tables.walls.get(entry.wall), policies)
    if reason is Reason.POLICY_ALLOWED and http is not None:
        return Judgement(record.verdict, reason, http.rule, policies)
    named = reason in (Reason.POLICY_ALLOWED, Reason.POLICY_DENY)
    rule = tables.rules.get(record.rule) if named else None
    return Judgement(record.verdict, reason, rule, policies)


def frame(packet: EndpointPacket) -> bytes:
    """The opening packet of a connection as an Ethernet frame; checksums do not matter."""
    ends = (packet.peer, packet.own)
    source, destination = ends if packet.direction is Dir.INGRESS else reversed(ends)
    source_bytes, destination_bytes = ip_address(source).packed, ip_address(destination).packed
    version = 4 if len(source_bytes) == 4 else 6
    payload = _transport(packet.protocol, packet.port)
    if version == 4:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, packet.protocol, 0)
    else:
        header = struct.pack("!IHBB", 6 << 28, len(payload), packet.protocol, 64)
    ethernet = bytes(12) + struct.pack("!H", ETHERTYPES[version])
    return ethernet + header + source_bytes + destination_bytes + payload


def _transport(protocol: int, port: int) -> bytes:
    ports = struct.pack("!HH", CLIENT_PORT, port)
    if protocol == 6:
        return ports + struct.pack("!IIBBHHH", 1, 0, 5 << 4, 0x02, 64240, 0, 0)
    if protocol == 17:
        return ports + struct.pack("!HH", 8, 0)
    if protocol in ECHO_REQUESTS:
        return struct.pack("!BBHHH", ECHO_REQUESTS[protocol], 0, 0, CLIENT_PORT, 1)
    return ports + struct.pack("!II", 0, 0) + struct.pack("!BBHIIHHI", 1, 0, 20, 1, 65536, 1, 1, 1)
