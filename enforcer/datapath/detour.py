"""The kernel's maps of the detour through the proxy (bpf/lib/proxy.h): who listens for which rule,
how the proxy is reached, and where pods are for what comes from it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass

from enforcer.datapath import kernel, layout
from enforcer.datapath.layout import MAC_BYTES
from enforcer.datapath.pinned import PinnedMaps
from enforcer.datapath.proof import proven

SECRET_BITS = 0xFFFF_FFFC
"""Of a mark; the others say the leg."""
LISTENERS, PROXY, RESIDENTS = "listen_map", "proxy_map", "resident_map"


Mac = ctypes.c_uint8 * MAC_BYTES


class ListenerValue(ctypes.Structure):
    """struct listener_value."""

    _fields_ = (
        ("port", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
        ("proof", ctypes.c_uint64),
    )


class ProxyValue(ctypes.Structure):
    """struct proxy_value."""

    _fields_ = (("interface", ctypes.c_uint32), ("secret", ctypes.c_uint32))


class ResidentValue(ctypes.Structure):
    """struct resident_value."""

    _fields_ = (
        ("interface", ctypes.c_uint32),
        ("mac", Mac),
        ("node_mac", Mac),
        ("proof", ctypes.c_uint64),
    )


@dataclass(frozen=True, slots=True)
class Resident:
    """A pod's place on this node."""

    interface: int
    mac: str
    node_mac: str
    """Of the node's end of the pod's veth."""

    @classmethod
    def unpack(cls, value: bytes) -> Resident:
        """As the kernel has it."""
        raw = ResidentValue.from_buffer_copy(value)
        return cls(raw.interface, bytes(raw.mac).hex(":"), bytes(raw.node_mac).hex(":"))

    def pack(self, address: bytes) -> bytes:
        """The value of an address."""
        ends = (Mac(*bytes.fromhex(mac.replace(":", ""))) for mac in (self.mac, self.node_mac))
        return proven(address, bytes(ResidentValue(self.interface, *ends)))


class Detour(PinnedMaps):
    """The pinned maps; only differences are written. Close, or use as a context."""

    NAMES = (LISTENERS, PROXY, RESIDENTS)

    def __init__(self, handles: Mapping[str, kernel.Handle]) -> None:
        super().__init__(handles)
        self.listeners: Mapping[int, int] = {
            int.from_bytes(key, "little"): ListenerValue.from_buffer_copy(value).port
            for key, value in self._dump(LISTENERS)
        }
        """Port by number of rule, as the kernel has it, from agents before this one too."""
        self._residents = {
            layout.unpack_address(key): Resident.unpack(value)
            for key, value in self._dump(RESIDENTS)
        }

    def _dump(self, name: str) -> list[tuple[bytes, bytes]]:
        descriptor = self._handles[name].fd
        return kernel.map_dump(descriptor, kernel.map_info(descriptor))

    def reach(self, interface: int, secret: int) -> None:
        """The proxy is behind an interface, and a mark proves what comes from there."""
        value = bytes(ProxyValue(interface, secret & SECRET_BITS))
        kernel.map_update(self._handles[PROXY].fd, bytes(4), value)

    def listen(self, ports: Mapping[int, int]) -> None:
        """Exactly these rules redirect, each to its port."""
        handle = self._handles[LISTENERS].fd
        changed = [(rule, port) for rule, port in ports.items() if self.listeners.get(rule) != port]
        gone = [rule for rule in self.listeners if rule not in ports]
        kernel.map_update_batch(handle, [_listener(*each) for each in changed])
        kernel.map_delete_batch(handle, [_listener(rule)[0] for rule in gone])
        self.listeners = dict(ports)

    def reside(self, residents: Mapping[str, Resident]) -> None:
        """Exactly these pods are here, by address."""
        handle = self._handles[RESIDENTS].fd
        changed = {a: r for a, r in residents.items() if self._residents.get(a) != r}
        gone = [address for address in self._residents if address not in residents]
        kernel.map_delete_batch(handle, [layout.pack_address(address) for address in gone])
        kernel.map_update_batch(
            handle,
            [(key := layout.pack_address(address), r.pack(key)) for address, r in changed.items()],
        )
        self._residents = dict(residents)


def _listener(rule: int, port: int = 0) -> tuple[bytes, bytes]:
    key = rule.to_bytes(4, "little")
    return key, proven(key, bytes(ListenerValue(port=port)))
