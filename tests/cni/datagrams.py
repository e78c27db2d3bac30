"""Datagrams between network namespaces, with any source: which of many arrive."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lab import netns

PORT = 9001
IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75
PATIENCE = 30.0
SILENCE = 0.25
TOKEN_SIZE = 64


@dataclass(frozen=True, slots=True)
class Datagram:
    """What one network namespace sends; `name` is its payload."""

    name: str
    sender: str
    source: str
    destination: str

    def send(self) -> None:
        """From whatever address it says, as root may."""
        six = ":" in self.source
        with netns.inside(self.sender):
            opened = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
        with opened:
            level, option = (
                (socket.IPPROTO_IPV6, IPV6_TRANSPARENT)
                if six
                else (socket.IPPROTO_IP, IP_TRANSPARENT)
            )
            opened.setsockopt(level, option, 1)
            opened.bind((self.source, 0))
            opened.sendto(self.name.encode(), (self.destination, PORT))


class Listeners:
    """Sockets in many network namespaces."""

    def __init__(self) -> None:
        self._ready = selectors.DefaultSelector()
        self._heard: set[str] = set()

    def open(self, name: str, addresses: Iterable[str]) -> None:
        """Listen in one network namespace, on each of its addresses."""
        for address in addresses:
            kind = socket.AF_INET6 if ":" in address else socket.AF_INET
            with netns.inside(name):
                opened = socket.socket(kind, socket.SOCK_DGRAM)
            opened.bind((address, PORT))
            self._ready.register(opened, selectors.EVENT_READ)

    def close(self) -> None:
        """All of them."""
        for key in list(self._ready.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._ready.close()

    def arrived(self, sent: Collection[Datagram], expected: Collection[str]) -> set[str]:
        """Which of these arrive, by name: waits for those that should, a moment for the others."""
        self._heard.clear()
        deadline = time.monotonic() + PATIENCE
        while True:
            for datagram in sent:
                datagram.send()
            self._hear(SILENCE)
            if self._heard >= set(expected) or time.monotonic() > deadline:
                return {*self._heard} & {datagram.name for datagram in sent}

    def _hear(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for key, _ in self._ready.select(left):
                assert isinstance(key.fileobj, socket.socket)
                self._heard.add(key.fileobj.recv(TOKEN_SIZE).decode())


@contextmanager
def listening() -> Iterator[Listeners]:
    """Listeners that are closed at the end."""
    opened = Listeners()
    try:
        yield opened
    finally:
        opened.close()
