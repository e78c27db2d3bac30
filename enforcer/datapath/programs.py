"""The programs on the interfaces of local pods, maintained by one agent.

The agent's loop asks for one interface at a time. An interface that is gone only loses its pin, and
pins of older programs go as soon as nothing runs them any more.
"""

from __future__ import annotations

import fcntl
import logging
import socket
import struct
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from enforcer.compiler.views import Live
from enforcer.datapath import attach
from generators.errors import RingfenceError
from generators.process.logs import event

log = logging.getLogger("ringfence.enforcer")

LOOK_SECONDS = 60.0
SIOCGIFFLAGS = 0x8913
IFF_UP = 1


class Programs:
    """What is attached where; `known`: interfaces that the kernel holds endpoints of."""

    def __init__(self, pins: Path, known: Iterable[int]) -> None:
        self._pins = pins
        self._known = set(known)
        self._attached: dict[int, str] = {}
        self._problems: dict[int, str] = {}
        self._retired = False
        self._looked_at = time.monotonic()
        self.attached = Live(self._attached)
        """How the programs hang on each interface: tcx or clsact."""

    def runs_another_version(self, ifindex: int) -> bool:
        """Whether the programs of before enforce there, with tables of their own."""
        if ifindex in self._attached:
            return False
        try:
            return attach.runs_another_version(self._pins, ifindex)
        except RingfenceError:  # `put_on` will say why
            return False

    def catch_up(self) -> None:
        """Before programs of before are replaced: know the connections that they know."""
        attach.catch_up(self._pins)

    def put_on(self, ifindex: int) -> str:
        """Put the programs on an interface once; why that failed, or nothing."""
        return "" if ifindex in self._attached else self._attach(ifindex)

    def put_back(self, seconds: float = LOOK_SECONDS) -> None:
        """Put the programs on again where another tool took them off; looks that often at most."""
        now = time.monotonic()
        if now - self._looked_at < seconds:
            return
        self._looked_at = now
        for ifindex in [each for each in self._attached if self._is_bare(each)]:
            event(log, "programs_taken_off", logging.ERROR, ifindex=ifindex)
            self._attach(ifindex)

    def _is_bare(self, ifindex: int) -> bool:
        try:
            return _exists(ifindex) and attach.attached(self._pins, ifindex) is None
        except RingfenceError:  # gone meanwhile
            return False

    def _attach(self, ifindex: int) -> str:
        try:
            self._attached[ifindex] = str(attach.attach(self._pins, ifindex))
        except RingfenceError as error:
            problem = str(error)
            if self._problems.get(ifindex) != problem:
                event(log, "attach_failed", logging.ERROR, ifindex=ifindex, error=problem)
            self._problems[ifindex] = problem
            return problem
        self._problems.pop(ifindex, None)
        self._known.add(ifindex)
        event(log, "attached", ifindex=ifindex, mode=self._attached[ifindex])
        return ""

    def unclaimed(self) -> frozenset[int]:
        """The interfaces that `close` has closed, in this agent or an earlier one."""
        return attach.unclaimed(self._pins)

    def close(self, ifindex: int) -> bool:
        """Put the programs on an interface that has none; whether that was done."""
        if attach.is_ours(self._pins, ifindex) or self.put_on(ifindex):
            return False
        attach.mark_unclaimed(self._pins, ifindex)
        return True

    def claim(self, ifindex: int) -> None:
        """A closed interface turned out to be a pod's, or is gone."""
        attach.unmark_unclaimed(self._pins, ifindex)

    def take_off(self, ifindex: int) -> None:
        """Remove the programs from an interface that belongs to no known pod."""
        self._attached.pop(ifindex, None)
        try:
            attach.detach(self._pins, ifindex)
            attach.unmark_unclaimed(self._pins, ifindex)
        except RingfenceError as error:
            event(log, "detach_failed", logging.ERROR, ifindex=ifindex, error=str(error))

    def forget_gone(self, present: Collection[int]) -> None:
        """Remove the pins of interfaces that are gone; one that is still there stays closed.

        PinsGone if all of them were removed by others.

        Those of interfaces that never had an endpoint too: CNI calls and the watcher close some.
        """
        attach.check_pins(self._pins)
        candidates = [i for i in self._known | attach.pinned(self._pins) if i not in present]
        for ifindex in candidates:
            if _exists(ifindex):  # made since
                continue
            attach.forget(self._pins, ifindex)
            self._attached.pop(ifindex, None)
            self._problems.pop(ifindex, None)
            self._known.discard(ifindex)

    def retire_old(self) -> None:
        """Everything runs these programs: drop the pins of older ones."""
        if not self._retired:
            attach.retire(self._pins)
            self._retired = True


def _exists(ifindex: int) -> bool:
    try:
        socket.if_indextoname(ifindex)
    except OSError:
        return False
    return True


def is_up(ifindex: int) -> bool:
    """Whether the link is up: then its pod may have connections from before us."""
    try:
        name = socket.if_indextoname(ifindex).encode()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            answer = fcntl.ioctl(asked, SIOCGIFFLAGS, struct.pack("16sH14x", name, 0))
    except OSError:
        return False
    flags: int = struct.unpack("16sH14x", answer)[1]
    return bool(flags & IFF_UP)
