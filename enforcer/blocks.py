"""Which `ipBlock`s hold an address or a smaller block, without asking each of them.

The compiler asks for every pod address and every prefix. A block that holds something is among its
ancestors, and there are only as many as different prefix lengths are in use.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

from generators.addresses import Network, parse_network
from generators.objects import IPBlock


class BlockIndex:
    """The blocks in use, found by what they hold."""

    def __init__(self, blocks: Iterable[IPBlock]) -> None:
        self._blocks: dict[str, list[IPBlock]] = {}
        lengths: dict[int, set[int]] = {4: set(), 6: set()}
        for block in blocks:
            self._blocks.setdefault(block.cidr, []).append(block)
            for prefix in (block.cidr, *block.excepts):
                network = parse_network(prefix)
                lengths[network.version].add(network.prefixlen)
        self._lengths = {version: sorted(found) for version, found in lengths.items()}

    def holding(self, network: Network) -> frozenset[IPBlock]:
        """The blocks that hold the whole network and except no part around it."""
        ancestors = {
            str(network.supernet(new_prefix=length))
            for length in self._lengths[network.version]
            if length <= network.prefixlen
        }
        return frozenset(
            block
            for cidr in ancestors & self._blocks.keys()
            for block in self._blocks[cidr]
            if ancestors.isdisjoint(block.excepts)
        )


def within(network: Network, outer: str) -> bool:
    """Whether the whole network is inside the block `outer`; families never mix."""
    other = parse_network(outer)
    if isinstance(network, IPv4Network):
        return isinstance(other, IPv4Network) and network.subnet_of(other)
    return isinstance(other, IPv6Network) and network.subnet_of(other)
