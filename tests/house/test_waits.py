"""Every wait of the tests has a deadline, and a busy machine stretches it in one place."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import durations
from tests.testbed.waiting import STRETCH_AT_MOST, ended, ending, eventually, stretch

ENDLESS = {"wait", "join", "communicate", "result", "acquire"}
"""Of processes, threads, events, futures: without an argument they wait for ever."""
OWN = Path("tests/testbed/waiting.py")


def waits_without_deadline(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.With):
            for item in node.items:
                if ast.unparse(item.context_expr).startswith("subprocess.Popen("):
                    yield node.lineno, "with subprocess.Popen: tests.testbed.waiting.ending"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = node.func.attr
            if name in ENDLESS and not node.args and not node.keywords:
                yield node.lineno, f"{ast.unparse(node)}: say for how long"
            yield from (
                (node.lineno, f"{ast.unparse(given)}: tests.testbed.waiting.patience")
                for given in _limits(node, name)
                if isinstance(given, ast.Constant)
                and isinstance(given.value, int | float)
                and given.value > 1
            )


def _limits(call: ast.Call, name: str) -> list[ast.expr]:
    if name == "settimeout":
        return call.args
    return [keyword.value for keyword in call.keywords if keyword.arg == "timeout"]


def test_every_wait_of_the_tests_has_a_deadline_that_a_busy_machine_stretches(
    checkout: Path,
) -> None:
    found = [
        f"{path.relative_to(checkout)}:{line}: {what}"
        for path in sorted((checkout / "tests").rglob("*.py"))
        if path.relative_to(checkout) != OWN
        for line, what in waits_without_deadline(ast.parse(path.read_text()))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        pytest.param("process.wait()", 1, id="a wait for ever"),
        pytest.param("thread.join(patience(3))", 0, id="one that has an end"),
        pytest.param("run(x, timeout=30)", 0, id="a name of its own"),
        pytest.param("subprocess.run(x, timeout=30)", 1, id="seconds of a quiet machine"),
        pytest.param("subprocess.run(x, timeout=patience(30))", 0, id="seconds of this machine"),
        pytest.param("queue.get(timeout=0.5)", 0, id="a look"),
        pytest.param("with subprocess.Popen(x) as p: pass", 1, id="a block without end"),
        pytest.param("with ending(subprocess.Popen(x)) as p: pass", 0, id="a block with one"),
    ],
)
def test_such_waits_are_found(code: str, found: int) -> None:
    assert len(list(waits_without_deadline(ast.parse(code)))) == found


@pytest.mark.parametrize(
    ("load", "cores", "wanted", "expected"),
    [
        pytest.param(0.1, 2, "", 2.0, id="quiet"),
        pytest.param(6.0, 2, "", 6.0, id="three times as many as cores"),
        pytest.param(6.0, 64, "", 2.0, id="the same on many cores"),
        pytest.param(900.0, 2, "", STRETCH_AT_MOST, id="a broken test must still fail some day"),
        pytest.param(900.0, 2, "1.5", 1.5, id="as somebody said"),
    ],
)
def test_a_busy_machine_gets_more_time(
    load: float, cores: int, wanted: str, expected: float
) -> None:
    assert stretch(load, cores, wanted) == expected


def test_a_condition_that_never_comes_fails_with_what_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RINGFENCE_PATIENCE", "0.01")
    with pytest.raises(AssertionError, match="the pig flies"):
        eventually(lambda: False, "the pig flies", 1)


DEAF = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {2, 15}); print(1, flush=True); "


def _stays(process: subprocess.Popen[str]) -> None:
    ended(process, 1)


def _block_ends(process: subprocess.Popen[str]) -> None:
    with ending(process):
        raise TimeoutError


@pytest.mark.parametrize(
    ("leave", "error"), [(_stays, subprocess.TimeoutExpired), (_block_ends, TimeoutError)]
)
def test_a_process_that_does_not_end_is_ended(
    monkeypatch: pytest.MonkeyPatch,
    leave: Callable[[subprocess.Popen[str]], None],
    error: type[Exception],
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", f"{DEAF}import time; time.sleep(600)"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    monkeypatch.setenv("RINGFENCE_PATIENCE", "0.5")
    with pytest.raises(error):
        leave(process)
    assert process.returncode == -signal.SIGKILL


def test_the_files_that_begin_first_are_there_and_in_order(checkout: Path) -> None:
    seconds = durations()
    assert [path for path in seconds if not (checkout / path).exists()] == []
    assert list(seconds.values()) == sorted(seconds.values(), reverse=True)
