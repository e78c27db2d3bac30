"""Kernels older than this one take the bytecode too, as far as it can be seen without them."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from enforcer.datapath import kernel, loader
from tests.bpf.bytecode import helpers, instructions, refused_edges

LAST_HELPER_OF_6_1 = 209
STEPS_ALLOWED = 1_000_000

MOVE, JUMP, JUMP_IF, JUMP_FAR, CALL, EXIT = 0xB7, 0x05, 0x15, 0x06, 0x85, 0x95

DUMP = """
import json, sys
from bcc import BPF
source, names = json.load(sys.stdin)
module = BPF(text=source)
json.dump({name: module.dump_func(name.encode()).hex() for name in names}, sys.stdout)
"""


def assemble(*program: tuple[int, int]) -> bytes:
    """Bytecode of (operation, operand): how far a jump goes, or what is called."""
    far = {JUMP_FAR, CALL}
    return b"".join(
        struct.pack("<BBhi", code, 0, 0 if code in far else value, value if code in far else 0)
        for code, value in program
    )


@pytest.mark.parametrize(
    ("program", "refused"),
    [
        pytest.param([(MOVE, 0), (EXIT, 0)], [], id="no way back"),
        pytest.param([(MOVE, 0), (JUMP_IF, -2), (EXIT, 0)], [], id="a jump back on a condition"),
        pytest.param([(JUMP_IF, 1), (JUMP, -2), (EXIT, 0)], [], id="a jump back"),
        pytest.param([(JUMP_IF, 1), (JUMP_FAR, -2), (EXIT, 0)], [], id="a far jump back"),
        pytest.param(
            [(JUMP, 1), (JUMP_IF, 2), (MOVE, 0), (JUMP_IF, -3), (EXIT, 0)],
            [],
            id="a jump that is not taken falls back",
        ),
        pytest.param(
            [(JUMP, 1), (MOVE, 0), (MOVE, 0), (JUMP_IF, -3), (EXIT, 0)],
            [(1, 2)],
            id="what is no jump falls back",
        ),
        pytest.param(
            [(JUMP, 1), (CALL, 1), (MOVE, 0), (JUMP_IF, -3), (EXIT, 0)],
            [(1, 2)],
            id="a call falls back",
        ),
        pytest.param(
            [(JUMP_IF, 1), (MOVE, 0), (MOVE, 0), (EXIT, 0)], [], id="two ways meet, none leads back"
        ),
    ],
)
def test_a_way_back_must_be_a_jump(
    program: list[tuple[int, int]], refused: list[tuple[int, int]]
) -> None:
    assert refused_edges(instructions(assemble(*program))) == refused


@pytest.mark.bpf
def test_the_compiled_programs_have_only_edges_and_helpers_that_6_1_knows() -> None:
    source = loader.expand_source(loader.source_dir())
    done = subprocess.run(
        [sys.executable, "-c", DUMP],
        input=json.dumps([source, loader.PROGRAMS]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    programs = {n: instructions(bytes.fromhex(c)) for n, c in json.loads(done.stdout).items()}
    assert set(programs) == set(loader.PROGRAMS)
    assert [(n, edges) for n, p in programs.items() if (edges := refused_edges(p))] == []
    assert max(set().union(*map(helpers, programs.values()))) <= LAST_HELPER_OF_6_1


@pytest.mark.bpf
@pytest.mark.parametrize("name", loader.PROGRAMS)
def test_the_verifier_needs_less_than_nine_tenths_of_its_steps(pins: Path, name: str) -> None:
    """Kernels need different numbers for the same program; 6.1 a quarter of those of 6.18."""
    with kernel.open_pin(pins / name) as program:
        steps = kernel.program_info(program.fd).steps
    print(f"{name}: {steps} of {STEPS_ALLOWED} steps")
    assert 0 < steps < STEPS_ALLOWED * 0.9
