"""Runs the commands of `console` blocks in Markdown files, to check or rewrite what they show.

A block holds commands (`$ COMMAND`) and their output. Blocks of a file run in order in one shell
environment, from the checkout, so a later command sees what an earlier one made. What differs from
run to run (times, ephemeral ports, process ids) is masked before comparing.

    .venv/bin/python tools/transcripts.py README.md           # not true: exit 1 and a diff
    .venv/bin/python tools/transcripts.py --write README.md   # make it true
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
TIMEOUT_SECONDS = 300
_MASKS = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z?"), "<time>"),
    (re.compile(r"\b[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(\.\d+)?"), "<time>"),
    (re.compile(r"\b\d\d:\d\d:\d\d(\.\d+)?\b"), "<time>"),
    (re.compile(r"(?<=:)(3[2-9]|[45]\d|6[0-5])\d{3}\b"), "<port>"),
    (re.compile(r"\b0x[0-9a-f]{6,8}\b"), "<hash>"),
    (re.compile(r"\bpid \d+\b"), "<pid>"),
    (re.compile(r"\b\d+(\.\d+)? ?(ms|s)\b"), "<duration>"),
)


@dataclass(frozen=True, slots=True)
class Step:
    """One command and the output that the file claims, with the line of the command."""

    line: int
    command: str
    output: tuple[str, ...]


def steps(text: str) -> Iterator[Step]:
    """All commands of the `console` blocks of one Markdown text, in order."""
    inside, command, start, output = False, "", 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if not inside:
            inside = line == "```console"
            continue
        closing = line == "```"
        if (closing or line.startswith("$ ")) and command:
            yield Step(start, command, tuple(output))
            command, output = "", []
        if closing:
            inside = False
        elif line.startswith("$ "):
            command, start = line[2:], number
        else:
            output.append(line)


def run(command: str) -> tuple[str, ...]:
    """Output (both streams) of one shell command, run as a reader would type it in the checkout."""
    path = f"{CHECKOUT / '.venv/bin'}:{os.environ['PATH']}"
    done = subprocess.run(  # noqa: S602 the commands are this repository's own documentation
        command,
        shell=True,
        cwd=CHECKOUT,
        env={**os.environ, "PATH": path, "COLUMNS": "100", "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    return tuple(line.rstrip() for line in done.stdout.rstrip("\n").splitlines())


def masked(lines: tuple[str, ...]) -> tuple[str, ...]:
    """The lines without what differs between two good runs."""

    def mask(line: str) -> str:
        for pattern, word in _MASKS:
            line = pattern.sub(word, line)
        return " ".join(line.split())

    return tuple(mask(line) for line in lines)


def check(path: Path, runner: Callable[[str], tuple[str, ...]] = run) -> list[str]:
    """Where the file claims what its commands do not print; empty when it is true."""
    differences = []
    for step in steps(path.read_text()):
        printed = runner(step.command)
        if masked(printed) != masked(step.output):
            differences.append(f"{path.name}:{step.line}: $ {step.command}")
            differences += difflib.unified_diff(
                masked(step.output), masked(printed), "written", "printed", lineterm=""
            )
    return differences


def rewrite(path: Path, runner: Callable[[str], tuple[str, ...]] = run) -> None:
    """Run every command of the file and put its output below it."""
    lines = path.read_text().splitlines()
    for step in reversed([(s, runner(s.command)) for s in steps(path.read_text())]):
        claimed, printed = step
        lines[claimed.line : claimed.line + len(claimed.output)] = printed
    path.write_text("\n".join(lines) + "\n")


def main() -> int:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description="Check or rewrite the transcripts in Markdown files."
    )
    parser.add_argument("--write", action="store_true")
    parser.add_argument("files", nargs="+", type=Path)
    options = parser.parse_args()
    found = []
    for path in options.files:
        if options.write:
            rewrite(path)
        else:
            found += check(path)
    sys.stdout.write("".join(f"{line}\n" for line in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
