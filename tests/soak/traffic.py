"""Datagrams between pods, some of which pass and some of which do not: each is a flow to report."""

from __future__ import annotations

import random
import socket

from lab import netns
from lab.journal import Sandbox, Stage
from tests.soak.ground import Ground

PORT = 80
AT_ONCE = 10


class Traffic:
    """A few datagrams at a time, from a new source port each."""

    def __init__(self, ground: Ground, chance: random.Random) -> None:
        self._ground = ground
        self._chance = chance

    def once(self) -> None:
        """From one pod to others, over both families; OSError when it goes meanwhile."""
        pods = [box for box in self._ground.lab.held().values() if box.stage is Stage.CONNECTED]
        if len(pods) < 2:
            return
        source = self._chance.choice(pods)
        with netns.inside(source.netns):
            for _ in range(AT_ONCE):
                self._send(self._chance.choice(pods))

    def _send(self, to: Sandbox) -> None:
        address = self._chance.choice(to.addresses)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"soak", (address, PORT))
