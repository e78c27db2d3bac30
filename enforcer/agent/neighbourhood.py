"""Watches for programs of others on this node's interfaces, and keeps ours before them.

A thread beside the agent's loop: the kernel does not announce attached programs, so it polls.
Findings go to the loop, which runs `to_pod` at the sender too as long as others may hand packets to
pods past it, and to status and metrics.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from enforcer.agent.supervise import Report, Supervised
from enforcer.datapath import attach
from enforcer.datapath.attach import AttachMode
from enforcer.datapath.neighbours import Findings, Lookout
from generators.errors import RingfenceError
from generators.process.logs import event

log = logging.getLogger("ringfence.enforcer")

LOOK_SECONDS = 1.0


class Neighbourhood:
    """`look` once before anything is enforced, then `run`. `attached`: how ours are attached, and
    where."""

    def __init__(
        self,
        pins: Path,
        attached: Callable[[], Mapping[int, str]],
        changed: Callable[[Findings], None],
        report: Report,
    ) -> None:
        self._pins = pins
        self._attached = attached
        self._changed = changed
        self._part = Supervised(
            "neighbours", "other eBPF programs that bypass the wall are not noticed", report
        )
        self._lookout = Lookout()
        self._last: Findings | None = None

    def run(self, stop: threading.Event) -> None:
        """Look until stopped."""
        while not stop.wait(LOOK_SECONDS):
            self.look()

    def look(self) -> None:
        """Once: be the first wherever that can be, then say who else is there."""
        self._part.attempt(self._look)

    def _look(self) -> None:
        held = dict(self._attached())
        try:
            ours = attach.program_ids(self._pins)
        except attach.PinsGone:  # the loop notices, and begins anew
            return
        found = self._lookout.look(ours, held)
        if any(n.before for n in found.neighbours) and self._lead(found, held):
            found = self._lookout.look(ours, held)
        if found != self._last:
            for neighbour in found.neighbours:
                if self._last is None or neighbour not in self._last.neighbours:
                    event(log, "neighbour", program=str(neighbour), passes=neighbour.passes)
            self._last = found
            self._changed(found)

    def _lead(self, found: Findings, held: Mapping[int, str]) -> bool:
        """Whether our programs changed their place anywhere."""
        moved = False
        behind = {n.ifindex: n for n in found.neighbours if n.before}
        for ifindex, neighbour in behind.items():
            if held[ifindex] != AttachMode.TCX:
                continue
            try:
                if attach.lead(self._pins, ifindex):
                    event(log, "first_again", logging.WARNING, before=str(neighbour))
                    moved = True
            except RingfenceError as error:
                event(log, "not_first", logging.ERROR, before=str(neighbour), error=str(error))
        return moved
