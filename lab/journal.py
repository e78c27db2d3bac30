"""What a hollow kubelet has made, on disk: so that its next start finds its pods, and `lab down`
all of them.

One file a node, written before anything is made and after it is complete. The kubelet is the only
writer; the lab's commands read it when no kubelet runs (to clean up) or to find a pod's network
namespace.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from generators.errors import RingfenceError
from generators.process.files import write_atomically
from lab.names import Wire

FIRST_HOST, LAST_HOST = 2, 254


class Stage(StrEnum):
    """How far a sandbox is; one that is not CONNECTED lets no packet through."""

    PLANNED = "planned"
    WIRED = "wired"
    CONNECTED = "connected"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One pod's network: its pod, its number among the node's addresses, its wire."""

    key: str
    uid: str
    host: int
    netns: str
    interface: str
    addresses: tuple[str, ...]
    stage: Stage = Stage.PLANNED

    @property
    def wire(self) -> Wire:
        """As the lab's network code takes it."""
        return Wire(self.netns, self.interface, self.addresses)


class NoAddress(RingfenceError):
    """The node's pod range is used up."""

    exit_code = 1


class Journal:
    """All sandboxes of a node by pod; any thread may call it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._sandboxes = dict(read(path))
        self._last = max((s.host for s in self._sandboxes.values()), default=FIRST_HOST - 1)

    def of(self, key: str) -> Sandbox | None:
        """The sandbox of the pod `namespace/name`."""
        with self._lock:
            return self._sandboxes.get(key)

    def snapshot(self) -> Mapping[str, Sandbox]:
        """All of them."""
        with self._lock:
            return dict(self._sandboxes)

    def plan(self, make: Callable[[int], Sandbox]) -> Sandbox:
        """Note a new sandbox, given a number that no other has.

        The longest unused comes first: addresses linger in caches.
        """
        with self._lock:
            used = {sandbox.host for sandbox in self._sandboxes.values()}
            size = LAST_HOST - FIRST_HOST + 1
            turns = (FIRST_HOST + (self._last - FIRST_HOST + n) % size for n in range(1, size + 1))
            host = next((host for host in turns if host not in used), None)
            if host is None:
                raise NoAddress(f"all {size} addresses of this node are taken; delete pods")
            self._last = host
            sandbox = make(host)
            self._sandboxes[sandbox.key] = sandbox
            self._save()
            return sandbox

    def reach(self, sandbox: Sandbox, stage: Stage) -> Sandbox:
        """Note how far it is now."""
        further = replace(sandbox, stage=stage)
        with self._lock:
            self._sandboxes[sandbox.key] = further
            self._save()
        return further

    def forget(self, key: str) -> None:
        """Nothing of it is there any more."""
        with self._lock:
            self._sandboxes.pop(key, None)
            self._save()

    def _save(self) -> None:
        entries = [asdict(self._sandboxes[key]) for key in sorted(self._sandboxes)]
        write_atomically(self._path, json.dumps(entries).encode())


def read(path: Path) -> Mapping[str, Sandbox]:
    """The sandboxes in a journal by pod; none where there is no file."""
    try:
        entries = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    found = [
        Sandbox(**{**entry, "addresses": tuple(entry["addresses"]), "stage": Stage(entry["stage"])})
        for entry in entries
    ]
    return {sandbox.key: sandbox for sandbox in found}
