"""What a new version of programs and maps takes over from the pins of an older one.

The loader calls `take_over` when it has pinned a new version; `attach.retire` takes what the old
programs have tracked since then, before it removes them. Layouts may differ. A struct only ever
grows at its end, so fields that an old entry lacks are zero, and a longer one is cut; keys that
changed mean nothing and stay behind. Nothing taken over lets anything pass: endpoints come closed,
only to keep their numbers, under which connections are filed; connections come as of no generation,
to be judged again by the new tables.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from pathlib import Path

from enforcer.datapath import kernel, layout
from enforcer.datapath.proof import proven
from generators.errors import RingfenceError
from generators.process.logs import event

log = logging.getLogger("ringfence.enforcer")

ENDPOINTS, CONNECTIONS = "ep_map", "ct_map"


class CannotTakeOver(RingfenceError):
    """The new maps do not take what the old ones hold; the old programs stay on the interfaces."""

    exit_code = 1

    def __init__(self, old: Path, new: Path, error: kernel.KernelError) -> None:
        super().__init__(
            f"{new} cannot take over the state of {old} ({error}): the programs of {old.name} stay "
            "in force; if there is room for fewer pods now, start with a larger --map-size "
            f"{ENDPOINTS}=NUMBER, else with the version that loaded them"
        )


def take_over(old: Path, new: Path) -> None:
    """Endpoints and connections of `old`."""
    if not all((old / name).exists() for name in (ENDPOINTS, CONNECTIONS)):
        event(log, "not_taken_over", logging.WARNING, path=str(old), reason="it is incomplete")
        return
    try:
        endpoints = _copy(old, new, ENDPOINTS, ctypes.sizeof(ctypes.c_uint32), closed)
        event(log, "endpoints_taken_over", path=str(old), count=endpoints)
        take_connections(old, new)
    except kernel.KernelError as error:
        raise CannotTakeOver(old, new, error) from error


def take_connections(old: Path, new: Path) -> None:
    """Connections of `old` that `new` does not track yet."""
    key_size = ctypes.sizeof(layout.ConnectionKey)
    connections = _copy(old, new, CONNECTIONS, key_size, to_be_judged)
    event(log, "connections_taken_over", path=str(old), count=connections)


def closed(key: bytes, value: bytes) -> bytes:
    """An endpoint with its number and addresses, through which nothing passes yet."""
    was = layout.Endpoint.from_buffer_copy(_fitted(value, ctypes.sizeof(layout.Endpoint)))
    kept = {"endpoint": was.endpoint, "ip4": was.ip4, "ip6": was.ip6, "mac": was.mac}
    return proven(key, bytes(layout.Endpoint(**kept)))


def to_be_judged(key: bytes, value: bytes) -> bytes:
    """A connection that the next packet has judged again."""
    size = ctypes.sizeof(layout.ConnectionValue)
    entry = layout.ConnectionValue.from_buffer_copy(_fitted(value, size))
    entry.generation = entry.tenure = entry.rule = entry.group = 0
    return layout.seal_connection(key, entry)


def _fitted(value: bytes, size: int) -> bytes:
    return value[:size].ljust(size, b"\0")


def _copy(
    old: Path, new: Path, name: str, key_size: int, made: Callable[[bytes, bytes], bytes]
) -> int:
    with kernel.open_pin(old / name) as source, kernel.open_pin(new / name) as target:
        info = kernel.map_info(source.fd)
        if info.key_size != key_size:
            event(log, "not_taken_over", logging.WARNING, map=str(old / name), reason="its keys")
            return 0
        known = {key for key, _ in kernel.map_dump(target.fd, kernel.map_info(target.fd))}
        missing = [
            (key, made(key, value))
            for key, value in kernel.map_dump(source.fd, info)
            if key not in known
        ]
        kernel.map_update_batch(target.fd, missing)
    return len(missing)
