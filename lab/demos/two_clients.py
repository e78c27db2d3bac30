"""`lab demo`: the whole story of Ringfence on the example tenants, in half a minute."""

from __future__ import annotations

import os
import shlex
import signal

from lab import session
from lab.demos.stage import DemoStage, background, first_lines, tell
from lab.names import Places

EXAMPLE = "two-clients"
VICTIM, INTRUDER = "app-test01/web", "app-test02/web"
FAMILIES = 2
MEMBER = ("--as", "dana", "--as-group", "team-test01")


def two_clients(places: Places, *, keep: bool = False) -> None:
    """Two clients of one cluster are kept apart."""
    steps = (_start, _before, _turn_on, _after, _drop, _attempt, _kill)
    tell(places, EXAMPLE, steps, keep=keep)


def _start(stage: DemoStage) -> None:
    stage.chapter(
        "1. A cluster with two clients, test01 and test02, and without Ringfence",
        "Every pod is a network namespace on this machine, and answers on its ports.",
    )
    stage.lab("up", "-f", stage.file("cluster.yaml"))


def _before(stage: DemoStage) -> None:
    stage.lab("get", "namespaces")
    stage.console.print("\nReal connections between all pods, TCP and UDP, IPv4 and IPv6:")
    stage.lab("probe", "--expect", "FORWARDED")


def _turn_on(stage: DemoStage) -> None:
    stage.chapter(
        "2. One file says who the tenants are",
        "From it Ringfence labels the namespaces, writes the policies, and enforces them.",
    )
    stage.cat("tenants.yaml")
    stage.lab("apply", "-c", stage.file("tenants.yaml"))
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
    with background(*arguments) as lines:
        stage.lab(
            *("probe", "--from", INTRUDER, "--to", VICTIM, "--port", "80/TCP"),
            *("--expect", "DROPPED"),
        )
        for line in first_lines(lines, FAMILIES):
            stage.console.print(line, markup=False, soft_wrap=True, end="")
    given = ("-c", stage.file("tenants.yaml"), "-f", stage.file("cluster.yaml"))
    stage.show("trace", INTRUDER, VICTIM, "80/TCP", *given)


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


def _namespace(name: str, client: str | None = None) -> str:
    labels = "" if client is None else f", labels: {{client: {client}}}"
    return f"{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}{labels}}}}}"
