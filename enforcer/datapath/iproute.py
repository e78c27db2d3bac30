"""The only importer of pyroute2: it changes interfaces, for attach.py, enforcer.http and the lab.

It has no types, so what is used of it is written down here. What is there is read by links.py.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, cast


class IPRoute(Protocol):
    """A route netlink socket of pyroute2's; commands are `add`, `set`, `del`, as of iproute2."""

    def link(self, command: str, **what: object) -> object:
        """Change interfaces."""

    def addr(self, command: str, **what: object) -> object:
        """Change addresses."""

    def route(self, command: str, **what: object) -> object:
        """Change routes."""

    def rule(self, command: str, **what: object) -> object:
        """Change which routes are asked."""

    def neigh(self, command: str, **what: object) -> object:
        """Change neighbour entries."""

    def tc(self, command: str, kind: str, index: int, handle: int, **options: object) -> object:
        """Change qdiscs and filters."""

    def link_lookup(self, **what: object) -> Sequence[int]:
        """Interface numbers by properties."""

    def get_links(self, *indexes: int) -> Sequence[Mapping[str, Sequence[tuple[str, object]]]]:
        """Interfaces with their attributes."""

    def close(self) -> None:
        """Close the socket."""


@contextmanager
def opened() -> Iterator[IPRoute]:
    """A socket in this thread's network namespace.

    pyroute2 is imported here and not at the top: that takes half a second.
    """
    netlink = cast(IPRoute, importlib.import_module("pyroute2").IPRoute())
    try:
        yield netlink
    finally:
        netlink.close()


def refusal() -> type[Exception]:
    """What pyroute2 raises for a refusal of the kernel's."""
    found = importlib.import_module("pyroute2.netlink.exceptions").NetlinkError
    return cast(type[Exception], found)


def errno_of(error: Exception) -> int:
    """The errno of a refusal."""
    return int(getattr(error, "code", 0))
