"""`lab demo`: the whole story of Ringfence on the example tenants, in half a minute.

Every step is a command that a newcomer can type again: it is printed, run as a process of its own
with our terminal, and its exit code has to be the one that the story needs. Whatever happens, the
lab is taken down at the end.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import IO

from rich.console import Console

from lab import machine, parts, session
from lab.names import DEFAULT_LAB, Places

WIDTH = 100
EXAMPLE = "examples/two-clients"
VICTIM, INTRUDER = "app-test01/web", "app-test02/web"
FAMILIES = 2
CONNECT_SECONDS = 10.0
LINE_SECONDS = 3.0
POLL_SECONDS = 0.02
MEMBER = ("--as", "dana", "--as-group", "team-test01")


@dataclass(frozen=True, slots=True)
class DemoStage:
    """The setting of the demo: the lab, the example's files, the terminal."""

    places: Places
    tenants: str
    cluster: str
    console: Console

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

    def prompt(self, line: str) -> None:
        """A command as one would type it; never wrapped, so that it can be copied."""
        self.console.print(f"[green]$[/green] [bold]{line}[/bold]", soft_wrap=True, highlight=False)

    def lab(self, *arguments: str, expect: int = 0, stdin: str | None = None) -> None:
        """The same for `ringfence lab`."""
        name = () if self.places.name == DEFAULT_LAB else ("--name", self.places.name)
        self.show("lab", *arguments, *name, expect=expect, stdin=stdin)


def tell(places: Places, *, keep: bool = False) -> None:
    """Tell the story in a lab of that name; with `keep` the lab stays up."""
    machine.check()
    example = find_example()
    stage = DemoStage(
        places,
        tenants=_spelled(example / "tenants.yaml"),
        cluster=_spelled(example / "cluster.yaml"),
        console=Console(width=WIDTH, highlight=False),
    )
    _start(stage)  # outside of `try`: a lab that was up before us is not ours to end
    try:
        _before(stage)
        _turn_on(stage)
        _after(stage)
        _drop(stage)
        _attempt(stage)
        _kill(stage)
    finally:
        if not keep:
            session.down(places)
    if not keep:
        stage.chapter("The end", "The lab is gone again; nothing of it is left on this machine.")


def find_example() -> Path:
    """The example's folder: in the installed package, else in the checkout."""
    packaged = Path(str(files("lab"))) / EXAMPLE
    checkout = Path(__file__).resolve().parents[1] / EXAMPLE
    return packaged if packaged.is_dir() else checkout


def _start(stage: DemoStage) -> None:
    stage.chapter(
        "1. A cluster with two clients, test01 and test02, and without Ringfence",
        "Every pod is a network namespace on this machine, and answers on its ports.",
    )
    stage.lab("up", "-f", stage.cluster)


def _before(stage: DemoStage) -> None:
    stage.lab("get", "namespaces")
    stage.console.print("\nReal connections between all pods, TCP and UDP, IPv4 and IPv6:")
    stage.lab("probe", "--expect", "FORWARDED")


def _turn_on(stage: DemoStage) -> None:
    stage.chapter(
        "2. One file says who the tenants are",
        "From it Ringfence labels the namespaces, writes the policies, and enforces them.",
    )
    stage.prompt(f"cat {stage.tenants}")
    stage.console.print(Path(stage.tenants).read_text(), end="", markup=False, soft_wrap=True)
    stage.lab("apply", "-c", stage.tenants)
    stage.lab("get", "namespaces")
    stage.lab("get", "networkpolicies")


def _after(stage: DemoStage) -> None:
    stage.chapter(
        "3. The same connections again",
        "test02 (3) and the namespace of nobody (8) no longer reach test01 (1, 2, 6).",
    )
    stage.lab("probe")


def _drop(stage: DemoStage) -> None:
    stage.chapter(
        "4. A drop as it happens, and why",
        "The kernel drops the packet and says which rule did it.",
    )
    arguments = ("monitor", "-t", "drop", "--run-dir", str(stage.places.enforcer_run))
    stage.prompt(f"{shlex.join(('ringfence', *arguments))} &")
    with _background(*arguments) as lines:
        stage.lab(
            *("probe", "--from", INTRUDER, "--to", VICTIM, "--port", "80/TCP"),
            *("--expect", "DROPPED"),
        )
        for line in _first(lines, FAMILIES):
            stage.console.print(line, markup=False, soft_wrap=True, end="")
    stage.show(
        *("trace", INTRUDER, VICTIM, "80/TCP", "-c", stage.tenants, "-f", stage.cluster),
    )


def _attempt(stage: DemoStage) -> None:
    stage.chapter(
        "5. A member of team-test01 works, and tries to break out",
        "A new namespace is labelled while it is created; a label that lies is refused.",
    )
    stage.lab("apply", *MEMBER, "-f", "-", stdin=_namespace("shop-test01"))
    stage.lab("get", "namespace", "shop-test01")
    stage.lab("apply", *MEMBER, "-f", "-", expect=1, stdin=_namespace("app-test01", "test02"))


def _kill(stage: DemoStage) -> None:
    with session.looking(stage.places) as view:
        pids = [str(process.pid) for process in view.ledger.state.processes if process.alive]
    stage.chapter(
        "6. Kill every Ringfence process",
        "The programs stay in the kernel: the clients are still apart.",
    )
    stage.prompt(f"kill -9 {' '.join(pids)}")
    for pid in pids:
        os.kill(int(pid), signal.SIGKILL)
    stage.lab(
        *("probe", "--from", INTRUDER, "--port", "80/TCP", "--to", VICTIM, "--expect", "DROPPED")
    )
    stage.lab(
        *("probe", "--from", "ingress/nginx", "--port", "80/TCP", "--to", VICTIM),
        *("--expect", "FORWARDED"),
    )


@contextmanager
def _background(*arguments: str) -> Iterator[IO[bytes]]:
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


def _first(lines: IO[bytes], count: int) -> list[str]:
    """The first lines that arrive; fewer if no more come for a while."""
    found: list[str] = []
    while len(found) < count and select.select([lines], [], [], LINE_SECONDS)[0]:
        found.append(lines.readline().decode())
    return found


def _namespace(name: str, client: str | None = None) -> str:
    labels = "" if client is None else f", labels: {{client: {client}}}"
    return f"{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}{labels}}}}}"


def _spelled(path: Path) -> str:
    """Relative where that is shorter to type."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
