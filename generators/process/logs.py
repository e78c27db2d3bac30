"""Logs of all long-lived processes: one JSON object a line on stderr, from stdlib logging.

Long texts are cut, and a reader of stderr that has stopped costs lines, never time.

`event(logger, "namespace_reviewed", user=..., allowed=...)` writes the fields beside time, level
and event.
"""

from __future__ import annotations

import json
import logging
import os
import select
import stat
import sys
from datetime import UTC, datetime

import orjson

FIELDS = "ringfence_fields"
LONGEST = 1024
"""Characters of one field."""
MOST = 100
"""Items of a list or map in one field."""
LONGEST_TRACEBACK = 16 * 1024
"""Its end counts: there the error is named."""
PIECE = select.PIPE_BUF
"""What a pipe takes whole, or not at all."""
PATIENCE_MILLISECONDS = 50
"""For the rest of a line that is longer."""


def shortened(value: object) -> object:
    """A value of a line: what clients and users send may be long, or many."""
    if isinstance(value, str) and len(value) > LONGEST:
        return f"{value[:LONGEST]}... ({len(value)} characters)"
    if isinstance(value, list | tuple):
        more = [f"... ({len(value)} items)"] if len(value) > MOST else []
        return [*map(shortened, value[:MOST]), *more]
    return value


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON; control characters of user input cannot break the line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": shortened(record.getMessage()),
        }
        fields = getattr(record, FIELDS, None)
        if isinstance(fields, dict):
            line.update({name: shortened(value) for name, value in fields.items()})
        if record.exc_info:
            traceback = self.formatException(record.exc_info)
            cut = len(traceback) - LONGEST_TRACEBACK
            line["exception"] = f"({cut} characters) ...{traceback[cut:]}" if cut > 0 else traceback
        try:
            return orjson.dumps(line, default=str).decode("utf-8")
        except TypeError:  # half a character, as YAML and names of files can have it
            return json.dumps(line, default=str)


def event(
    logger: logging.Logger, name: str, level: int = logging.INFO, /, **fields: object
) -> None:
    """Log one structured event."""
    logger.log(level, name, extra={FIELDS: fields})


class Unblocking(logging.Handler):
    """Writes to a descriptor, and drops lines while its reader is slow.

    Threads that answer requests log too: a full pipe must not stop them. The next line says how
    many were dropped.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = _own(descriptor)
        self._writable = select.poll()
        self._writable.register(self._descriptor, select.POLLOUT)
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line, or count it."""
        try:
            line = self.format(record)
            if self._dropped:
                told = logging.makeLogRecord(
                    {
                        "name": "ringfence",
                        "levelno": logging.WARNING,
                        "levelname": "WARNING",
                        "msg": "log_lines_dropped",
                        FIELDS: {"lines": self._dropped},
                    }
                )
                if not self._write(self.format(told)):
                    self._dropped += 1
                    return
                self._dropped = 0
            if not self._write(line):
                self._dropped += 1
        except Exception:
            # `handleError` writes to stderr, and waits there.
            self._dropped += 1

    def _write(self, line: str) -> bool:
        """Whether all of it was taken; of a long line the rest may be lost with its reader."""
        rest, patience = memoryview(f"{line}\n".encode()), 0
        while rest:
            if not self._writable.poll(patience):
                return False
            try:
                taken = os.write(self._descriptor, rest[:PIECE])
            except BlockingIOError:
                return False
            rest, patience = rest[taken:], PATIENCE_MILLISECONDS
        return True


def _own(descriptor: int) -> int:
    """A pipe, reopened as non-blocking: a flag on ours would affect other processes too.
    Where that is not allowed, and for everything else, the descriptor itself."""
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return descriptor
    try:
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(f"/proc/self/fd/{descriptor}", flags)
    except OSError:
        return descriptor


def configure() -> None:
    """Send every logger of this process to stderr as JSON."""
    handler: logging.Handler
    try:
        handler = Unblocking(sys.stderr.fileno())
    except (OSError, ValueError):  # not a file: a test has put something in its place
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
