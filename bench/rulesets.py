"""What the same policies cost a real packet: Ringfence beside nftables and iptables.

A UDP packet goes from pod to pod through a node of its own for each subject, wired by the lab's own
code. Both sockets belong to this one process, so a sample is the whole way of a packet, both pods'
network stacks included, and no process has to be woken up; "added" is what remains without the way.
The packet is for the policy in the middle, so half of a chain is walked. A subject that cannot run
on this machine is named with the reason.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count

from bench.measure import Comparison, Scale, Series, Turn, Unit, alternate
from bench.report import quantity
from bench.traffic import ADDRESSES, CLIENT, SERVER, Node, inside, plain
from bench.verdict import loaded, tables_of
from enforcer.datapath import attach
from enforcer.datapath.flows import FlowReader
from lab import machine, netns

SOURCE, TARGET = ADDRESSES[CLIENT][0], ADDRESSES[SERVER][0]
BASELINE = "no rules"
FIRST_CLIENT_PORT = 20_000
BATCH = 100
PATIENCE = struct.pack("ll", 5, 0)
"""A timeval: how long a socket waits for a packet that does not come."""
PAYLOAD = b"x"


@dataclass(frozen=True, slots=True)
class Ruleset:
    """One way to say the policies to the kernel: text for the standard input of a command."""

    name: str
    command: tuple[str, ...]
    text: Callable[[int], str]


def _chain(policies: int) -> str:
    rules = "\n".join(
        f"ip saddr {SOURCE} ip daddr {TARGET} udp dport {port} accept"
        for port in range(1, policies + 1)
    )
    return _table("", rules)


def _set(policies: int) -> str:
    elements = ", ".join(f"{SOURCE} . {port}" for port in range(1, policies + 1))
    named = f"set open {{ type ipv4_addr . inet_service; elements = {{ {elements} }}; }}"
    return _table(named, f"ip daddr {TARGET} ip saddr . udp dport @open accept")


def _table(sets: str, rules: str) -> str:
    return f"""
table ip bench {{
{sets}
chain forward {{
type filter hook forward priority filter; policy accept;
ct state established,related accept
{rules}
ip daddr {TARGET} drop
}}
}}
"""


def _restore(policies: int) -> str:
    rules = "\n".join(
        f"-A FORWARD -s {SOURCE} -d {TARGET} -p udp --dport {port} -j ACCEPT"
        for port in range(1, policies + 1)
    )
    return f"""*filter
:FORWARD ACCEPT [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
{rules}
-A FORWARD -d {TARGET} -j DROP
COMMIT
"""


RULESETS = (
    Ruleset("nftables, a rule each", ("nft", "-f", "-"), _chain),
    Ruleset("nftables, one set", ("nft", "-f", "-"), _set),
    Ruleset("iptables-legacy", ("iptables-legacy-restore", "-w"), _restore),
    Ruleset("iptables-nft", ("iptables-nft-restore",), _restore),
)


class CannotRun(Exception):
    """A ruleset is not possible on this machine."""


@dataclass(frozen=True, slots=True)
class Way:
    """From client to server on one node; `reader` where events have to be taken away."""

    node: Node
    server: socket.socket
    ports: Iterator[int]
    reader: FlowReader | None

    def client(self) -> socket.socket:
        """A socket with a port that was never used before, to the server's open port."""
        client = _bound(self.node, CLIENT, next(self.ports))
        client.connect(self.server.getsockname())
        return client


def run(scale: Scale) -> Iterator[Comparison]:
    """Packets of known and of new connections, with ever more policies."""
    machine.check()
    for policies in (10, 100, 1_000, 10_000)[: scale.of(4, 1)]:
        with ExitStack() as stack:
            ways, absent = _ways(stack, policies)
            for way in ways.values():
                _check(way, policies, closed=way is not ways[BASELINE])
            known = {
                name: _known(stack.enter_context(way.client()), way, scale.of(20, 1))
                for name, way in ways.items()
            }
            fresh = {name: _fresh(way, scale.of(100, 5)) for name, way in ways.items()}
            title = f"A UDP packet of an established connection, {policies} policies"
            yield _compare(title, known, scale.of(18, 1), absent)
            title = f"The first UDP packet of a connection, {policies} policies"
            yield _compare(title, fresh, scale.of(12, 1), absent)


def _compare(
    title: str, turns: Mapping[str, Turn], rounds: int, absent: tuple[str, ...]
) -> Comparison:
    samples = alternate(turns, rounds)
    series = [Series(BASELINE, Unit.SECONDS, samples.pop(BASELINE))]
    for one in [Series(name, Unit.SECONDS, found) for name, found in samples.items()]:
        added = one.percentile(50) - series[0].percentile(50)
        series.append(replace(one, notes={"added": quantity(added, Unit.SECONDS)}))
    return Comparison(title, tuple(series), absent=absent)


def _ways(stack: ExitStack, policies: int) -> tuple[dict[str, Way], tuple[str, ...]]:
    absent = []
    ways = {
        BASELINE: stack.enter_context(_way(policies)),
        "Ringfence": stack.enter_context(_enforced(policies)),
    }
    for ruleset in RULESETS:
        try:
            ways[ruleset.name] = stack.enter_context(_filtered(ruleset, policies))
        except CannotRun as why:
            absent.append(f"{ruleset.name}: {why}")
    return ways, tuple(absent)


@contextmanager
def _way(policies: int) -> Iterator[Way]:
    with plain() as node, _bound(node, SERVER, policies // 2) as server:
        yield Way(node, server, count(FIRST_CLIENT_PORT), None)


@contextmanager
def _filtered(ruleset: Ruleset, policies: int) -> Iterator[Way]:
    with _way(policies) as way:
        command = [*inside(way.node.places.node_netns), *ruleset.command]
        text = ruleset.text(policies)
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotRun(" ".join(done.stderr.split()) or f"exit status {done.returncode}")
        yield way


@contextmanager
def _enforced(policies: int) -> Iterator[Way]:
    """Both pods have the programs, as with an agent: a packet is judged on leaving and arriving."""
    with _way(policies) as way:
        home = way.node.places.node_netns
        names = {pod: way.node.wire(pod).interface for pod in (SERVER, CLIENT)}
        with netns.inside(home):
            numbers = {f"app/{pod}": socket.if_nametoindex(name) for pod, name in names.items()}
        tables = tables_of(policies, "UDP", {SERVER: TARGET, CLIENT: SOURCE}, numbers)
        with loaded(tables) as pins, FlowReader.open(pins) as reader:
            with netns.inside(home):
                for name in names.values():
                    attach.attach(pins, name)
            yield Way(way.node, way.server, way.ports, reader)


def _bound(node: Node, pod: str, port: int) -> socket.socket:
    with netns.inside(node.wire(pod).netns):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    # Not settimeout: Python would ask the kernel twice for each packet.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, PATIENCE)
    made.bind((ADDRESSES[pod][0], port))
    return made


def _check(way: Way, policies: int, *, closed: bool) -> None:
    """Rules that are not in force would be the fastest of all."""
    arrived = False
    with _bound(way.node, SERVER, policies + 1) as other, way.client() as client:
        client.sendto(PAYLOAD, other.getsockname())
        client.send(PAYLOAD)
        way.server.recv(1)
        with suppress(BlockingIOError):
            arrived = bool(other.recv(1, socket.MSG_DONTWAIT))
    if arrived is closed:
        raise RuntimeError(f"a port that no policy opens is {'open' if arrived else 'closed'}")


def _known(client: socket.socket, way: Way, batches: int) -> Turn:
    """A sample is the mean of a batch; the connection has had its answer."""
    client.send(PAYLOAD)
    _, sender = way.server.recvfrom(1)
    way.server.sendto(PAYLOAD, sender)
    client.recv(1)

    def batch() -> float:
        start = time.perf_counter()
        for _ in range(BATCH):
            client.send(PAYLOAD)
            way.server.recv(1)
        return (time.perf_counter() - start) / BATCH

    return lambda: [batch() for _ in range(batches)]


def _fresh(way: Way, flows: int) -> Turn:
    """A sample is a packet from a port that was never used before."""

    def turn() -> Sequence[float]:
        samples = []
        with ExitStack() as stack:
            for client in [stack.enter_context(way.client()) for _ in range(flows)]:
                start = time.perf_counter()
                client.send(PAYLOAD)
                way.server.recv(1)
                samples.append(time.perf_counter() - start)
        if way.reader is not None:
            way.reader.read()  # so that there is always room for events
        return samples

    return turn
