"""Options that several commands of the node side share, and how they ask the agent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from enforcer.answers.control import DEFAULT_RUN_DIR, Answer
from generators.errors import RingfenceError

DEFAULT_PIN_DIR = Path("/sys/fs/bpf/ringfence")

run_dir_option = click.option(
    "--run-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_RUN_DIR,
    show_default=True,
    help="Directory of the agent's control socket.",
)
pin_dir_option = click.option(
    "--pin-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_PIN_DIR,
    show_default=True,
    help="Directory for pinned programs and maps, on a bpf filesystem.",
)
cni_conf_dir_option = click.option(
    "--cni-conf-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="The node's CNI configuration, to which our plugin is appended; usually /etc/cni/net.d.",
)
cni_bin_dir_option = click.option(
    "--cni-bin-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of the node's CNI plugins, where ours is installed; usually /opt/cni/bin.",
)


class UsageError(RingfenceError):
    """An option is missing or cannot be honoured."""


def ask(run_dir: Path, request: Mapping[str, object]) -> Answer:
    """The agent's answer, all parts of it; its refusal ends the command."""
    from enforcer.answers import control

    answer = control.gather(run_dir, request)
    if answer.get("error"):
        raise UsageError(str(answer["error"]))
    return answer
