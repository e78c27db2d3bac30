"""The CNI plugin's program when no agent answers: VERSION, errors, who may start and who not."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cni.runtime import Runtime, result

pytestmark = pytest.mark.usefixtures("plugin")

PAGE = """\
# comment
* {others}
kube-system open
t1 strict
"""


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    (tmp_path / "namespaces").write_text(PAGE.format(others="strict"))
    return Runtime(tmp_path / "nobody.sock", tmp_path / "namespaces", seconds=1)


@contextmanager
def listening(path: Path, answer: bytes) -> Iterator[list[bytes]]:
    """Somebody who says the same to everybody; what was asked is kept."""
    heard: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, connection.makefile("rb") as said:
                    heard.append(said.read())
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield heard
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]


@pytest.mark.parametrize("version", VERSIONS)
def test_version_is_answered_in_the_version_of_the_question(runtime: Runtime, version: str) -> None:
    told = runtime.raw({"CNI_COMMAND": "VERSION"}, json.dumps({"cniVersion": version}).encode())
    assert told.code == 0
    assert told.json == {
        "cniVersion": version,
        "supportedVersions": VERSIONS,
    }


def test_version_needs_no_configuration(runtime: Runtime) -> None:
    assert runtime.raw({"CNI_COMMAND": "VERSION"}, b"").json["cniVersion"] == "1.1.0"


@pytest.mark.parametrize(
    ("environment", "config", "code", "told"),
    [
        pytest.param({}, b"{}", 4, "CNI_COMMAND", id="no command"),
        pytest.param({"CNI_COMMAND": "ADDD"}, b"{}", 4, "ADDD", id="an unknown command"),
        pytest.param(
            {"CNI_COMMAND": "ADD", "CNI_ARGS": "a\nb"}, b"{}", 4, "CNI_ARGS", id="two lines"
        ),
        pytest.param({"CNI_COMMAND": "ADD"}, b"", 7, "prevResult", id="no configuration"),
        pytest.param({"CNI_COMMAND": "ADD"}, b"[]", 7, "prevResult", id="not an object"),
        pytest.param(
            {"CNI_COMMAND": "ADD"}, b'{"cniVersion": "1.2.0"}', 1, "1.2.0", id="a newer version"
        ),
        pytest.param(
            {"CNI_COMMAND": "ADD"}, b'{"cniVersion": 1}', 6, "cniVersion", id="version is a number"
        ),
        pytest.param(
            {"CNI_COMMAND": "ADD"},
            b'{"cniVersion": "1.0.0", "timeoutSeconds": 0}',
            7,
            "from 1 to 300",
            id="no time at all",
        ),
        pytest.param(
            {"CNI_COMMAND": "ADD"},
            b'{"cniVersion": "1.0.0", "timeoutSeconds": 1, "socket": "/nobody"}',
            7,
            "prevResult",
            id="first in the chain",
        ),
        pytest.param(
            {"CNI_COMMAND": "ADD"}, b" " * (1 << 20), 6, "too long", id="a huge configuration"
        ),
    ],
)
def test_what_makes_no_sense_is_an_error_of_cni(
    runtime: Runtime, environment: dict[str, str], config: bytes, code: int, told: str
) -> None:
    answer = runtime.raw(environment, config)
    assert answer.code == 1
    assert answer.json["code"] == code
    assert told in answer.output


@pytest.mark.parametrize(
    ("pod", "others", "starts"),
    [
        ("t1/web", "strict", False),
        ("t1/web", "open", False),
        ("kube-system/dns", "strict", True),
        ("never-heard-of/web", "strict", False),
        ("never-heard-of/web", "open", True),
        ("", "strict", True),
    ],
    ids=["strict tenant", "strict among open", "no tenant", "unknown", "unknown, open", "no pod"],
)
def test_without_an_agent_only_pods_of_strict_namespaces_are_refused(
    runtime: Runtime, pod: str, others: str, starts: bool
) -> None:
    runtime.namespaces.write_text(PAGE.format(others=others))
    previous = result(["10.7.0.1"])
    answer = runtime.call("ADD", pod=pod, previous=previous)
    if starts:
        assert (answer.code, answer.json) == (0, previous)
    else:
        assert (answer.code, answer.json["code"]) == (1, 11)
        assert "is the ringfence agent running?" in answer.output


def test_where_no_agent_ever_was_nothing_starts(runtime: Runtime) -> None:
    runtime.namespaces.unlink()
    assert runtime.call("ADD", pod="kube-system/dns", previous=result([])).code == 1


@pytest.mark.parametrize(
    ("command", "pod", "code"),
    [
        ("CHECK", "t1/web", 11),
        ("CHECK", "kube-system/dns", None),
        ("DEL", "t1/web", None),
        ("GC", "", None),
        ("STATUS", "", 50),
    ],
)
def test_without_an_agent_other_commands_ask_for_no_more_than_add(
    runtime: Runtime, command: str, pod: str, code: int | None
) -> None:
    answer = runtime.call(command, pod=pod, previous=result([]))
    if code is None:
        assert (answer.code, answer.output) == (0, "")
    else:
        assert (answer.code, answer.json["code"]) == (1, code)


@pytest.mark.parametrize("command", ["DEL", "GC"])
@pytest.mark.parametrize(
    ("more", "config"),
    [
        ({}, b""),
        ({}, b"nonsense"),
        ({}, b'{"cniVersion": "7.0.0"}'),
        ({}, b'{"cniVersion": {}}'),
        ({}, b'{"cniVersion": "1.0.0", "timeoutSeconds": "soon"}'),
        ({}, b" " * (1 << 20)),
        ({"CNI_ARGS": "a\nb"}, b"{}"),
        ({"CNI_NETNS": "/proc/nothing/ns/net"}, b"{}"),
    ],
    ids=["nothing", "no JSON", "version", "no version", "time", "huge", "two lines", "no netns"],
)
def test_del_and_gc_never_fail(
    runtime: Runtime, command: str, more: dict[str, str], config: bytes
) -> None:
    answer = runtime.raw({"CNI_COMMAND": command, **more}, config)
    assert (answer.code, answer.output) == (0, "")


@pytest.mark.parametrize("told", [b"nonsense", b"1 error\n{}", b""])
@pytest.mark.parametrize("command", ["DEL", "GC"])
def test_del_and_gc_do_not_fail_whatever_an_agent_says(
    runtime: Runtime, command: str, told: bytes
) -> None:
    with listening(runtime.socket, told):
        answer = runtime.call(command, pod="t1/web")
    assert (answer.code, answer.output) == (0, "")


def test_the_result_before_us_is_printed_byte_by_byte(runtime: Runtime) -> None:
    previous = '{ "ips":[ {"address" : "10.7.0.1\\/32"}],"x":1.50, "ips2": "}]\\"" }'
    config = '{"prevResult": %s, "cniVersion":"1.0.0", "timeoutSeconds": 1, "socket": "/nobody"}'
    answer = runtime.raw({"CNI_COMMAND": "ADD"}, (config % previous).encode())
    assert answer.output == previous + "\n"


def test_the_agent_hears_environment_and_configuration(runtime: Runtime) -> None:
    with listening(runtime.socket, b"0 nothing\n") as heard:
        answer = runtime.call("DEL", container="c7", pod="t1/web", uid="u1")
    assert (answer.code, answer.output) == (0, "")
    head, _, body = heard[0].partition(b"\n\n")
    lines = head.decode().removeprefix("1").splitlines()
    assert lines[:2] == ["CNI_COMMAND=DEL", "CNI_CONTAINERID=c7"]
    assert lines[-1].startswith("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=t1;")
    assert json.loads(body)["cniVersion"] == "1.1.0"


def test_an_agent_that_hangs_up_is_asked_again_until_time_is_up(runtime: Runtime) -> None:
    with listening(runtime.socket, b"") as heard:
        answer = runtime.call("ADD", pod="t1/web", previous=result([]))
    assert (answer.code, answer.json["code"]) == (1, 11)
    assert len(heard) > 1


@pytest.mark.parametrize("answer", [b"nonsense", b"2 text\n", b"0previous\n"])
def test_an_answer_that_is_none_is_an_error(runtime: Runtime, answer: bytes) -> None:
    with listening(runtime.socket, answer):
        told = runtime.call("ADD", pod="kube-system/dns", previous=result([]))
    assert (told.code, told.json["code"]) == (1, 5)
