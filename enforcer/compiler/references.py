"""Policies that name Services: what they mean follows Services and EndpointSlices.

The compiler takes each in as it was written and asks `settle`, once for all changes, for those that
mean something else now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from generators.objects import EndpointSlice, NetworkPolicy, Service
from generators.references import refers, resolved


class References:
    """The policies with references, as they are written."""

    def __init__(self) -> None:
        self._written: dict[str, NetworkPolicy] = {}
        self._meant: dict[str, NetworkPolicy] = {}
        self._dirty: dict[str, None] = {}

    def put(self, policy: NetworkPolicy) -> bool:
        """A policy is there, or says something else; whether it names Services."""
        self.remove(policy.key)
        if not refers(policy):
            return False
        self._written[policy.key] = policy
        self._dirty[policy.key] = None
        return True

    def remove(self, key: str) -> None:
        """A policy is gone, or says something else."""
        for known in (self._written, self._meant, self._dirty):
            known.pop(key, None)

    def touch(self) -> None:
        """Services or slices are others."""
        self._dirty.update(dict.fromkeys(self._written))

    def settle(
        self, services: Iterable[Service], slices: Iterable[EndpointSlice]
    ) -> Iterator[NetworkPolicy]:
        """Those that mean something else now, as they are meant."""
        dirty, self._dirty = self._dirty, {}
        if not dirty:
            return
        services, slices = tuple(services), tuple(slices)
        for key in dirty:
            found = resolved(self._written[key], services, slices)
            if self._meant.get(key) != found:
                self._meant[key] = found
                yield found
