"""What people see while they wait, and what -w prints."""

from __future__ import annotations

import os
import pty
import sys
from itertools import islice

import pytest

from generators.output import PIPE_SCREEN, changing, columns, screen, waiting
from tests.testbed.waiting import eventually


def test_a_watch_prints_everything_and_then_the_rows_that_change() -> None:
    first = "NAME  N\na     1\nb     2\n"
    answers = iter([first, first, "NAME     N\na        1\nlonger   2\n"])
    shown = changing(lambda: next(answers), lambda: None)
    assert list(islice(shown, 2)) == [first, "longer   2\n"]


def test_a_pipe_is_told_nothing_while_it_waits(capsys: pytest.CaptureFixture[str]) -> None:
    with waiting("starting"):
        pass
    assert capsys.readouterr() == ("", "")
    assert screen() == PIPE_SCREEN


def test_a_terminal_is_told_what_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `lab up --api-server` does, which takes half a minute."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        read = b""

        def told() -> bool:
            nonlocal read
            read += os.read(ours, 1000)
            return b"starting a lab: " in read

        with waiting("starting a lab"):
            eventually(told, "a line on the terminal")
    os.close(ours)


def test_columns_are_as_wide_as_their_cells() -> None:
    assert columns([["A", "B"], ["long", "x"]]) == "A      B\nlong   x\n"
