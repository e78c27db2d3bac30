"""The proof that a value in a map belongs to its key: the sum that bpf/lib/proof.h checks.

layout.py puts it behind the values of all maps whose elements the kernel gives to other keys while
programs still read them; a test compares both languages.
"""

from __future__ import annotations

import struct

SEED = 0x2545F4914F6CDD1D
FACTOR = 0x9E3779B97F4A7C15
WORD = 8
MASK = (1 << 64) - 1


def proof(*parts: bytes) -> int:
    """Of the words of some bytes, each part filled up to whole words."""
    total = SEED
    for part in parts:
        size = -(-len(part) // WORD)
        for word in struct.unpack(f"<{size}Q", part.ljust(size * WORD, b"\0")):
            total = (total * FACTOR + word) & MASK
    return total


def proven(key: bytes, value: bytes) -> bytes:
    """A value whose last word becomes its proof."""
    said = value[:-WORD]
    return said + proof(key, said).to_bytes(WORD, "little")


def slot(address: bytes) -> int:
    """Where the tenure of an address is kept: 16 bits."""
    return proof(address, bytes(WORD)) >> 48
