"""Addresses for pods to be: manifests without `status` get the same ones on every run.

Called when a cluster is made from files. An address is hashed from `namespace/name` and probed
upwards; what is in use elsewhere, and what networks reserve, is never given out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from ipaddress import IPv4Network, ip_address

from generators.addresses import Network, parse_network

_WINDOW = 1 << 16
"""Offsets into a range, so that IPv6 addresses stay short to read."""
_RESERVED_OCTETS = (0, 1, 255)


class AddressPool:
    """Hands out addresses of one set of ranges (the first range of each family).

    `used` is what is taken; pools of one cluster share it and add to it.
    """

    def __init__(self, cidrs: Sequence[str], used: set[str]) -> None:
        self._ranges = _first_of_each_family(cidrs)
        self._used = used

    def take(self, key: str) -> tuple[str, ...]:
        """One address a family for `key`; none of a family whose range is full."""
        found = [self._probe(network, key) for network in self._ranges]
        return tuple(address for address in found if address is not None)

    def _probe(self, network: Network, key: str) -> str | None:
        window = min(network.num_addresses, _WINDOW)
        start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) % window
        for step in range(window):
            offset = (start + step) % window
            address = str(ip_address(int(network.network_address) + offset))
            if _usable(network, offset) and address not in self._used:
                self._used.add(address)
                return address
        return None


def _first_of_each_family(cidrs: Sequence[str]) -> tuple[Network, ...]:
    networks = [parse_network(cidr) for cidr in cidrs]
    first = {network.version: network for network in reversed(networks)}
    return tuple(first[version] for version in sorted(first))


def _usable(network: Network, offset: int) -> bool:
    if isinstance(network, IPv4Network):
        octet = (int(network.network_address) + offset) & 0xFF
        last = offset == network.num_addresses - 1
        return octet not in _RESERVED_OCTETS and offset not in (0, 1) and not last
    return offset not in (0, 1)
