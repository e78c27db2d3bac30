"""Attachments: which sandbox of which pod uses which interface of this node, according to CNI.

The CNI server puts and removes them, the agent asks `of("ns/pod")` for the interface and addresses
of a local pod and is woken through `subscribe`. They are kept in one file below the run directory,
so that a new agent knows the interfaces of pods that run already; an entry whose interface is gone,
or is another device under the same number now, is dropped when the file is read. A pod may have
several for a while, because the runtime may ask to remove the old sandbox after it made the new
one. The latest speaks for the pod, and removing one container never touches another. A file that
cannot be written is an error in the log: memory stays right.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from enforcer.policy.changes import Attachment
from generators.process.files import write_atomically
from generators.process.logs import event

log = logging.getLogger("ringfence.enforcer")

FILE = "attachments.json"
SIOCGIFHWADDR = 0x8927

Device = Callable[[int], str | None]
"""What an ifindex is now, so that a number that was used again is noticed; None: nothing."""


class Attachments:
    """All attachments of a node; every method may be called from any thread."""

    def __init__(self, run_dir: Path, device: Device | None = None) -> None:
        self._path = run_dir / FILE
        self._device = device or device_of
        self._lock = threading.Lock()
        self._by_container: dict[str, tuple[Attachment, str]] = {}
        """In the order in which they were put, each with the device that it was put for."""
        self._by_pod: dict[str, dict[str, None]] = {}
        """The containers of a pod, in the same order."""
        self._watchers: tuple[Callable[[], None], ...] = ()
        self._restore()

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Have `changed` called after each change, in the thread that made it."""
        with self._lock:
            self._watchers = (*self._watchers, changed)

    def put(self, attachment: Attachment) -> None:
        """Note an attachment; from now on it is the latest of its pod."""
        device = self._device(attachment.ifindex) or ""
        with self._lock:
            stale = [
                container
                for container, (other, _) in self._by_container.items()
                if other.ifindex == attachment.ifindex or container == attachment.container
            ]
            for container in stale:
                self._take(container)
            self._hold(attachment, device)
            self._save()
        self._tell()

    def remove(self, container: str) -> Attachment | None:
        """Forget the attachment of a container; what it was, None if it was not known."""
        found = self._drop([container])
        return found[0] if found else None

    def retain(self, containers: Iterable[str]) -> tuple[Attachment, ...]:
        """Forget those of all other containers; what they were."""
        kept = frozenset(containers)
        with self._lock:
            others = [container for container in self._by_container if container not in kept]
        return self._drop(others)

    def of(self, key: str) -> Attachment | None:
        """The latest attachment of the pod `namespace/pod`."""
        with self._lock:
            latest = next(reversed(self._by_pod.get(key, {})), None)
            return self._by_container[latest][0] if latest is not None else None

    def snapshot(self) -> tuple[Attachment, ...]:
        """All of them, older ones first."""
        with self._lock:
            return tuple(attachment for attachment, _ in self._by_container.values())

    def _drop(self, containers: Iterable[str]) -> tuple[Attachment, ...]:
        with self._lock:
            found = tuple(self._take(c) for c in containers if c in self._by_container)
            if found:
                self._save()
        if found:
            self._tell()
        return found

    def _hold(self, attachment: Attachment, device: str) -> None:
        self._by_container[attachment.container] = (attachment, device)
        self._by_pod.setdefault(attachment.key, {})[attachment.container] = None

    def _take(self, container: str) -> Attachment:
        attachment, _ = self._by_container.pop(container)
        containers = self._by_pod[attachment.key]
        del containers[container]
        if not containers:
            del self._by_pod[attachment.key]
        return attachment

    def _tell(self) -> None:
        for changed in self._watchers:
            changed()

    def _restore(self) -> None:
        try:
            held = json.loads(self._path.read_text())
            found = [_parse(entry) for entry in held]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            event(log, "attachments_unreadable", logging.ERROR, error=str(error))
            return
        for attachment, device in found:
            if device and self._device(attachment.ifindex) == device:
                self._hold(attachment, device)
        if len(self._by_container) != len(found):
            self._save()

    def _save(self) -> None:
        """Replace the file as a whole; the caller holds the lock."""
        held = [{**asdict(a), "device": device} for a, device in self._by_container.values()]
        try:
            write_atomically(self._path, json.dumps(held).encode())
        except OSError as error:
            event(log, "attachments_not_saved", logging.ERROR, error=str(error))


def _parse(entry: dict[str, object]) -> tuple[Attachment, str]:
    ips, ifindex = entry["ips"], entry["ifindex"]
    if not isinstance(ips, list) or not isinstance(ifindex, int):
        raise TypeError("an attachment has a list of addresses and a number")
    container, namespace, pod, uid = (
        str(entry[name]) for name in ("container", "namespace", "pod", "uid")
    )
    addresses = tuple(map(str, ips))
    return Attachment(container, namespace, pod, uid, ifindex, addresses), str(entry["device"])


def device_of(ifindex: int) -> str | None:
    """Name and hardware address of an interface of this network namespace; None: no such one."""
    try:
        name = socket.if_indextoname(ifindex)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asked:
            answer = fcntl.ioctl(asked, SIOCGIFHWADDR, struct.pack("16s16x", os.fsencode(name)))
    except OSError:
        return None
    return f"{name} {answer[18:24].hex(':')}"
