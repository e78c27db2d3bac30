"""`lab demo`: the whole story of Ringfence on the example tenants, in half a minute.

Every step is a command that a newcomer can type again: it is printed, run as a process of its own
with our terminal, and its exit code has to be the one that the story needs. Whatever happens, the
lab is taken down at the end.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from rich.console import Console

from enforcer.lab import lifecycle, machine, session
from enforcer.lab.lifecycle import LabFailed
from enforcer.lab.names import DEFAULT_LAB, Places

WIDTH = 100
EXAMPLE = "examples/two-clients"
VICTIM, INTRUDER = "app-test01/web", "app-test02/web"
MEMBER = ("--as", "dana", "--as-group", "team-test01")


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the story is told: the lab, the example's files, the terminal."""

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
        if stdin is not None:
            line = f"echo {shlex.quote(stdin)} | {line}"
        self.prompt(line)
        done = subprocess.run(lifecycle.ringfence(*arguments), input=stdin, text=True, check=False)
        if done.returncode != expect:
            raise LabFailed(f"`{line}` ended with {done.returncode}, the demo needs {expect}")

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
    stage = Stage(
        places,
        tenants=_spelled(example / "tenants.yaml"),
        cluster=_spelled(example / "cluster.yaml"),
        console=Console(width=WIDTH, highlight=False),
    )
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
    stage.chapter("The end", "The lab is gone again; nothing of it is left on this machine.")


def find_example() -> Path:
    """The example's folder: in the installed package, else in the checkout."""
    packaged = Path(str(files("enforcer"))) / EXAMPLE
    checkout = Path(__file__).resolve().parents[2] / EXAMPLE
    return packaged if packaged.is_dir() else checkout


def _before(stage: Stage) -> None:
    stage.chapter(
        "1. A cluster with two clients, test01 and test02, and without Ringfence",
        "Every pod is a network namespace on this machine, and answers on its ports.",
    )
    stage.lab("up", "-f", stage.cluster)
    stage.lab("get", "namespaces")
    stage.console.print("\nReal connections between all pods, TCP and UDP, IPv4 and IPv6:")
    stage.lab("probe", "--expect", "FORWARDED")


def _turn_on(stage: Stage) -> None:
    stage.chapter(
        "2. One file says who the tenants are",
        "From it Ringfence labels the namespaces, writes the policies, and enforces them.",
    )
    stage.lab("apply", "-c", stage.tenants)
    stage.lab("get", "namespaces")


def _after(stage: Stage) -> None:
    stage.chapter(
        "3. The same connections again",
        "test02 (3) and the namespace of nobody (8) no longer reach test01 (1, 2, 6).",
    )
    stage.lab("probe")


def _drop(stage: Stage) -> None:
    stage.chapter(
        "4. A drop as it happens, and why",
        "The kernel drops the packet and says which rule did it.",
    )
    run_dir = str(stage.places.enforcer_run)
    arguments = ("monitor", "-t", "drop", "--run-dir", run_dir)
    stage.prompt(shlex.join(("ringfence", *arguments, "&")).replace("'&'", "&"))
    monitor = subprocess.Popen(lifecycle.ringfence(*arguments))
    try:
        stage.lab(
            *("probe", "--from", INTRUDER, "--to", VICTIM, "--port", "80/TCP"),
            *("--expect", "DROPPED"),
        )
    finally:
        monitor.send_signal(signal.SIGINT)
        monitor.wait()
    stage.show(
        *("trace", INTRUDER, VICTIM, "80/TCP", "-c", stage.tenants, "-f", stage.cluster),
    )


def _attempt(stage: Stage) -> None:
    stage.chapter(
        "5. A member of team-test01 works, and tries to break out",
        "A new namespace is labelled while it is created; a label that lies is refused.",
    )
    stage.lab("apply", *MEMBER, "-f", "-", stdin=_namespace("shop-test01"))
    stage.lab("get", "namespace", "shop-test01")
    stage.lab("apply", *MEMBER, "-f", "-", expect=1, stdin=_namespace("app-test01", "test02"))


def _kill(stage: Stage) -> None:
    with session.looking(stage.places) as (ledger, _):
        pids = [str(process.pid) for process in ledger.state.processes if process.alive]
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


def _namespace(name: str, client: str | None = None) -> str:
    metadata: dict[str, object] = {"name": name}
    if client is not None:
        metadata["labels"] = {"client": client}
    return json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})


def _spelled(path: Path) -> str:
    """Relative where that is shorter to type."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
