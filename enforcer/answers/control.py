"""The agent's control socket: one JSON request a line, one or more JSON answers a line.

The agent serves it below its run directory; command line and lab use `ask` and `stream`. Only root
can connect. An error is an answer with the key `error`, the connection stays an ordinary success.

    {"command": "status"}                          what is enforced, what is not, and why
    {"command": "endpoints"}                       {"endpoints": [...]}
    {"command": "wait", "manifests": DIGEST, "config": DIGEST or null, "timeout": SECONDS}
                                                   answers when that input is in force, or refused
    {"command": "flows", "last": N, "follow": BOOL} a flow a line
"""

from __future__ import annotations

import json
import socket
import socketserver
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from enforcer.agent.unix_socket import UnixSocketServer
from generators.documents.json import items
from generators.errors import MachineLacks

SOCKET = "agent.sock"
DEFAULT_RUN_DIR = Path("/run/ringfence")
MAX_REQUEST = 1 << 16
WAITING = 64
ANSWER_SECONDS = 5.0
"""Beyond the `timeout` of a request: how long an agent may take to answer."""
MOST_CONNECTIONS = 10_000
"""Tracked connections listed by default."""

Request = Mapping[str, object]
Answer = dict[str, object]
Line = Mapping[str, object] | bytes
"""An answer, or one that is encoded already; empty bytes only tell that the agent is alive."""
Respond = Callable[[Request], Iterable[Line]]


class AgentAway(MachineLacks):
    """No agent listens on the socket."""

    def __init__(self, path: Path, error: OSError) -> None:
        if isinstance(error, PermissionError):
            what = f"only root may ask the agent, and you are not root ({path})"
            super().__init__(what, "run it with sudo")
            return
        super().__init__(
            f"no agent answers on {path} ({error.strerror or error})",
            "start `ringfence enforcer run`, or name its directory with --run-dir",
        )


def ask(run_dir: Path, request: Request) -> Answer:
    """Send a request and return the one answer."""
    for answer in stream(run_dir, request):
        return answer
    return {"error": "the agent closed the connection without an answer"}


def gather(run_dir: Path, request: Request) -> Answer:
    """The one answer, with the entries of all its parts."""
    whole: Answer = {}
    entries: list[object] = []
    for part in stream(run_dir, request):
        entries += items(part, "entries")
        whole |= part
    return whole | ({"entries": entries} if "entries" in whole else {})


def stream(run_dir: Path, request: Request) -> Iterator[Answer]:
    """Send a request and yield the answers; AgentAway if no agent listens."""
    path = run_dir / SOCKET
    timeout = request.get("timeout")
    patience = ANSWER_SECONDS + (timeout if isinstance(timeout, int | float) else 0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(patience)
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            if request.get("follow"):
                connection.settimeout(None)
            with connection.makefile("rb") as lines:
                for line in lines:
                    if line.strip():
                        yield json.loads(line)
        except OSError as error:
            raise AgentAway(path, error) from error


def control_server(run_dir: Path, respond: Respond) -> UnixSocketServer:
    """The serving side; `respond` is called in a thread of the connection."""
    return UnixSocketServer(run_dir / SOCKET, _handler(respond), WAITING)


def _handler(respond: Respond) -> type[socketserver.StreamRequestHandler]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            line = self.rfile.readline(MAX_REQUEST + 1)
            try:
                for answer in _answers(line, respond):
                    data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                    self.wfile.write(data + b"\n")
            except (BrokenPipeError, ConnectionResetError):
                return  # the asker has gone; nobody is left to tell

    return Handler


def _answers(line: bytes, respond: Respond) -> Iterable[Line]:
    if len(line) > MAX_REQUEST:
        return [{"error": f"the request is longer than {MAX_REQUEST} bytes"}]
    try:
        request: object = json.loads(line)
    except (ValueError, RecursionError):
        return [{"error": "the request is not one line of JSON"}]
    if not isinstance(request, dict) or not isinstance(request.get("command"), str):
        return [{"error": 'the request is not {"command": NAME, ...}'}]
    return respond(request)
