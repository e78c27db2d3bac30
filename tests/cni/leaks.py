"""Counts what gets through to a new pod: a sender that never stops, and what the pod could read.

Each datagram carries the time at which it was sent, by the clock that all processes of a machine
share, so that what was sent before a moment can be told from what was sent after it.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lab import netns
from lab.names import Wire
from tests.testbed.waiting import eventually, patience

PORT = 9000
PAUSE = 0.0002
STAMP = struct.Struct("=d")


@dataclass(slots=True)
class Flood:
    """Datagrams to one pod."""

    sent: list[float] = field(default_factory=list)
    arrived: list[float] = field(default_factory=list)
    """When those that the pod could read were sent."""

    def go_on(self, seconds: float = 0.2) -> float:
        """Wait until more was sent for so long; when that began."""
        moment = time.monotonic()
        sends = f"the sender sends for {seconds} s"
        eventually(lambda: self.sent and self.sent[-1] >= moment + seconds, sends, poll=PAUSE)
        return moment

    def since(self, moment: float) -> int:
        """How many that were sent after a moment came through."""
        return sum(1 for at in self.arrived if at > moment)


@contextmanager
def flooding(source: Wire, destination: Wire) -> Iterator[Flood]:
    """Send from one pod to another until the block ends, and read what arrives."""
    flood, stop = Flood(), threading.Event()
    with netns.inside(destination.netns):
        reader = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        reader.bind(("0.0.0.0", PORT))  # noqa: S104  # the address may come later
    with netns.inside(source.netns):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    reader.settimeout(0.2)

    def send() -> None:
        while not stop.is_set():
            now = time.monotonic()
            try:
                sender.sendto(STAMP.pack(now), (destination.addresses[0], PORT))
            except OSError:
                continue  # there is no way yet
            flood.sent.append(now)
            time.sleep(PAUSE)

    def read() -> None:
        while True:
            try:
                flood.arrived.append(STAMP.unpack(reader.recv(64))[0])
            except TimeoutError:
                if stop.is_set():
                    return

    threads = [threading.Thread(target=work) for work in (send, read)]
    for thread in threads:
        thread.start()
    try:
        yield flood
    finally:
        stop.set()
        for thread in threads:
            thread.join(patience(10))
        sender.close()
        reader.close()
