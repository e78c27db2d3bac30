"""Lines are short, and a pipe that nobody reads stops nobody."""

from __future__ import annotations

import json
import logging
import os
from contextlib import closing

import orjson

from generators.process.logs import (
    LONGEST,
    LONGEST_TRACEBACK,
    MOST,
    JsonFormatter,
    Unblocking,
    event,
)

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


def written(**fields: object) -> dict[str, object]:
    """The line of an event."""
    reading, writing = os.pipe()
    with closing(os.fdopen(reading, "rb", buffering=0)) as reader:
        event(logger_to(writing), "review", logging.INFO, **fields)
        line = json.loads(reader.read(1 << 16))
    os.close(writing)
    assert isinstance(line, dict)
    return line


LONG = "n" * 1_000_000
CUT = "n" * LONGEST + "... (1000000 characters)"


def test_a_long_text_is_cut_and_its_length_is_said() -> None:
    line = written(name=LONG, names=[LONG, "b"])
    assert (line["name"], line["names"]) == (CUT, [CUT, "b"])


def test_of_many_items_the_first_are_said() -> None:
    many = [f"policy-{number}" for number in range(5_000)]
    assert written(policies=many)["policies"] == [*many[:MOST], "... (5000 items)"]


def test_of_a_long_traceback_the_end_is_said() -> None:
    reading, writing = os.pipe()
    with closing(os.fdopen(reading, "rb", buffering=0)) as reader:
        try:
            raise ValueError(LONG + "the end")
        except ValueError:
            logger_to(writing).exception("internal_error")
        told = str(json.loads(reader.read(1 << 16))["exception"])
    os.close(writing)
    assert told.endswith("the end")
    assert len(told) < LONGEST_TRACEBACK + 100


def test_half_a_character_costs_no_line() -> None:
    assert written(file="a\udcff.yaml")["file"] == "a\udcff.yaml"
