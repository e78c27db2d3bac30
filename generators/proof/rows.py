"""What one endpoint makes of everybody's packets: sets of ends against sets of letters.

Ends are bits of an integer, and so are letters. A row cuts all ends into parts within which the
answer is the same for every letter; two rows are compared part by part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

Masks = tuple[int, int, int]
"""Letters that are dropped, audited, redirected; none is in two of them."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Ends, and the letters of theirs that are dropped, reported, or left to HTTP rules."""

    ends: int
    dropped: int
    audited: int = 0
    redirected: int = 0

    @property
    def masks(self) -> Masks:
        """The letters by verdict."""
        return self.dropped, self.audited, self.redirected


Row = tuple[Stretch, ...]
"""Parts without a common end; ends that are in none are not asked about."""


@dataclass(frozen=True, slots=True)
class Area:
    """Ends that share their letters: of which there is a word in a rule."""

    ends: int
    letters: int


def cut(areas: Iterable[tuple[int, Masks]], everybody: int) -> Iterator[tuple[int, Masks]]:
    """Parts of `everybody`, each with the union of what the areas over it have.

    An area is ends and three sets of letters.
    """
    parts: dict[Masks, int] = {(0, 0, 0): everybody}
    for ends, (first, second, third) in areas:
        if not ends & everybody:
            continue
        cutting: dict[Masks, int] = {}
        for masks, there in parts.items():
            inside = there & ends
            if inside:
                one, two, three = masks
                key = one | first, two | second, three | third
                cutting[key] = cutting.get(key, 0) | inside
            if there != inside:
                cutting[masks] = cutting.get(masks, 0) | (there & ~ends)
        parts = cutting
    for masks, there in parts.items():
        yield there, masks


def row_of(parts: Mapping[Masks, int]) -> Row:
    """A row of ends by what becomes of their letters."""
    return tuple(Stretch(ends, *masks) for masks, ends in parts.items() if ends)


def members(bits: int) -> Iterator[int]:
    """The numbers of the bits that are set, rising."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest
