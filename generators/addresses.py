"""Addresses and blocks in one canonical spelling, so that equal ones compare equal as text.

Read as sloppily as API servers have stored them: octets with leading zeros are decimal, host bits
are cleared, and IPv4 mapped into IPv6 (`::ffff:a.b.c.d`) is the IPv4 that it means.
"""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_DOTTED = re.compile(r"(?:^|(?<=:))(\d{1,10})\.(\d{1,10})\.(\d{1,10})\.(\d{1,10})$")
_PREFIX = re.compile(r"[0-9]{1,3}")
_MAPPED_BITS = 96
_MAPPED = IPv6Network("::ffff:0:0/96")
_WINDOW = 1 << 16
"""Offsets into a range, so that IPv6 addresses stay short to read."""
_RESERVED_OCTETS = (0, 1, 255)


class Family(StrEnum):
    """Address family, as cells name it."""

    IPV4 = "IPv4"
    IPV6 = "IPv6"


def _plain_octets(text: str) -> str:
    return _DOTTED.sub(lambda m: ".".join(str(int(octet)) for octet in m.groups()), text)


@lru_cache(maxsize=65536)
def parse_address(text: str) -> Address:
    """The address that `text` means; ValueError when it means none."""
    if "%" in text:
        raise ValueError(f"{text!r} has a zone")
    address = ip_address(_plain_octets(text))
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=262_144)  # more than the blocks of any cluster: one too few, and none is found
def parse_network(text: str) -> Network:
    """The block that `text` means, host bits cleared; ValueError if it is not ADDRESS/PREFIX."""
    address, slash, prefix = text.partition("/")
    if not slash or not _PREFIX.fullmatch(prefix) or "%" in address:
        raise ValueError(f"{text!r} is not ADDRESS/PREFIX")
    network = ip_network(f"{_plain_octets(address)}/{int(prefix)}", strict=False)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        inner = network.network_address.ipv4_mapped
        return IPv4Network(f"{inner}/{network.prefixlen - _MAPPED_BITS}")
    return network


def is_canonical(block: str) -> bool:
    """Whether a text is already as `str(parse_network(block))` spells it, much faster than parsing;
    an IPv6 block that ends in an IPv4 address is not.
    """
    address, _, prefix = block.partition("/")
    if not (prefix.isascii() and prefix.isdecimal()) or (prefix[0] == "0" and prefix != "0"):
        return False
    kind, bits = (socket.AF_INET6, 128) if ":" in address else (socket.AF_INET, 32)
    try:
        packed = socket.inet_pton(kind, address)
    except (OSError, ValueError):
        return False
    if int(prefix) > bits or socket.inet_ntop(kind, packed) != address:
        return False
    plain = kind is socket.AF_INET or "." not in address
    return plain and not int.from_bytes(packed) & ((1 << bits - int(prefix)) - 1)


def family(address: str) -> Family:
    """The family of a canonical address."""
    return Family.IPV6 if ":" in address else Family.IPV4


def contains(cidr: str, address: str) -> bool:
    """Whether the block holds the address; a block holds nothing of the other family."""
    network, wanted = parse_network(cidr), parse_address(address)
    return network.version == wanted.version and wanted in network


class AddressPool:
    """Hands out addresses for pods to be, of one set of ranges (the first range of each family).

    Manifests without `status` get the same ones on every run: an address is hashed from
    `namespace/name` and probed upwards; what networks reserve is never given out.
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
