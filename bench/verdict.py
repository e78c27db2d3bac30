"""What one verdict costs in the kernel, with ever more policies, beside a program without work.

BPF_PROG_TEST_RUN times the programs themselves: no network, no other software. A new flow is timed
by single runs, because the second packet belongs to a known connection; so is the empty program
beside it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from secrets import token_hex

from bench.measure import Comparison, Scale, Series, Turn, Unit, alternate
from enforcer.compiler.compile import compile_tables
from enforcer.datapath import kernel, loader
from enforcer.datapath.flows import FlowReader
from enforcer.datapath.maps import Maps
from enforcer.datapath.testrun import CONTINUE, LOOPBACK, frame
from enforcer.policy.interpret import EndpointPacket
from enforcer.policy.tables import Dir, Tables
from enforcer.writes.plan import replacing
from generators.cluster import Cluster
from generators.objects import Namespace, NetworkPolicy, Peer, Pod, PolicyPort, Rule
from generators.selectors import labels_selector

SYS_BPF, PROG_LOAD, SCHED_CLS = 321, 5, 3
EMPTY = bytes.fromhex("b7000000000000009500000000000000")
"""r0 = 0; exit"""
NANOSECOND = 1e-9
TCP_FLAGS, ACK = 14 + 20 + 13, 0x10
CLIENT_PORT, SERVER_PORT = slice(14 + 20, 14 + 22), slice(14 + 22, 14 + 24)
NODE, CLIENT, SERVER = "node", "client", "server"
CLIENT_ADDRESS, SERVER_ADDRESS = "10.0.0.2", "10.0.0.1"
AIM = "flat: within 15 % from the fewest policies to the most"


@dataclass(frozen=True, slots=True)
class Node:
    """Programs and maps of their own, filled with the policies of one size."""

    program: int
    """What enters the pod."""
    leaving: int
    """And what leaves it."""
    reader: FlowReader
    port: int
    """That the policy in the middle opens."""

    def opening(self) -> bytes:
        """The client's SYN."""
        return frame(EndpointPacket(Dir.INGRESS, SERVER_ADDRESS, CLIENT_ADDRESS, 6, self.port))


def run(scale: Scale) -> Iterator[Comparison]:
    """Established and new connections into a pod that all policies select."""
    sizes = (10, 100, 1_000, 10_000)[: scale.of(4, 2)]
    with ExitStack() as stack:
        empty = stack.enter_context(_empty_program())
        nodes = {size: stack.enter_context(_node(size)) for size in sizes}
        runs = scale.of(100_000, 100)
        first = nodes[sizes[0]]
        known: dict[str, Turn] = {"empty program": _repeated(empty, first.opening(), runs)}
        known |= {f"{n} policies": _established(node, runs) for n, node in nodes.items()}
        yield _compare("A packet of an established connection", known, scale.of(30, 1))
        sent: dict[str, Turn] = {"empty program": _repeated(empty, first.opening(), runs)}
        sent |= {f"{n} policies": _answered(node, runs) for n, node in nodes.items()}
        yield _compare("A packet that the pod answers with", sent, scale.of(30, 1))
        flows = scale.of(500, 5)
        fresh: dict[str, Turn] = {"empty program": _singly(empty, first, flows)}
        fresh |= {f"{n} policies": _singly(node.program, node, flows) for n, node in nodes.items()}
        yield _compare("The first packet of a connection", fresh, scale.of(20, 1))


def _compare(title: str, turns: Mapping[str, Turn], rounds: int) -> Comparison:
    samples = alternate(turns, rounds)
    return Comparison(title, tuple(Series(n, Unit.SECONDS, s) for n, s in samples.items()), AIM)


def _test_run(program: int, packet: bytes, runs: int) -> float:
    context = kernel.SkbContext(ifindex=LOOPBACK)
    return kernel.test_run(program, packet, context, runs).nanoseconds * NANOSECOND


def _repeated(program: int, packet: bytes, runs: int) -> Turn:
    return lambda: (_test_run(program, packet, runs),)


def _established(node: Node, runs: int) -> Turn:
    _open(node)
    segment = bytearray(node.opening())
    segment[TCP_FLAGS] = ACK
    return _repeated(node.program, bytes(segment), runs)


def _answered(node: Node, runs: int) -> Turn:
    _open(node)
    segment = bytearray(
        frame(EndpointPacket(Dir.EGRESS, SERVER_ADDRESS, CLIENT_ADDRESS, 6, node.port))
    )
    ports = segment[CLIENT_PORT], segment[SERVER_PORT]
    segment[SERVER_PORT], segment[CLIENT_PORT] = ports
    segment[TCP_FLAGS] = ACK
    return _repeated(node.leaving, bytes(segment), runs)


def _open(node: Node) -> None:
    context = kernel.SkbContext(ifindex=LOOPBACK)
    if kernel.test_run(node.program, node.opening(), context).verdict != CONTINUE:
        raise RuntimeError("the policy does not let the connection in: nothing to measure")


def _singly(program: int, node: Node, flows: int) -> Turn:
    ports = count(1024)

    def turn() -> Sequence[float]:
        segment, samples = bytearray(node.opening()), []
        for _ in range(flows):
            segment[CLIENT_PORT] = (next(ports) % 65536).to_bytes(2, "big")
            samples.append(_test_run(program, bytes(segment), 1))
        node.reader.read()  # so that there is always room for events
        return samples

    return turn


@contextmanager
def _node(policies: int) -> Iterator[Node]:
    interfaces = {f"app/{SERVER}": LOOPBACK}
    tables = tables_of(
        policies, "TCP", {SERVER: SERVER_ADDRESS, CLIENT: CLIENT_ADDRESS}, interfaces
    )
    with (
        loaded(tables) as pins,
        FlowReader.open(pins) as reader,
        kernel.open_pin(pins / "to_pod") as program,
        kernel.open_pin(pins / "from_pod") as leaving,
    ):
        yield Node(program.fd, leaving.fd, reader, policies // 2)


@contextmanager
def loaded(tables: Tables) -> Iterator[Path]:
    """Where programs and maps of their own are pinned, filled with these tables."""
    directory = loader.BPF_FS / f"ringfence-bench-{token_hex(4)}"
    try:
        pins = loader.ensure_loaded(directory)
        with Maps.open(pins) as maps:
            maps.apply(replacing(Tables(), tables))
        yield pins
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def tables_of(
    policies: int, protocol: str, addresses: Mapping[str, str], interfaces: Mapping[str, int]
) -> Tables:
    """Two pods, and policies that each open one more port of the server to the client."""
    client = Peer(pod_selector=labels_selector({"app": CLIENT}))
    cluster = Cluster(
        namespaces={"app": Namespace("app")},
        pods=(
            Pod("app", SERVER, {"app": SERVER}, ips=(addresses[SERVER],), node=NODE),
            Pod("app", CLIENT, {"app": CLIENT}, ips=(addresses[CLIENT],), node=NODE),
        ),
        policies=tuple(
            NetworkPolicy(
                "app",
                f"p{port:05}",
                labels_selector({"app": SERVER}),
                ingress=(Rule((client,), (PolicyPort(protocol, port),)),),
            )
            for port in range(1, policies + 1)
        ),
    )
    return compile_tables(cluster, NODE, interfaces)


class _ProgramLoad(ctypes.Structure):
    """The first fields of bpf_attr for BPF_PROG_LOAD."""

    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log", ctypes.c_uint64 * 2),
    )


@contextmanager
def _empty_program() -> Iterator[int]:
    code, licence = ctypes.create_string_buffer(EMPTY, len(EMPTY)), ctypes.c_char_p(b"GPL")
    request = _ProgramLoad(
        prog_type=SCHED_CLS,
        insn_cnt=len(EMPTY) // 8,
        insns=ctypes.addressof(code),
        license=ctypes.cast(licence, ctypes.c_void_p).value or 0,
    )
    size = ctypes.sizeof(request)
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    descriptor = syscall(SYS_BPF, PROG_LOAD, ctypes.byref(request), size)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "BPF_PROG_LOAD of the empty program")
    try:
        yield descriptor
    finally:
        os.close(descriptor)
