"""ConfigMaps of one mark and a reflector that follows them: what the reflector's tests look at."""

from __future__ import annotations

import pytest

from generators.documents.json import Document, Key, strings
from generators.kube.client import Client, WatchScope
from generators.kube.queue import Backoff
from generators.kube.reflector import Reflector, Timing
from generators.kube.resources import CONFIG_MAPS
from tests.testbed.waiting import eventually

QUICK = Timing(backoff=Backoff(first=0.05, longest=0.2), short=0.0)
"""Faults are made on purpose here: no need to wait half a minute for the next attempt."""


class Marked:
    """ConfigMaps that belong to one test, and a reflector that follows them."""

    def __init__(self, admin: Client, mark: str) -> None:
        self.admin = admin
        self.mark = mark
        self.changed: list[str] = []
        self.reflectors: list[Reflector[str]] = []

    def needs_early_bookmarks(self) -> None:
        """Skip on a release whose first bookmark, which arms the watch's silence, comes late."""
        version = self.admin.version()
        if not version.at_least(1, 32):
            pytest.skip(f"{version.release} streams no lists: its first bookmark takes a minute")

    def put(self, name: str, value: str = "1", **labels: str) -> None:
        meta = {
            "name": f"{self.mark}-{name}",
            "namespace": "default",
            "labels": {"mark": self.mark} | labels,
        }
        document: Document = {"metadata": meta, "data": {"value": value}}
        self.admin.apply(CONFIG_MAPS, document, manager="test")

    def remove(self, name: str) -> None:
        self.admin.delete(CONFIG_MAPS, f"{self.mark}-{name}", "default")

    def follow(self, client: Client, timing: Timing = QUICK) -> Reflector[str]:
        """A started reflector; its values are what `value` holds."""
        reflector = Reflector(
            client,
            CONFIG_MAPS,
            _value,
            self._note,
            scope=WatchScope(labels=f"mark={self.mark}"),
            timing=timing,
        )
        self.reflectors.append(reflector)
        reflector.start()
        return reflector

    def synced(self, client: Client, timing: Timing = QUICK) -> Reflector[str]:
        """One that has its first state; what it said of that is forgotten."""
        reflector = self.follow(client, timing)
        assert reflector.wait_synced(20)
        expected = len(reflector.store)
        eventually(lambda: len(self.changed) >= expected, "first keys")
        self.changed.clear()
        return reflector

    def seen(self, reflector: Reflector[str]) -> dict[str, str]:
        """Its copy, without the mark in names."""
        return {self._short(key): value for key, value in reflector.store.snapshot().items()}

    def expect(self, reflector: Reflector[str], **values: str) -> None:
        eventually(
            lambda: self.seen(reflector) == values,
            f"expected {values}, got {self.seen(reflector)}, {reflector.stats()}",
        )

    def _note(self, key: Key) -> None:
        self.changed.append(self._short(key))

    def _short(self, key: Key) -> str:
        return key.name.removeprefix(f"{self.mark}-")


def _value(document: Document) -> str:
    value = strings(document, "data").get("value", "")
    if value == "unreadable":
        raise ValueError("no value of ours")
    return value
