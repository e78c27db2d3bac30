"""`ringfence trace --live`: the offline command, put to the agent of this node.

Everything but the two options is the command of generators/commands/trace.py.
"""

from __future__ import annotations

from pathlib import Path

import click

from enforcer.answers.control import DEFAULT_RUN_DIR
from enforcer.commands.options import UsageError, ask, run_dir_option
from enforcer.commands.printing import emit
from generators.commands.trace import asked_request
from generators.commands.trace import trace as offline

EXIT_NO = 1
_ELSEWHERE = ("files", "kubeconfig", "config_file")


@click.pass_context
def _trace(context: click.Context, /, live: bool, run_dir: Path, **rest: object) -> None:
    if not live and run_dir == DEFAULT_RUN_DIR:
        context.invoke(offline, **rest)
        return
    if any(rest[name] for name in _ELSEWHERE):
        raise UsageError("--live uses the agent's own inputs; leave out -f, -c, --kubeconfig")
    from generators.reachability.matrix import PortProtocol

    port = PortProtocol.parse(str(rest["port"]))
    headers = rest["headers"] if isinstance(rest["headers"], tuple) else ()
    asked_request(_text(rest["http"]), headers, _text(rest["host"]), port.protocol)
    request = {
        "command": "trace",
        **{k: rest[k] for k in ("source", "destination", "port", "family", "http", "host")},
        "headers": "\n".join(map(str, headers)),
    }
    found = ask(run_dir, request)
    lines = found.pop("text", [])
    told = "".join(f"{line}\n" for line in lines) if isinstance(lines, list) else ""
    emit(str(rest["output"]), found, lambda: told)
    expected = rest["expect"]
    if expected is not None and found.get("verdict") != expected:
        click.echo(f"expected {expected}, found {found.get('verdict')}", err=True)
        context.exit(EXIT_NO)
    if not found.get("agrees"):
        click.echo("the kernel does not do what the agent wants, see above", err=True)
        context.exit(EXIT_NO)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


trace = click.command("trace", help=offline.help)(
    click.option("--live", is_flag=True, help="Ask this node's agent and its maps.")(
        run_dir_option(_trace)
    )
)
trace.params += offline.params
