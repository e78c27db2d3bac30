"""While the interface of a walled pod is unknown, no interface that may be its own stays open.

The agent's loop asks at every tick. Such a pod began before the agent, and neither CNI nor routes
nor the runtime's records say which interface it has. Interfaces of containers that are not pods are
closed with it if their names are like those of pods, and reopened when no walled pod is missing any
more, by whichever agent: closed ones are recorded beside the pins. Interfaces that came after the
agent are the watcher's to close.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from enforcer.agent.residents import UNKNOWN, Residents
from enforcer.datapath.programs import Programs
from generators.process.logs import event

log = logging.getLogger("ringfence.enforcer")

ANY = ("*",)
"""Whatever the names were when an earlier agent closed them."""


class Unclaimed:
    """The interfaces that this has closed; `patterns` say which names are looked at."""

    def __init__(self, programs: Programs, residents: Residents, patterns: Sequence[str]) -> None:
        self._programs = programs
        self._residents = residents
        self._patterns = patterns
        self._old: frozenset[int] | None = None
        """Those of no known pod when the agent started."""
        self._closed = set(programs.unclaimed())

    def keep(self, walled: Mapping[str, bool]) -> None:
        """Close what has to be closed now, and open what has not."""
        lost = sorted(
            key
            for key, why in self._residents.missing.items()
            if why == UNKNOWN and walled.get(key.partition("/")[0])
        )
        if self._old is not None and not lost and not self._closed:
            return
        unclaimed = self._residents.unclaimed(self._patterns)
        if self._old is None:
            self._old = unclaimed
        for ifindex in (unclaimed & self._old) - self._closed if lost else ():
            if self._programs.close(ifindex):
                self._closed.add(ifindex)
                told = {"ifindex": ifindex, "pods": lost}
                event(log, "unclaimed_interface_closed", logging.WARNING, **told)
        for ifindex in self._closed - self._residents.unclaimed(ANY):
            self._programs.claim(ifindex)
            self._closed.discard(ifindex)
        if not lost:
            for ifindex in self._closed:
                self._programs.take_off(ifindex)
                event(log, "unclaimed_interface_opened", ifindex=ifindex)
            self._closed.clear()
