"""How a node's processes reach the API server: a relay whose sockets are in two network namespaces.

The agent lives in its node's network namespace, from which nothing of the machine can be reached,
and that stays so: no interface, address or route of the machine is touched. Instead this process
listens on the loopback of every node, and what it accepts there it connects from the machine's own
network namespace (a socket belongs to the one it was made in). It knows one target only.
`python -m lab.api.uplink HOST PORT LISTEN NETNS...` is a process of the lab. An API server that
real nodes can reach is in a network namespace itself (`--server`): then the machine's own loopback
is one of those that lead to it.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path

from lab import netns
from lab.names import LOOPBACK

CHUNK = 1 << 16


def listeners(names: Sequence[str], port: int) -> list[socket.socket]:
    """A listening socket on the loopback of each network namespace."""
    found = []
    for name in names:
        with netns.inside(name):
            found.append(_listener(port))
    return found


def _listener(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((LOOPBACK, port))
    listener.listen(128)
    return listener


async def relay(sockets: Sequence[socket.socket], host: str, port: int) -> None:
    """Join whatever comes in to the target, until cancelled."""

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(host, port)
        except OSError:
            writer.transport.abort()  # as if the target had refused it here
            return
        await asyncio.gather(_copy(reader, back), _copy(there, writer))
        for end in (back, writer):
            end.close()

    servers = [await asyncio.start_server(join, sock=listener) for listener in sockets]
    await asyncio.gather(*(server.serve_forever() for server in servers))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction, to its end; the receiver learns of it and may still answer."""
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.transport.abort()


def main() -> None:
    """Relay until killed."""
    parser = argparse.ArgumentParser(description="lead a lab's nodes to their API server")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("listen", type=int)
    parser.add_argument("ready", type=Path, help="made as soon as all nodes are served")
    parser.add_argument("netns", nargs="+")
    parser.add_argument("--server", metavar="NETNS", help="where the API server is, if not here")
    asked = parser.parse_args()
    sockets = listeners(asked.netns, asked.listen)
    if asked.server is not None:
        sockets.append(_listener(asked.listen))
        netns.enter(asked.server)
    asked.ready.touch()
    asyncio.run(relay(sockets, asked.host, asked.port))


if __name__ == "__main__":
    main()
