"""TCP between two pods, one process at each end: `python -m bench.parts.stream ...`

serve PORT               takes bytes, or echoes them; prints a line once
                          it listens
send HOST PORT SECONDS   prints the bits per second that arrived
ask HOST PORT COUNT      prints the seconds of each request and answer
connect HOST PORT COUNT  prints the seconds of each connection that asks once
pulse HOST PORT          asks until no answer comes; prints when the last did
flood HOST PORT RATE SECONDS  datagrams that nothing receives; prints how many
"""

from __future__ import annotations

import json
import socket
import sys
import time
from contextlib import suppress

SINK, ECHO = b"S", b"E"
CHUNK = 1 << 20
COUNT_BYTES = 8
TIMEOUT_SECONDS = 20
SILENCE_SECONDS = 1


def serve(port: int) -> None:
    """Serve one connection after the other, on both families."""
    server = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    print("listening", flush=True)
    while True:
        connection, _ = server.accept()
        # A connection that was cut ends with an error, and the next one is waiting.
        with connection, suppress(TimeoutError, ConnectionError):
            connection.settimeout(TIMEOUT_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if connection.recv(1) == SINK:
                _sink(connection)
            else:
                _echo(connection)


def _sink(connection: socket.socket) -> None:
    buffer, total = bytearray(CHUNK), 0
    while received := connection.recv_into(buffer):
        total += received
    connection.sendall(total.to_bytes(COUNT_BYTES, "big"))


def _echo(connection: socket.socket) -> None:
    while data := connection.recv(1):
        connection.sendall(data)


def send(host: str, port: int, seconds: float) -> float:
    """Bits per second that the other end has taken."""
    chunk = bytes(CHUNK)
    with _connected(host, port, SINK) as connection:
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            connection.sendall(chunk)
        connection.shutdown(socket.SHUT_WR)
        total = int.from_bytes(connection.recv(COUNT_BYTES, socket.MSG_WAITALL), "big")
        return total * 8 / (time.perf_counter() - start)


def ask(host: str, port: int, count: int) -> list[float]:
    """Seconds of each request of one byte and its answer."""
    samples = []
    with _connected(host, port, ECHO) as connection:
        for _ in range(count):
            start = time.perf_counter()
            connection.sendall(ECHO)
            connection.recv(1)
            samples.append(time.perf_counter() - start)
    return samples


def connect(host: str, port: int, count: int) -> list[float]:
    """Seconds of each connection that is opened, asked one byte and closed."""
    samples = []
    for _ in range(count):
        start = time.perf_counter()
        with _connected(host, port, ECHO) as connection:
            connection.sendall(ECHO)
            connection.recv(1)
        samples.append(time.perf_counter() - start)
    return samples


def pulse(host: str, port: int) -> float:
    """When, on the monotonic clock, the last answer came; prints a line after the first."""
    with _connected(host, port, ECHO) as connection:
        connection.sendall(ECHO)
        connection.recv(1)  # patient: the other end may still be busy with the one before
        print("open", flush=True)
        connection.settimeout(SILENCE_SECONDS)
        last = time.monotonic()
        with suppress(TimeoutError):
            while True:
                connection.sendall(ECHO)
                connection.recv(1)
                last = time.monotonic()
        return last


def flood(host: str, port: int, rate: int, seconds: float) -> int:
    """Datagrams at a rate, in batches of a hundredth of a second; how many were sent."""
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    sent, start = 0, time.monotonic()
    with socket.socket(kind, socket.SOCK_DGRAM) as sender:
        while (elapsed := time.monotonic() - start) < seconds:
            while sent < elapsed * rate:
                sender.sendto(SINK, (host, port))
                sent += 1
            time.sleep(0.01)
    return sent


def _connected(host: str, port: int, mode: bytes) -> socket.socket:
    connection = socket.create_connection((host, port), timeout=TIMEOUT_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(mode)
    return connection


def main() -> None:
    """Entry point; see the module's docstring."""
    match sys.argv[1:]:
        case ["serve", port]:
            serve(int(port))
        case ["send", host, port, seconds]:
            print(json.dumps([send(host, int(port), float(seconds))]))
        case ["ask", host, port, count]:
            print(json.dumps(ask(host, int(port), int(count))))
        case ["connect", host, port, count]:
            print(json.dumps(connect(host, int(port), int(count))))
        case ["pulse", host, port]:
            print(json.dumps(pulse(host, int(port))))
        case ["flood", host, port, rate, seconds]:
            print(json.dumps(flood(host, int(port), int(rate), float(seconds))))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
