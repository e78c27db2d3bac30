"""A set of reflectors that are started, stopped and checked together.

A class that follows several resources derives from `Copies` and names its current reflectors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from generators.checks import Check, bridged, failed
from generators.kube.reflector import Reflector, ReflectorStats


class Copies(ABC):
    """`start`, wait for `synced`, read the stores of the reflectors, `stop`."""

    @abstractmethod
    def reflectors(self) -> Iterable[Reflector[Any]]:
        """All that are followed now, in a fixed order."""

    def start(self) -> None:
        """Begin to follow."""
        for reflector in self.reflectors():
            reflector.start()

    def stop(self) -> None:
        """End all threads."""
        for reflector in self.reflectors():
            reflector.stop()

    @property
    def synced(self) -> bool:
        """Whether every copy has been complete once."""
        return all(reflector.synced for reflector in self.reflectors())

    def stats(self) -> tuple[ReflectorStats, ...]:
        """How following goes."""
        return tuple(reflector.stats() for reflector in self.reflectors())

    def checks(self) -> list[Check]:
        """What is wrong with the copies; nothing about those that are current."""
        return [check for stats in self.stats() if (check := check_of(stats)) is not None]


def check_of(stats: ReflectorStats) -> Check | None:
    """What is wrong with one copy; None when it is current."""
    if stats.forbidden:
        return failed(stats.resource, "RBAC does not allow watching it (403)")
    if not stats.synced:
        return failed(stats.resource, "not synced")
    if not stats.connected:
        age = stats.last_event_age
        return bridged(stats.resource, f"nothing received from the API server for {age:.0f} s")
    return None
