"""What promises to end by Ctrl-C does so too where SIGINT was ignored at its start.

Shells start background jobs of scripts so, and `nohup ... &`, `setsid` and CI runners with them.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import COMMAND
from tests.enforcer.node import Node, deny_ingress
from tests.testbed.processes import free_ports
from tests.testbed.waiting import ended, ending, eventually
from tests.webhook.processes import prepare

INTERRUPTED = 130
BACKGROUND = ("env", "--ignore-signal=INT")
Sign = Callable[[int, str], bool]
"""By its pid and what it has said: whether a command is at work."""


def says(word: str) -> Sign:
    return lambda _, log: word in log


def _has_a_worker(pid: int, _: str) -> bool:
    return bool(Path(f"/proc/{pid}/task/{pid}/children").read_text())


def webhook(folder: Path) -> tuple[list[str], Sign]:
    prepare(folder)
    tls = ("--tls-cert", f"{folder}/tls.crt", "--tls-key", f"{folder}/tls.key")
    listen = ("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")
    return ["webhook", "serve", "-c", f"{folder}/tenants.yaml", *tls, *listen], _has_a_worker


def kubeconfig(folder: Path) -> str:
    """Of an API server that is away."""
    (nobody,) = free_ports(1)
    path = folder / "kubeconfig"
    path.write_text(f"""\
apiVersion: v1
kind: Config
current-context: a
contexts: [{{name: a, context: {{cluster: a, user: a}}}}]
clusters: [{{name: a, cluster: {{server: "http://127.0.0.1:{nobody}"}}}}]
users: [{{name: a, user: {{}}}}]
""")
    return str(path)


def label(folder: Path) -> tuple[list[str], Sign]:
    config = kubeconfig(folder)
    return ["namespace", "label", "team", "a=b", "--kubeconfig", config], says("trying again")


@pytest.mark.parametrize(("command", "code"), [(webhook, 0), (label, INTERRUPTED)])
def test_a_command_without_a_kernel_ends(
    tmp_path: Path, command: Callable[[Path], tuple[list[str], Sign]], code: int
) -> None:
    words, sign = command(tmp_path)
    assert interrupted(words, tmp_path / "log", sign) == code


def interrupted(words: list[str], log: Path, sign: Sign) -> int:
    """Start a command in the background, send SIGINT once it is at work; how it ends."""
    with log.open("wb") as out:
        started = subprocess.Popen([*BACKGROUND, str(COMMAND), *words], stdout=out, stderr=out)
    with ending(started) as process:
        eventually(lambda: sign(process.pid, log.read_text()), f"{words[0]} is at work: {log}")
        process.send_signal(signal.SIGINT)
        return ended(process)


@pytest.mark.bpf
def test_the_agent_and_who_follows_it_end(tmp_path: Path) -> None:
    node = Node(tmp_path / "node")
    node.directory.mkdir()
    try:
        node.build()
        agent = subprocess.Popen([*BACKGROUND, *node.arguments()])
        node.processes.append(agent)
        node.wait(node.write(*node.pods(), deny_ingress("t1")), agent)
        node.wait_until_enforced()
        assert not node.reaches("t2/b", "t1/a")
        for command in ("monitor", "observe"):
            follow = ["--follow"] if command == "observe" else []
            words = [command, "--run-dir", str(node.run_dir), "--last", "9", *follow]
            assert interrupted(words, tmp_path / command, says("denied")) == INTERRUPTED
        os.kill(agent.pid, signal.SIGINT)
        assert ended(agent) == 0
    finally:
        node.remove()
