"""What the demos have in common: each step is a command that a newcomer can type again.

It is printed, run as a process of its own with our terminal, and its exit code has to be the one
that the story needs. Whatever happens, the lab is taken down at the end.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import IO

from rich.console import Console

from lab import machine, parts, session
from lab.names import DEFAULT_LAB, Places

WIDTH = 100
CONNECT_SECONDS = 10.0
LINE_SECONDS = 3.0
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class DemoStage:
    """The setting of a demo: the lab, the example's folder, the terminal."""

    places: Places
    example: Path
    console: Console

    def file(self, name: str) -> str:
        """A file of the example, as one would type it."""
        return _spelled(self.example / name)

    def chapter(self, title: str, text: str) -> None:
        """A heading and what to look at."""
        self.console.print()
        self.console.rule(f"[bold]{title}[/bold]", align="left", style="cyan")
        self.console.print(text, style="italic")

    def show(self, *arguments: str, expect: int = 0, stdin: str | None = None) -> None:
        """Print a `ringfence` command, run it, and insist on its exit code."""
        line = shlex.join(("ringfence", *arguments))
        self.prompt(line if stdin is None else f"echo {shlex.quote(stdin)} |\n    {line}")
        done = subprocess.run(parts.ringfence(*arguments), input=stdin, text=True, check=False)
        if done.returncode != expect:
            raise parts.LabFailed(f"`{line}` ended with {done.returncode}, the demo needs {expect}")

    def cat(self, name: str) -> None:
        """Print a file of the example."""
        self.prompt(f"cat {self.file(name)}")
        text = (self.example / name).read_text()
        self.console.print(text, end="", markup=False, soft_wrap=True)

    def prompt(self, line: str) -> None:
        """A command as one would type it; never wrapped, so that it can be copied."""
        self.console.print(f"[green]$[/green] [bold]{line}[/bold]", soft_wrap=True, highlight=False)

    def lab(self, *arguments: str, expect: int = 0, stdin: str | None = None) -> None:
        """The same for `ringfence lab`."""
        name = () if self.places.name == DEFAULT_LAB else ("--name", self.places.name)
        self.show("lab", *arguments, *name, expect=expect, stdin=stdin)


Step = Callable[[DemoStage], None]


def tell(places: Places, example: str, steps: Sequence[Step], *, keep: bool) -> None:
    """Tell a story in a lab of that name, which its first step brings up; with `keep` it stays."""
    machine.check()
    stage = DemoStage(places, find_example(example), Console(width=WIDTH, highlight=False))
    begin, *rest = steps
    begin(stage)  # outside of `try`: a lab that was up before us is not ours to end
    try:
        for step in rest:
            step(stage)
    finally:
        if not keep:
            session.down(places)
    if not keep:
        stage.chapter("The end", "The lab is gone again; nothing of it is left on this machine.")


def find_example(name: str) -> Path:
    """An example's folder: in the installed package, else in the checkout."""
    packaged = Path(str(files("lab"))) / "examples" / name
    checkout = Path(__file__).resolve().parents[2] / "examples" / name
    return packaged if packaged.is_dir() else checkout


@contextmanager
def background(*arguments: str) -> Iterator[IO[bytes]]:
    """The output of a `ringfence` command that talks to the agent, once it is connected to it."""
    command = parts.ringfence(*arguments)
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        try:
            deadline = time.monotonic() + CONNECT_SECONDS
            while not _has_socket(process.pid) and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
            if process.stdout is None:
                raise parts.LabFailed("the monitor has no output")
            yield process.stdout
        finally:
            process.kill()


def _has_socket(pid: int) -> bool:
    links = (os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir())
    with contextlib.suppress(OSError):
        return any(link.startswith("socket:") for link in links)
    return False


def first_lines(lines: IO[bytes], count: int) -> list[str]:
    """The first lines that arrive; fewer if no more come for a while."""
    found: list[str] = []
    while len(found) < count and select.select([lines], [], [], LINE_SECONDS)[0]:
        found.append(lines.readline().decode())
    return found


def _spelled(path: Path) -> str:
    """Relative where that is shorter to type."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
