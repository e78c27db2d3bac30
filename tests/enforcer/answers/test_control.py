"""The control socket: answers, errors as answers, and nothing that a bad request can break."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from enforcer.answers import control
from enforcer.sources.manifests import manifests_digest


def respond(request: control.Request) -> Iterable[control.Line]:
    if request["command"] == "flows":
        return [b'{"number": 1}', b"", {"number": 2}]
    return [{"asked": request["command"]}]


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / control.SOCKET).touch()  # left behind by an agent that was killed
    server = control.control_server(tmp_path, respond)
    server.start()
    yield tmp_path
    server.stop()


def raw(run_dir: Path, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(run_dir / control.SOCKET))
        connection.sendall(data)
        return connection.makefile("rb").readline()


def test_a_request_is_answered(run_dir: Path) -> None:
    assert control.ask(run_dir, {"command": "status"}) == {"asked": "status"}


def test_a_stream_skips_signs_of_life(run_dir: Path) -> None:
    assert list(control.stream(run_dir, {"command": "flows"})) == [{"number": 1}, {"number": 2}]


@pytest.mark.parametrize(
    "data",
    [b"\n", b"nonsense\n", b"[]\n", b'{"command": 3}\n', b"[" * 5000 + b"\n"],
    ids=["empty", "no JSON", "a list", "a number as command", "deeply nested"],
)
def test_a_bad_request_gets_an_error_and_the_server_lives_on(run_dir: Path, data: bytes) -> None:
    assert raw(run_dir, data).startswith(b'{"error"')
    assert control.ask(run_dir, {"command": "status"}) == {"asked": "status"}


def test_only_root_may_ask(run_dir: Path) -> None:
    assert (run_dir / control.SOCKET).stat().st_mode & 0o777 == 0o600


def test_who_is_not_root_is_told_so() -> None:
    away = control.AgentAway(
        Path("/run/ringfence/agent.sock"), PermissionError(13, "Permission denied")
    )
    assert str(away) == (
        "only root may ask the agent, and you are not root (/run/ringfence/agent.sock); "
        "run it with sudo"
    )


def test_without_an_agent_the_error_says_what_to_start(tmp_path: Path) -> None:
    with pytest.raises(control.AgentAway, match="start `ringfence enforcer run`"):
        control.ask(tmp_path, {"command": "status"})


def test_a_digest_tells_names_from_contents() -> None:
    assert manifests_digest({"a": b"b"}) != manifests_digest({"ab": b""})
