"""Conversations between pods that never pause: every question that gets no answer is counted.

Each is one UDP socket and one TCP connection an address family; a connection that is cut is opened
again, and each attempt that fails counts as well.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping

from lab import netns
from lab.journal import Sandbox
from tests.testbed.waiting import eventually, patience

PORT = 9000
ANSWER_SECONDS = 2.0
PAUSE_SECONDS = 0.01
ROUNDS = 15
"""Answers after a change that tell that a line is open."""


class Line:
    """Questions of one kind over one address family, one after the other, and how they fared."""

    def __init__(self, source: Sandbox, address: str) -> None:
        self._source = source
        self._family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.address = address
        self.answered = 0
        self.lost = 0

    def ask(self, question: bytes) -> None:
        """OSError when no answer comes."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def run(self, ended: threading.Event) -> None:
        number = 0
        while not ended.wait(PAUSE_SECONDS):
            number += 1
            try:
                self.ask(number.to_bytes(8))
            except OSError:
                self.lost += 1
            else:
                self.answered += 1

    def open(self, kind: socket.SocketKind) -> socket.socket:
        with netns.inside(self._source.netns):
            made = socket.socket(self._family, kind)
        made.settimeout(patience(ANSWER_SECONDS))
        return made


class Datagrams(Line):
    """One UDP socket."""

    def __init__(self, source: Sandbox, address: str) -> None:
        super().__init__(source, address)
        self._socket = self.open(socket.SOCK_DGRAM)
        self._socket.connect((address, PORT))

    def ask(self, question: bytes) -> None:
        self._socket.send(question)
        while self._socket.recv(8) != question:
            continue  # of a question that was given up

    def close(self) -> None:
        self._socket.close()


class Stream(Line):
    """One TCP connection, opened again whenever it is cut."""

    _socket: socket.socket | None = None

    def ask(self, question: bytes) -> None:
        if self._socket is None:
            opened = self.open(socket.SOCK_STREAM)
            try:
                opened.connect((self.address, PORT))
            except OSError:
                opened.close()
                raise
            self._socket = opened
        try:
            self._socket.sendall(question)
            if self._socket.recv(8) != question:
                raise ConnectionResetError("cut")
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Conversation:
    """From one pod to another, until `end`: IPv4 and IPv6, datagrams and a stream."""

    def __init__(self, source: Sandbox, destination: Sandbox) -> None:
        kinds = (Datagrams, Stream)
        self.lines = [kind(source, at) for at in destination.addresses for kind in kinds]
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=line.run, args=(self._ended,), daemon=True)
            for line in self.lines
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(2 * patience(ANSWER_SECONDS))
        for line in self.lines:
            line.close()

    def lost(self) -> int:
        """Questions that got no answer so far."""
        return sum(line.lost for line in self.lines)


@contextlib.contextmanager
def echoing(pod: Sandbox) -> Iterator[None]:
    """Whatever comes to PORT of a pod goes back, for as long as the block runs."""
    ended = threading.Event()
    with netns.inside(pod.netns):
        datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        listener = socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True)
    datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    datagrams.bind(("::", PORT))
    opened: list[socket.socket] = []

    def answer_datagrams() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):
                data, sender = datagrams.recvfrom(64)
                if sender is not None:  # none: the socket is shut down
                    datagrams.sendto(data, sender)

    def answer(stream: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := stream.recv(64):
                stream.sendall(data)

    def accept() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):
                stream, _ = listener.accept()
                opened.append(stream)
                threading.Thread(target=answer, args=(stream,), daemon=True).start()

    for work in (answer_datagrams, accept):
        threading.Thread(target=work, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        for each in (datagrams, listener, *opened):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def unanswered(conversations: Mapping[str, Conversation]) -> dict[str, int]:
    """Questions of each that got no answer so far."""
    return {name: each.lost() for name, each in conversations.items()}


def settled(conversations: Mapping[str, Conversation]) -> dict[str, bool]:
    """Whether each gets answers now: ROUNDS on each line, or two without, have told."""
    every = [line for each in conversations.values() for line in each.lines]
    asked = [line.answered + line.lost for line in every]
    # A question that was asked before tells nothing of now.
    over = lambda: all(one.answered + one.lost > n for one, n in zip(every, asked, strict=True))  # noqa: E731
    eventually(over, "earlier questions are over", 30)
    lines = [(line, line.answered, line.lost) for line in every]

    def heard() -> bool:
        return all(
            line.answered - answered >= ROUNDS or line.lost - gone >= 2
            for line, answered, gone in lines
        )

    before = unanswered(conversations)
    eventually(heard, "questions are answered, or not", 60)
    after = unanswered(conversations)
    return {name: after[name] == before[name] for name in conversations}
