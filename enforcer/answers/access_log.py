"""The proxy's access log: requests that it judged, over a UNIX socket, into the feed.

Envoy's fluentd logger connects and sends batches `[tag, [[time, record], ...]]` of msgpack; it
keeps and sends again what nobody takes. What is no such batch ends the connection, and is counted.
"""

from __future__ import annotations

import logging
import os
import socket
import socketserver
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgpack  # type: ignore[import-untyped]  # has no types

from enforcer.agent.unix_socket import UnixSocketServer
from enforcer.observe.requests import HttpRecord
from enforcer.policy.tables import Dir
from generators.addresses import parse_address
from generators.process.logs import event

SOCKET = "access.sock"
CHUNK = 1 << 16
LARGEST_BATCH = 1 << 20
WAITING = 8
NANOSECONDS = 1_000_000_000
ABSENT = "-"
DENIED = "denied"
"""Name of the route that answers what no rule lets pass."""

Take = Callable[[Iterable[HttpRecord]], None]

log = logging.getLogger("ringfence.enforcer")


@contextmanager
def listening(directory: Path, take: Take) -> Iterator[None]:
    """Take what the proxy says, in the proxy's directory, until the end."""
    server = access_log_server(directory, take)
    server.start()
    try:
        yield
    finally:
        server.stop()


def access_log_server(directory: Path, take: Take) -> UnixSocketServer:
    """The serving side, in the proxy's directory, whose group may connect."""
    server = UnixSocketServer(directory / SOCKET, _handler(take), WAITING)
    os.chown(directory / SOCKET, -1, directory.stat().st_gid)
    (directory / SOCKET).chmod(0o660)
    return server


def _handler(take: Take) -> type[socketserver.BaseRequestHandler]:
    class Handler(socketserver.BaseRequestHandler):
        request: socket.socket

        def handle(self) -> None:
            try:
                for batch in batches(iter(lambda: self.request.recv(CHUNK), b"")):
                    take(batch)
            except ValueError as error:
                event(log, "access_log_unreadable", logging.ERROR, error=str(error))
            except OSError:
                return  # the proxy has gone

    return Handler


def batches(chunks: Iterable[bytes]) -> Iterator[tuple[HttpRecord, ...]]:
    """The records in a stream, a batch at a time; ValueError for what is none."""
    unpacker = msgpack.Unpacker(max_buffer_size=LARGEST_BATCH, unicode_errors="replace")
    for chunk in chunks:
        try:
            unpacker.feed(chunk)
            found = list(unpacker)
        except (msgpack.BufferFull, msgpack.UnpackException) as error:
            raise ValueError(f"is no batch: {error!r}") from None
        for item in found:
            yield tuple(map(_record, _records(item)))


def _records(batch: object) -> Iterator[Mapping[str, str]]:
    if not isinstance(batch, list) or len(batch) < 2 or not isinstance(batch[1], list):
        raise ValueError("is no batch: not [tag, entries]")
    for entry in batch[1]:
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[1], dict):
            raise ValueError("is no entry: not [time, record]")
        yield {str(key): str(value) for key, value in entry[1].items() if value != ABSENT}


def _record(found: Mapping[str, str]) -> HttpRecord:
    source, source_port = _socket(found.get("src", ""))
    destination, destination_port = _socket(found.get("dst", ""))
    route = found.get("route", "")
    return HttpRecord(
        time=_nanoseconds(found.get("t", "")),
        direction=Dir.EGRESS if found.get("leg") == "egress" else Dir.INGRESS,
        source=source,
        source_port=source_port,
        destination=destination,
        destination_port=destination_port,
        method=found.get("method", ""),
        path=found.get("path", ""),
        host=found.get("host", ""),
        protocol=found.get("protocol", ""),
        code=_number(found.get("code", "")),
        latency=_number(found.get("ms", "")) * 1_000_000,
        rule="" if route == DENIED else route,
    )


def _nanoseconds(text: str) -> int:
    """Of seconds with a fraction."""
    whole, _, fraction = text.partition(".")
    return _number(whole) * NANOSECONDS + _number(f"{fraction:0<9}"[:9])


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _socket(text: str) -> tuple[str, int]:
    """`10.0.0.1:80`, `[fd00::1]:80`."""
    address, _, port = text.rpartition(":")
    try:
        return str(parse_address(address.strip("[]"))), _number(port)
    except ValueError:
        return "", 0
