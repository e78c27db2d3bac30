"""Traffic that runs while something breaks: what is lost of good connections, what leaks in.

The pod `t1/a` is isolated from everybody, but it talks all the time with `t2/b`, over UDP and TCP
connections that it opened itself: their answers pass by tracked connections alone. A stranger
`t3/c` sends it datagrams without pause; each that arrives is a leak.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from lab import netns
from tests.enforcer.node import Node
from tests.testbed.waiting import patience

ECHO_PORT, GUARDED_PORT = 9000, 9001
PATIENCE_SECONDS = 2.0
"""An answer that takes longer is lost."""
PAUSE_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays which part."""

    isolated: str
    friend: str
    stranger: str


PODS = Cast("t1/a", "t2/b", "t3/c")


@dataclass(slots=True)
class Tally:
    """What the threads have counted; read it after the end."""

    answered: int = 0
    lost: list[str] = field(default_factory=list)
    sent_by_stranger: int = 0
    leaked: int = 0


class Traffic:
    """All flows between `started` and its end."""

    def __init__(self, node: Node, family: int = 4, cast: Cast = PODS) -> None:
        self._node = node
        self._cast = cast
        self._family = family
        self._stop = threading.Event()
        self._sockets: list[socket.socket] = []
        self.tally = Tally()
        self._moved = threading.Condition()

    def _open(self, pod: str, kind: socket.SocketKind, port: int = 0) -> socket.socket:
        family = socket.AF_INET if self._family == 4 else socket.AF_INET6
        with netns.inside(self._node.wires[pod].netns):
            made = socket.socket(family, kind)
        made.bind((self._address(pod), port))
        made.settimeout(PATIENCE_SECONDS)
        self._sockets.append(made)
        return made

    def _address(self, pod: str) -> str:
        return self._node.wires[pod].addresses[0 if self._family == 4 else 1]

    @contextmanager
    def started(self) -> Iterator[Self]:
        """Run all flows; returns when each has been answered once, ends them at the end."""
        threads = [threading.Thread(target=flow, daemon=True) for flow in self._flows()]
        for thread in threads:
            thread.start()
        try:
            self.wait_for_more(20)
            yield self
            self.wait_for_more(50)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(2 * PATIENCE_SECONDS)
            for opened in self._sockets:
                opened.close()

    def wait_for_more(self, answers: int) -> None:
        """Return when so many more answers have come; AssertionError where nothing comes."""
        wanted = self.tally.answered + answers
        with self._moved:
            came = self._moved.wait_for(lambda: self.tally.answered >= wanted, timeout=patience(30))
        assert came, f"no answers any more: {self.tally}"

    def _flows(self) -> list[Callable[[], None]]:
        echo = self._open(self._cast.friend, socket.SOCK_DGRAM, ECHO_PORT)
        asking = self._open(self._cast.isolated, socket.SOCK_DGRAM)
        asking.connect((self._address(self._cast.friend), ECHO_PORT))
        listener = self._open(self._cast.friend, socket.SOCK_STREAM, ECHO_PORT)
        listener.listen()
        calling = self._open(self._cast.isolated, socket.SOCK_STREAM)
        calling.connect((self._address(self._cast.friend), ECHO_PORT))
        answering, _ = listener.accept()
        answering.settimeout(PATIENCE_SECONDS)
        self._sockets.append(answering)
        guarded = self._open(self._cast.isolated, socket.SOCK_DGRAM, GUARDED_PORT)
        stranger = self._open(self._cast.stranger, socket.SOCK_DGRAM)
        return [
            lambda: self._echo(echo),
            lambda: self._ask("UDP", asking),
            lambda: self._echo(answering),
            lambda: self._ask("TCP", calling),
            lambda: self._intrude(stranger),
            lambda: self._guard(guarded),
        ]

    def _echo(self, server: socket.socket) -> None:
        while not self._stop.is_set():
            try:
                data, sender = server.recvfrom(64)
                if server.type is socket.SOCK_STREAM:
                    server.sendall(data)
                else:
                    server.sendto(data, sender)
            except TimeoutError:
                continue
            except OSError:
                return

    def _ask(self, what: str, client: socket.socket) -> None:
        number = 0
        while not self._stop.wait(PAUSE_SECONDS):
            number += 1
            question = number.to_bytes(8)
            try:
                client.sendall(question)
                while client.recv(8) != question:
                    continue  # of a question that was given up
            except OSError as error:
                if not self._stop.is_set():
                    self.tally.lost.append(f"{what} {number}: {error}")
                continue
            with self._moved:
                self.tally.answered += 1
                self._moved.notify_all()

    def _intrude(self, stranger: socket.socket) -> None:
        while not self._stop.wait(PAUSE_SECONDS):
            stranger.sendto(b"let me in", (self._address(self._cast.isolated), GUARDED_PORT))
            self.tally.sent_by_stranger += 1

    def _guard(self, guarded: socket.socket) -> None:
        while not self._stop.is_set():
            try:
                guarded.recvfrom(64)
            except TimeoutError:
                continue
            except OSError:
                return
            self.tally.leaked += 1


def unharmed(tally: Tally) -> bool:
    """Whether nothing was lost and nothing got in, and there was something to lose."""
    return not tally.lost and not tally.leaked and tally.answered > 0 and tally.sent_by_stranger > 0
