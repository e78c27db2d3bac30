"""What an ICMP error quotes of TCP: the receiver's kernel compares the sequence number.

The programs let an error pass whose sender can know; they keep no sequence numbers. So an error
from a router outside of the cluster reaches the socket that it names, and does something to it only
when it quotes what is on its way.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from enforcer.policy.tables import EndpointFlag
from lab.netns import inside
from tests.enforcer.datapath.pods import (
    FAMILIES,
    PORT,
    Cluster,
    Pod,
    calling,
    command,
    connected,
    give,
    listen,
)
from tests.testbed.waiting import eventually, patience

pytestmark = pytest.mark.bpf

HEADERS: dict[int, type[Packet]] = {4: IP, 6: IPv6}
WORLD = {4: "192.0.2.9", 6: "2001:db8::9"}
SILENT = {4: "192.0.2.10", 6: "2001:db8::10"}
"""An address outside that nobody answers for."""
ROUTER = {4: "192.0.2.1", 6: "2001:db8::1"}
OUTSIDE = {4: "192.0.2.0/24", 6: "2001:db8::/64"}
SMALL = {4: 600, 6: 1280}
IP_LEVEL = {4: socket.IPPROTO_IP, 6: socket.IPPROTO_IPV6}
RECEIVE_ERRORS, PATH_MTU = {4: 11, 6: 25}, {4: 14, 6: 24}
SENT = b"x"
WRONG = (-1, 3, 1 << 16, 1 << 31)
"""How far beside the first sequence number: before all, behind all, and where half of them are."""
EVERY_PROTOCOL = 3


@dataclass(frozen=True, slots=True)
class Victim:
    """A TCP socket of a confined pod, and what it needs to be struck."""

    pod: Pod
    attacker: Pod
    family: int
    call: socket.socket
    remote: str
    first: int
    """The sequence number of its SYN."""

    def struck(self, error: Packet, offset: int) -> None:
        """Have a router complain about the segment so far behind the first."""
        header, own = HEADERS[self.family], self.pod.address[self.family]
        segment = TCP(
            sport=self.call.getsockname()[1], dport=PORT, seq=(self.first + offset) % (1 << 32)
        )
        quoted = Raw(bytes(header(src=own, dst=self.remote) / segment))
        packet = bytes(header(src=ROUTER[self.family], dst=own) / error / quoted)
        with inside(self.attacker.namespace):
            out = socket.socket(FAMILIES[self.family], socket.SOCK_RAW, socket.IPPROTO_RAW)
        with out:
            out.sendto(packet, (own, 0))

    def refused_quotes(self) -> int:
        """How many errors the pod's kernel found to be out of the window."""
        with inside(self.pod.namespace):
            text = Path("/proc/thread-self/net/netstat").read_text()
        names, values = (line.split() for line in text.splitlines() if line.startswith("TcpExt:"))
        return int(values[names.index("OutOfWindowIcmps")])

    def path_mtu(self) -> int:
        """What the socket believes that fits to the other end."""
        return self.call.getsockopt(IP_LEVEL[self.family], PATH_MTU[self.family])

    def error(self) -> int:
        """What became of the socket; 0: nothing."""
        return self.call.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


@pytest.fixture
def outside(cluster: Cluster, client: Pod, server: Pod) -> Pod:
    """Who may send whatever it likes in the name of addresses outside of the cluster."""
    cluster.enforce({server.number: EndpointFlag.ISOLATED_INGRESS})
    with inside(cluster.node):
        for scope in ("all", client.interface):
            Path(f"/proc/sys/net/ipv4/conf/{scope}/rp_filter").write_text("0")
    for family, prefix in OUTSIDE.items():
        give(client.namespace, "eth0", WORLD[family])
        via = ("via", client.address[family], "dev", client.interface, "onlink")
        command("ip", "-n", cluster.node, f"-{family}", "route", "add", prefix, *via)
    return client


@contextmanager
def begun(pod: Pod, attacker: Pod, family: int, remote: str) -> Iterator[Victim]:
    """A socket of the pod that has sent its SYN."""
    with inside(attacker.namespace):
        heard = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERY_PROTOCOL))
    heard.bind(("eth0", EVERY_PROTOCOL))
    heard.setblocking(False)
    with heard, calling(pod.namespace, family, remote) as call:
        first = eventually(lambda: syn(heard, call), "the SYN")
        assert first is not None
        yield Victim(pod, attacker, family, call, remote, first)


def syn(heard: socket.socket, call: socket.socket) -> int | None:
    """The sequence number of a socket's SYN, as soon as it has come by."""
    try:
        frame = Ether(heard.recv(2048))
    except BlockingIOError:
        return None
    if TCP not in frame or frame[TCP].sport != call.getsockname()[1]:
        return None
    return int(frame[TCP].seq)


@contextmanager
def talking(pod: Pod, attacker: Pod, family: int) -> Iterator[Victim]:
    """A connection on which one byte was sent and taken, and which tells of errors."""
    with (
        listen(attacker.namespace, family, socket.SOCK_STREAM) as listening,
        begun(pod, attacker, family, WORLD[family]) as victim,
    ):
        assert connected(victim.call)
        victim.call.setsockopt(IP_LEVEL[family], RECEIVE_ERRORS[family], 1)
        listening.settimeout(patience(10))
        accepted, _ = listening.accept()
        with accepted:
            accepted.settimeout(patience(10))
            victim.call.sendall(SENT)
            assert accepted.recv(16) == SENT
            yield victim


def strikes(victim: Victim, error: Packet, right: int, felt: Callable[[], bool]) -> None:
    """What quotes another segment reaches the socket and does nothing; the right one does."""
    before = victim.refused_quotes()
    for offset in WRONG:
        victim.struck(error, offset)
    wanted = before + len(WRONG)
    eventually(lambda: victim.refused_quotes() == wanted, "all of them have arrived")
    assert not felt()
    victim.struck(error, right)
    eventually(felt, "what is on its way is believed")
    assert victim.refused_quotes() == wanted


def too_big(family: int) -> Packet:
    """Smaller packets, please."""
    if family == 4:
        return ICMP(type=3, code=4, nexthopmtu=SMALL[4])
    return ICMPv6PacketTooBig(mtu=SMALL[6])


def refused(family: int) -> Packet:
    """There is nobody on that port."""
    return ICMP(type=3, code=3) if family == 4 else ICMPv6DestUnreach(code=4)


def test_the_path_mtu_follows_no_quote_out_of_the_window(
    outside: Pod, server: Pod, family: int
) -> None:
    with talking(server, outside, family) as victim:
        assert victim.path_mtu() > SMALL[family]
        strikes(victim, too_big(family), 2, lambda: victim.path_mtu() == SMALL[family])


def test_an_open_connection_fails_by_no_quote_out_of_the_window(
    outside: Pod, server: Pod, family: int
) -> None:
    with talking(server, outside, family) as victim:
        strikes(victim, refused(family), 2, lambda: victim.error() == errno.ECONNREFUSED)


def test_a_connection_that_begins_fails_by_no_quote_out_of_the_window(
    outside: Pod, server: Pod, family: int
) -> None:
    with begun(server, outside, family, SILENT[family]) as victim:
        strikes(victim, refused(family), 0, lambda: victim.error() == errno.ECONNREFUSED)
