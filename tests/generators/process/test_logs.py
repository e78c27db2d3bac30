"""Lines are short, and a pipe that nobody reads stops nobody."""

from __future__ import annotations

import logging
import os
from contextlib import closing

import orjson

from generators.process.logs import LONGEST, JsonFormatter, Unblocking, event

LINES = 2_000


def logger_to(descriptor: int) -> logging.Logger:
    handler = Unblocking(descriptor)
    handler.setFormatter(JsonFormatter())
    found = logging.Logger("test")
    found.addHandler(handler)
    return found


def test_a_full_pipe_costs_lines_and_says_how_many() -> None:
    reading, writing = os.pipe()
    with closing(os.fdopen(reading, "rb", buffering=0)) as reader:
        log = logger_to(writing)
        for number in range(LINES):
            event(log, "line", number=number)
        os.set_blocking(reading, False)
        before = reader.read(1 << 20).splitlines()
        event(log, "after")
        after = reader.read(1 << 20).splitlines()
    os.close(writing)
    assert [orjson.loads(line)["number"] for line in before] == list(range(len(before)))
    assert 0 < len(before) < LINES
    dropped, last = map(orjson.loads, after)
    assert (dropped["event"], dropped["lines"]) == ("log_lines_dropped", LINES - len(before))
    assert last["event"] == "after"


def test_a_long_text_is_cut_and_its_length_is_said() -> None:
    reading, writing = os.pipe()
    with closing(os.fdopen(reading, "rb", buffering=0)) as reader:
        event(logger_to(writing), "review", name="n" * 1_000_000)
        line = orjson.loads(reader.read(1 << 16))
    os.close(writing)
    assert line["name"] == "n" * LONGEST + "... (1000000 characters)"
