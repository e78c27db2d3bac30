"""A Dockerfile as values: its stages and their instructions, in order."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction with its words; `flags` are the `--name=value` before them."""

    line: int
    name: str
    flags: dict[str, str]
    text: str

    @property
    def words(self) -> list[str]:
        """Of the shell form, or of the JSON form."""
        if self.text.startswith("["):
            found: list[str] = json.loads(self.text)
            return found
        return self.text.split()


@dataclass(frozen=True, slots=True)
class Stage:
    """From one FROM to the next."""

    base: str
    name: str
    instructions: tuple[Instruction, ...]

    def all(self, name: str) -> list[Instruction]:
        return [i for i in self.instructions if i.name == name]


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """The whole file; `arguments` are those before the first stage."""

    arguments: dict[str, str]
    stages: tuple[Stage, ...]

    @property
    def last(self) -> Stage:
        return self.stages[-1]


def read(path: Path) -> Dockerfile:
    arguments: dict[str, str] = {}
    stages: list[tuple[str, str, list[Instruction]]] = []
    for instruction in _instructions(path.read_text()):
        if instruction.name == "FROM":
            base, _, name = instruction.text.partition(" AS ")
            stages.append((base, name or "final", []))
        elif stages:
            stages[-1][2].append(instruction)
        else:
            name, _, value = instruction.text.partition("=")
            arguments[name] = value
    return Dockerfile(arguments, tuple(Stage(b, n, tuple(found)) for b, n, found in stages))


def _instructions(text: str) -> list[Instruction]:
    found: list[Instruction] = []
    pending, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("#") or not line.strip():
            continue
        start = start if pending else number
        pending += line.strip()
        if pending.endswith("\\"):
            pending = pending[:-1].rstrip() + " "
            continue
        name, _, rest = pending.partition(" ")
        flags = {}
        while match := re.match(r"--([a-z]+)=(\S+) ", rest):
            flags[match[1]] = match[2]
            rest = rest[match.end() :]
        found.append(Instruction(start, name, flags, rest.strip()))
        pending = ""
    return found
