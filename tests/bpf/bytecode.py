"""What older kernels say about bytecode before they run any check on its values.

Until 6.7 the kernel refused every way back, unless it was a jump's: the fall-through of a jump
that is not taken counts as one, that of any other instruction does not. Whether a loop in C
becomes such an edge is the compiler's choice, so only the bytecode shows it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

JUMP_CLASSES = (0x05, 0x06)
ALWAYS, CALL, EXIT = 0x00, 0x80, 0x90
LONG_ALWAYS = 0x06
CALLS_HELPER, CALLS_FUNCTION = 0, 1


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, with the fields that say where it leads."""

    code: int
    source: int
    offset: int
    immediate: int

    @property
    def operation(self) -> int | None:
        """What kind of jump it is; None for what is no jump."""
        return self.code & 0xF0 if self.code & 0x07 in JUMP_CLASSES else None


def instructions(bytecode: bytes) -> list[Instruction]:
    """The second half of a 16-byte load counts as an instruction, as kernels before 6.7 see it."""
    fields = struct.iter_unpack("<BBhi", bytecode)
    return [Instruction(code, registers >> 4, *rest) for code, registers, *rest in fields]


def refused_edges(program: list[Instruction]) -> list[tuple[int, int]]:
    """Pairs of instructions (from, to) that kernels before 6.7 refuse as a back-edge."""
    refused = []
    path = [(0, _edges(program, 0))]
    on_path, seen = {0}, {0}
    while path:
        here, edges = path[-1]
        edge = next(edges, None)
        if edge is None:
            path.pop()
            on_path.remove(here)
            continue
        there, may_lead_back = edge
        if there in on_path and not may_lead_back:
            refused.append((here, there))
        if there not in seen:
            seen.add(there)
            on_path.add(there)
            path.append((there, _edges(program, there)))
    return refused


def _edges(program: list[Instruction], here: int) -> Iterator[tuple[int, bool]]:
    """Where an instruction leads, in the kernel's order, and whether that may be a way back."""
    instruction = program[here]
    operation = instruction.operation
    if operation == EXIT:
        return
    if operation == ALWAYS:
        long = instruction.code == LONG_ALWAYS
        yield here + 1 + (instruction.immediate if long else instruction.offset), True
        return
    conditional = operation not in {None, CALL}
    yield here + 1, conditional
    if conditional:
        yield here + 1 + instruction.offset, True
    elif operation == CALL and instruction.source == CALLS_FUNCTION:
        yield here + 1 + instruction.immediate, False


def helpers(program: list[Instruction]) -> set[int]:
    """Numbers of the kernel's helpers that are called."""
    return {i.immediate for i in program if i.operation == CALL and i.source == CALLS_HELPER}
