"""Logs of all long-lived processes: one JSON object a line on stderr, from stdlib logging.

`event(logger, "namespace_reviewed", user=..., allowed=...)` writes the fields beside time, level
and event.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import orjson

FIELDS = "ringfence_fields"


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON; control characters of user input cannot break the line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        fields = getattr(record, FIELDS, None)
        if isinstance(fields, dict):
            line.update(fields)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode("utf-8")


def event(
    logger: logging.Logger, name: str, level: int = logging.INFO, /, **fields: object
) -> None:
    """Log one structured event."""
    logger.log(level, name, extra={FIELDS: fields})


def configure() -> None:
    """Send every logger of this process to stderr as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
