"""The prober and the responder on bare network namespaces, without any program of ours."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest

from generators.errors import Refused
from lab import netns, network, prober, processes
from lab.names import NODE_ADDRESSES, Places, Wire, places
from lab.prober import Probe
from lab.processes import Process
from lab.responder import ResponderFailed, Site, announce
from tests.testbed.waiting import eventually

pytestmark = pytest.mark.bpf

ADDRESSES = {
    "a/one": ("10.244.1.2", "fd00:10:244::2"),
    "a/two": ("10.244.1.3", "fd00:10:244::3"),
    "b/old": ("10.244.1.4",),
}
BOTH = pytest.mark.parametrize("protocol", ["TCP", "UDP"])


@pytest.fixture(scope="module")
def wires() -> Iterator[dict[str, Wire]]:
    """A node and three pods, connected."""
    lab = places(f"p-{token_hex(4)}")
    made = {key: _wire(lab, key, addresses) for key, addresses in ADDRESSES.items()}
    names = [lab.node_netns, *(wire.netns for wire in made.values())]
    try:
        for name in names:
            netns.create(name)
        network.prepare_node(lab.node_netns)
        for wire in made.values():
            network.add_pod(lab.node_netns, wire)
            network.connect_pod(lab.node_netns, wire)
        yield made
    finally:
        for name in names:
            netns.remove(name)


def _wire(lab: Places, key: str, addresses: tuple[str, ...]) -> Wire:
    namespace, pod = key.split("/")
    return Wire(lab.pod_netns(namespace, pod), lab.interface(namespace, pod), addresses)


def probe(
    wires: dict[str, Wire], source: str, address: str, protocol: str, port: int = 80
) -> Probe:
    target = next((key for key, ips in ADDRESSES.items() if address in ips), "a/two")
    site = Site(target, wires[target].netns, ())
    return Probe(wires[source].netns, site, address, protocol, port)


@BOTH
def test_pods_reach_each_other_and_themselves_over_both_families(
    wires: dict[str, Wire], protocol: str
) -> None:
    asked = [
        probe(wires, source, address, protocol)
        for source in ADDRESSES
        for addresses in ADDRESSES.values()
        for address in addresses
        if not (source == "b/old" and ":" in address)
    ]
    assert all(outcome.arrived for outcome in prober.run(asked))


@BOTH
def test_silence_is_a_drop_and_takes_no_longer_than_allowed(
    wires: dict[str, Wire], protocol: str
) -> None:
    rules = "add table ip t\nadd chain ip t c { type filter hook input priority 0; }\n"
    rules += f"add rule ip t c {protocol.lower()} dport 4444 drop\n"
    with netns.inside(wires["a/two"].netns):
        subprocess.run(["/usr/sbin/nft", "-f", "-"], input=rules, text=True, check=True)
    try:
        begun = time.monotonic()
        dropped, passed = prober.run(
            [probe(wires, "a/one", "10.244.1.3", protocol, port) for port in (4444, 4445)],
            silence=0.4,
        )
        assert (dropped.arrived, passed.arrived) == (False, True)
        assert dropped.source_address == "10.244.1.2"
        assert time.monotonic() - begun >= 0.4
    finally:
        with netns.inside(wires["a/two"].netns):
            subprocess.run(["/usr/sbin/nft", "flush", "ruleset"], check=True)


@BOTH
def test_a_refused_connection_has_arrived(wires: dict[str, Wire], protocol: str) -> None:
    nobody = Probe(
        wires["a/one"].netns,
        Site("a/one", wires["a/one"].netns, ()),  # the prober listens there, not at a/two
        "10.244.1.3",
        protocol,
        4711,
    )
    (outcome,) = prober.run([nobody])
    assert outcome.arrived


@BOTH
def test_an_address_of_nobody_is_not_reached(wires: dict[str, Wire], protocol: str) -> None:
    asked = [probe(wires, "a/one", a, protocol) for a in ("10.244.9.9", "fd00:10:244::99")]
    assert not any(outcome.arrived for outcome in prober.run(asked, silence=0.3))


def test_every_probe_has_an_own_source_port(wires: dict[str, Wire]) -> None:
    asked = [probe(wires, "a/one", "10.244.1.3", "TCP") for _ in range(50)]
    assert len({outcome.source_port for outcome in prober.run(asked)}) == 50


def test_pods_reach_their_node_and_the_node_them(wires: dict[str, Wire]) -> None:
    node = wires["a/one"].netns.rsplit(".", 2)[0]
    there = [
        Probe(wires["a/one"].netns, Site("node", node, ()), address, "TCP", 80)
        for address in NODE_ADDRESSES
    ]
    back = Probe(node, Site("a/one", wires["a/one"].netns, ()), "10.244.1.2", "TCP", 80)
    assert all(outcome.arrived for outcome in prober.run([*there, back]))


@pytest.fixture
def responder(tmp_path: Path) -> Iterator[Path]:
    """The responder process, as `lab up` starts it."""
    control = tmp_path / "responder.sock"
    started: list[Process] = []
    command = (sys.executable, "-m", "lab.responder", str(control))
    processes.start(
        "responder", command, tmp_path / "log", started.append, Path(__file__).parents[2]
    )
    eventually(control.exists, "the responder listens")
    yield control
    processes.end(started)


def ask(wire: Wire, address: str, question: bytes) -> bytes:
    with netns.inside(wire.netns), socket.create_connection((address, 80), 5) as connection:
        connection.sendall(question)
        return b"".join(iter(lambda: connection.recv(512), b""))


def test_the_responder_answers_with_the_pod_s_name_also_to_curl(
    wires: dict[str, Wire], responder: Path
) -> None:
    announce(responder, [Site("a/two", wires["a/two"].netns, (("TCP", 80), ("UDP", 53)))])
    assert ask(wires["a/one"], "10.244.1.3", b"who\n") == b"a/two\n"
    assert ask(wires["a/one"], "fd00:10:244::3", b"who\n") == b"a/two\n"
    page = ask(wires["a/one"], "10.244.1.3", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert page.startswith(b"HTTP/1.1 200 OK\r\n")
    assert page.endswith(b"\r\n\r\na/two\n")
    page = ask(wires["a/one"], "10.244.1.3", b"PUT /v1/x?y=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert page.endswith(b"\r\n\r\na/two: PUT /v1/x?y=1 from 10.244.1.2\n")


def test_the_responder_waits_for_the_whole_of_a_request(
    wires: dict[str, Wire], responder: Path
) -> None:
    announce(responder, [Site("a/two", wires["a/two"].netns, (("TCP", 80),))])
    pieces = (b"POST /a HT", b"TP/1.1\r\nContent-Length: 5\r\n", b"\r\nab", b"cde")
    with (
        netns.inside(wires["a/one"].netns),
        socket.create_connection(("10.244.1.3", 80), 5) as connection,
    ):
        for piece in pieces:
            connection.sendall(piece)
        page = b"".join(iter(lambda: connection.recv(512), b""))
    assert page.endswith(b"a/two: POST /a from 10.244.1.2\n")


def test_the_responder_leaves_pods_that_are_no_longer_announced(
    wires: dict[str, Wire], responder: Path
) -> None:
    announce(responder, [Site("a/two", wires["a/two"].netns, (("TCP", 80),))])
    announce(responder, [])
    with pytest.raises(ConnectionRefusedError):
        ask(wires["a/one"], "10.244.1.3", b"who\n")


def test_a_pod_that_is_not_there_is_an_error_and_the_responder_lives(
    wires: dict[str, Wire], responder: Path
) -> None:
    with pytest.raises(ResponderFailed, match="cannot listen"):
        announce(responder, [Site("x/y", "no-such-netns", (("TCP", 80),))])
    announce(responder, [Site("a/two", wires["a/two"].netns, (("TCP", 80),))])
    assert ask(wires["a/one"], "10.244.1.3", b"who\n") == b"a/two\n"


def test_a_responder_that_is_away_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ResponderFailed, match="ringfence lab up"):
        announce(tmp_path / "nothing.sock", [])


def test_a_name_that_is_taken_is_never_taken_over(wires: dict[str, Wire]) -> None:
    with pytest.raises(Refused, match="ip netns delete"):
        netns.create(wires["a/one"].netns)


def test_inside_returns_also_after_an_error(wires: dict[str, Wire]) -> None:
    def where() -> Path:
        return Path("/proc/thread-self/ns/net").readlink()

    def fail_inside() -> None:
        with netns.inside(wires["a/one"].netns):
            assert where() != here
            raise ZeroDivisionError

    here = where()
    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert where() == here
