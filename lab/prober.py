"""Real connections between pods: who reaches whom, found out by sending packets through the kernel.

Every probe is a socket made in the source pod's network namespace: TCP connects and waits for the
answer, UDP sends (and repeats) a datagram and waits for the echo. All probes of a batch run at once
in one event loop; a probe without an answer in time was dropped. Where nothing listens the prober
answers for the destination itself, so it needs no other process. A refused connection (RST, ICMP
port unreachable) means the packet arrived.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import selectors
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lab import netns
from lab.responder import TYPES, Responder, Site, raise_file_limit, turn

SILENCE_SECONDS = 1.0
"""How long a probe waits for an answer. Answers come within milliseconds; the rest is for a busy
machine.
"""
BATCH = 2000
UDP_REPEAT_SECONDS = 0.3
TURN_SECONDS = 0.05
QUESTION = b"who\n"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER of 0 s: thousands of probes leave no TIME_WAIT behind."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One question. `site` is who has to answer, in which network namespace, and on what declared
    ports.
    """

    source_netns: str
    destination: Site
    address: str
    protocol: str
    port: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came back. The addresses tell the probe's packets from all others in the kernel's flow
    events.
    """

    arrived: bool
    source_address: str = ""
    source_port: int = 0


class _Attempt:
    """One probe under way."""

    def __init__(self, probe: Probe, selector: selectors.BaseSelector) -> None:
        self.probe = probe
        self.done = False
        self.outcome = Outcome(arrived=False)
        self._selector = selector
        self._socket = _socket_for(probe)
        self._asked = False

    def begin(self) -> None:
        """Send the first packet; has to run in the source's network namespace."""
        code = self._socket.connect_ex((self.probe.address, self.probe.port))
        if code not in (0, errno.EINPROGRESS):
            self._finish(arrived=code == errno.ECONNREFUSED)
            return
        if self.probe.protocol == "UDP":
            self.repeat()
        events = selectors.EVENT_READ
        if self.probe.protocol == "TCP":
            events |= selectors.EVENT_WRITE
        if not self.done:
            self._selector.register(self._socket, events, self._ready)

    def repeat(self) -> None:
        """Ask again over UDP, which is not retransmitted."""
        if not self.done and self.probe.protocol == "UDP":
            try:
                self._socket.send(QUESTION)
            except BlockingIOError:
                pass  # the queue is full: the next repetition will do
            except OSError as error:
                self._finish(arrived=error.errno == errno.ECONNREFUSED)

    def give_up(self) -> None:
        """The time is over. An established connection has arrived even without data."""
        if not self.done:
            self._finish(arrived=self._asked)

    def _ready(self) -> None:
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._finish(arrived=code == errno.ECONNREFUSED)
            return
        try:
            if self.probe.protocol == "TCP" and not self._asked:
                self._socket.send(QUESTION)
                self._asked = True
                self._selector.modify(self._socket, selectors.EVENT_READ, self._ready)
                return
            self._socket.recv(512)
        except BlockingIOError:
            return
        except OSError as error:
            self._finish(arrived=self._asked or error.errno == errno.ECONNREFUSED)
            return
        self._finish(arrived=True)

    def _finish(self, *, arrived: bool) -> None:
        self.done = True
        address, port = _local_end(self._socket)
        self.outcome = Outcome(arrived, address, port)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(self._socket)
        self._socket.close()


def run(probes: Sequence[Probe], silence: float = SILENCE_SECONDS) -> list[Outcome]:
    """The outcome of each probe, in the order of the questions."""
    size = min(BATCH, max(64, raise_file_limit() // 4))
    return [
        outcome
        for start in range(0, len(probes), size)
        for outcome in _run_batch(probes[start : start + size], silence)
    ]


def _run_batch(probes: Sequence[Probe], silence: float) -> Iterator[Outcome]:
    with selectors.DefaultSelector() as selector:
        substitute = Responder(selector)
        substitute.serve(_sites(probes))
        attempts = _begin(probes, selector)
        deadline = time.monotonic() + silence
        repetition = time.monotonic() + UDP_REPEAT_SECONDS
        while not all(attempt.done for attempt in attempts):
            turn(selector, TURN_SECONDS)
            now = time.monotonic()
            if now >= deadline:
                break
            if now >= repetition:
                repetition = now + UDP_REPEAT_SECONDS
                for attempt in attempts:
                    attempt.repeat()
        for attempt in attempts:
            attempt.give_up()
            yield attempt.outcome
        substitute.close()


def _begin(probes: Sequence[Probe], selector: selectors.BaseSelector) -> list[_Attempt]:
    """All attempts in the order of the probes, begun one network namespace after the other."""
    attempts: dict[int, _Attempt] = {}
    by_netns = defaultdict(list)
    for number, probe in enumerate(probes):
        by_netns[probe.source_netns].append((number, probe))
    for name, numbered in by_netns.items():
        with netns.inside(name):
            for number, probe in numbered:
                attempts[number] = _Attempt(probe, selector)
                attempts[number].begin()
        turn(selector, 0)
    return [attempts[number] for number in range(len(probes))]


def _sites(probes: Sequence[Probe]) -> Iterator[Site]:
    """Every destination with the ports that are asked for; those that have a listener refuse a
    second.
    """
    ports = defaultdict(set)
    for probe in probes:
        ports[probe.destination.name, probe.destination.netns].add((probe.protocol, probe.port))
    for (name, where), asked in ports.items():
        yield Site(name, where, tuple(sorted(asked)))


def _socket_for(probe: Probe) -> socket.socket:
    version = ipaddress.ip_address(probe.address).version
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    made = socket.socket(family, TYPES[probe.protocol] | socket.SOCK_NONBLOCK)
    if probe.protocol == "TCP":
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    return made


def _local_end(of: socket.socket) -> tuple[str, int]:
    try:
        name = of.getsockname()
    except OSError:
        return "", 0
    return str(name[0]), int(name[1])
