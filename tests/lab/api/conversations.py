"""Conversations between pods that never pause: every question that gets no answer is counted.

Each is one UDP socket and one TCP connection that stays open; a connection that is cut is opened
again, and each attempt that fails counts as well.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping

from enforcer.lab import netns
from enforcer.lab.api.journal import Sandbox
from tests.testbed.waiting import eventually, patience

PORT = 9000
ANSWER_SECONDS = 2.0
PAUSE_SECONDS = 0.01
ROUNDS = 15
"""Questions after a change that tell how a conversation fares."""


class Conversation:
    """From one pod to another, until `end`."""

    def __init__(self, source: Sandbox, destination: Sandbox) -> None:
        self._source = source
        self._address = next(a for a in destination.addresses if ":" not in a)
        self._ended = threading.Event()
        self.answered = 0
        self.lost = 0
        self._datagrams = self._socket(socket.SOCK_DGRAM)
        self._datagrams.connect((self._address, PORT))
        self._stream: socket.socket | None = None
        self._threads = [
            threading.Thread(target=self._run, args=(ask,), daemon=True)
            for ask in (self._by_datagram, self._by_stream)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(2 * patience(ANSWER_SECONDS))
        for opened in (self._datagrams, self._stream):
            if opened is not None:
                opened.close()

    def _socket(self, kind: socket.SocketKind) -> socket.socket:
        with netns.inside(self._source.netns):
            made = socket.socket(socket.AF_INET, kind)
        made.settimeout(patience(ANSWER_SECONDS))
        return made

    def _run(self, ask: object) -> None:
        assert callable(ask)
        number = 0
        while not self._ended.wait(PAUSE_SECONDS):
            number += 1
            try:
                ask(number.to_bytes(8))
            except OSError:
                self.lost += 1
            else:
                self.answered += 1

    def _by_datagram(self, question: bytes) -> None:
        self._datagrams.send(question)
        while self._datagrams.recv(8) != question:
            continue  # of a question that was given up

    def _by_stream(self, question: bytes) -> None:
        if self._stream is None:
            opened = self._socket(socket.SOCK_STREAM)
            try:
                opened.connect((self._address, PORT))
            except OSError:
                opened.close()
                raise
            self._stream = opened
        try:
            self._stream.sendall(question)
            answer = self._stream.recv(8)
            if answer != question:
                raise ConnectionResetError("cut")
        except OSError:
            self._stream.close()
            self._stream = None
            raise


@contextlib.contextmanager
def echoing(pod: Sandbox) -> Iterator[None]:
    """Whatever comes to PORT of a pod goes back, for as long as the block runs."""
    ended = threading.Event()
    with netns.inside(pod.netns):
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listener = socket.create_server(("0.0.0.0", PORT))  # noqa: S104 - in the pod's network
    datagrams.bind(("0.0.0.0", PORT))  # noqa: S104
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


def counted(conversations: Mapping[str, Conversation]) -> dict[str, tuple[int, int]]:
    """Answered and lost so far."""
    return {name: (c.answered, c.lost) for name, c in conversations.items()}


def settled(conversations: Mapping[str, Conversation]) -> dict[str, bool]:
    """Whether each gets answers now, once ROUNDS questions, or two without answer, have told."""
    before = counted(conversations)

    def heard() -> bool:
        return all(
            now.answered - before[name][0] >= ROUNDS or now.lost - before[name][1] >= 2 * 2
            for name, now in conversations.items()
        )

    eventually(heard, "questions are answered, or not", 60)
    after = counted(conversations)
    return {name: after[name][1] == before[name][1] for name in conversations}
