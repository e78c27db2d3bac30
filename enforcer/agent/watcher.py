"""Closes new interfaces of pods as they appear, for CNIs that rewrite their configuration or
bypass it: the second line behind the CNI plugin.

A thread of the agent's process. The kernel announces every new interface; the watcher puts the
programs on what looks like the host side of a pod (without an endpoint they let nothing through),
and wakes the agent, which identifies it. This is fast, not strict: packets may pass in the time
between the interface and the programs. It closes in every start mode: nothing is known about such a
pod, not even which addresses are its own. Interfaces that are there when the agent begins are never
closed by it: a pod that works is not cut off because the agent is late.
"""

from __future__ import annotations

import errno
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from enforcer.agent.supervise import Report, Supervised
from enforcer.datapath import attach, links
from enforcer.datapath.links import Link, looks_like_pod
from enforcer.http.namespace import NODE_END
from generators.errors import RingfenceError
from generators.process.logs import event

log = logging.getLogger("ringfence.enforcer")

USUAL_NAMES = ("veth*", "cali*", "eni*", "lxc*", "azv*", "gke*")
"""What CNIs call the host side of a pod."""


class Watcher:
    """Listens from the moment it is made; `run` attaches."""

    def __init__(
        self,
        pins: Path,
        patterns: Sequence[str],
        changed: Callable[[], None],
        report: Report,
    ) -> None:
        self._pins = pins
        self._patterns = tuple(patterns)
        self._changed = changed
        self._part = Supervised(
            "interfaces", "new interfaces are not closed until their pod is known", report
        )
        self._socket = links.listen(links.RTNLGRP_LINK)
        self._seen = {link.ifindex for link in _everything()}

    def run(self, stop: threading.Event) -> None:
        """Attach to what appears until stopped."""
        self._part.heed(self._socket, self._step, stop)

    def _step(self) -> None:
        # What went wrong may have cost what was heard.
        self.take(_everything() if self._part.failed else _heard(self._socket))

    def take(self, found: Iterable[Link]) -> None:
        """Close those that are new and look like a pod's; others are looked at again when they
        change: a veth may be moved to its network namespace, or renamed, after it was made.
        """
        new = [
            link
            for link in found
            if link.ifindex not in self._seen
            and link.name != NODE_END  # leads to the proxy, whatever patterns say
            and looks_like_pod(link, self._patterns)
        ]
        for link in {link.ifindex: link for link in new}.values():
            self._close(link)
            self._seen.add(link.ifindex)
        if new:
            self._changed()

    def _close(self, link: Link) -> None:
        try:
            attach.attach(self._pins, link.ifindex)
        except RingfenceError as error:
            event(log, "interface_not_closed", logging.ERROR, name=link.name, error=str(error))
            return
        event(log, "interface_closed", name=link.name, ifindex=link.ifindex)


def _heard(listening: socket.socket) -> list[Link]:
    """What the kernel announces; all interfaces if the socket overflowed."""
    try:
        return links.heard(listening.recv(links.RECEIVE))
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise
    return _everything()


def _everything() -> list[Link]:
    with links.netlink() as asked:
        return asked.links()
