"""What runs "in" the lab's pods: one process that answers on every declared port of every pod with
the pod's name.

A socket belongs to the network namespace it was made in, whatever its process does later, so one
event loop serves all pods. TCP: a client that sends a line gets `NAMESPACE/POD`, one that sends an
HTTP request a response, which for any path but / also says what was requested from which address;
UDP: every datagram is answered with the name. `lab up` runs this module as a process and sends it
the pods over a UNIX socket (`announce`); the prober uses `Responder` during a probe where nothing
listens.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import resource
import selectors
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from generators.errors import RingfenceError
from lab import netns

BACKLOG = 4096
ANNOUNCE_SECONDS = 20.0
TYPES = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}
WILDCARDS = ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"))  # noqa: S104  inside a pod
_HTTP = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.[01]\r?\n")
_BEGUN = re.compile(rb"[A-Z]+ /[^\n]*")
"""The first line of a request, before its end."""
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,7}) *\r\n", re.IGNORECASE)
_LONGEST_REQUEST = 1 << 20

Ready = Callable[[], None]
"""What an event loop calls when the file that it was registered for is ready."""


class ResponderFailed(RingfenceError):
    """The responder process does not answer."""


@dataclass(frozen=True, slots=True, order=True)
class Site:
    """A pod as the responder sees it: its name, its network namespace, its TCP and UDP ports."""

    name: str
    netns: str
    ports: tuple[tuple[str, int], ...]


class Responder:
    """Sockets of any number of pods on one selector, whose data is a `Ready`."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._open: dict[Site, list[socket.socket]] = {}

    def serve(self, sites: Iterable[Site]) -> None:
        """Answer for exactly these pods from now on. Ports that other processes hold are theirs."""
        wanted = set(sites)
        for site in set(self._open) - wanted:
            for listener in self._open.pop(site):
                self._forget(listener)
        for site in sorted(wanted - set(self._open)):
            self._open[site] = list(self._listeners(site))

    def close(self) -> None:
        """Stop answering for all pods."""
        self.serve(())

    def _listeners(self, site: Site) -> Iterable[socket.socket]:
        with netns.inside(site.netns):
            for protocol, port in site.ports:
                for family, wildcard in WILDCARDS:
                    listener = _listen(family, wildcard, protocol, port)
                    if listener is not None:
                        self._selector.register(
                            listener,
                            selectors.EVENT_READ,
                            self._answerer(listener, protocol, site.name.encode()),
                        )
                        yield listener

    def _answerer(self, listener: socket.socket, protocol: str, name: bytes) -> Ready:
        def accept() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                connection.setblocking(False)
                heard = bytearray()
                self._selector.register(
                    connection, selectors.EVENT_READ, lambda: self._reply(connection, heard, name)
                )

        def echo() -> None:
            with contextlib.suppress(OSError):
                _, sender = listener.recvfrom(2048)
                listener.sendto(name, sender)

        return accept if protocol == "TCP" else echo

    def _reply(self, connection: socket.socket, heard: bytearray, name: bytes) -> None:
        with contextlib.suppress(OSError):
            more = connection.recv(1 << 16)
            heard += more
            if more and not _is_whole(heard):
                return
            if heard:
                connection.sendall(_answer(bytes(heard), name, connection.getpeername()[0]))
        self._forget(connection)

    def _forget(self, of: socket.socket) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(of)
        of.close()


def announce(control: Path, sites: Sequence[Site]) -> None:
    """Tell the responder process which pods it answers for; returns when it listens."""
    document = [{"name": s.name, "netns": s.netns, "ports": s.ports} for s in sites]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.settimeout(ANNOUNCE_SECONDS)
            channel.connect(str(control))
            channel.sendall(json.dumps(document).encode() + b"\n")
            answer = channel.makefile("rb").readline()
    except OSError as error:
        raise ResponderFailed(
            f"the lab's responder does not answer on {control} ({error}); "
            "run `ringfence lab down` and `ringfence lab up` again"
        ) from error
    if answer != b"ok\n":
        reason = answer.decode(errors="replace").strip()
        raise ResponderFailed(f"the lab's responder cannot listen: {reason or 'it ended'}")


def turn(selector: selectors.BaseSelector, timeout: float | None) -> None:
    """One round of the event loop."""
    for key, _ in selector.select(timeout):
        ready: Ready = key.data
        ready()


def raise_file_limit() -> int:
    """Allow as many open files as the system lets us have; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def run(control: Path) -> None:
    """Serve until killed, for the pods that `announce` names."""
    raise_file_limit()
    control.unlink(missing_ok=True)
    with (
        selectors.DefaultSelector() as selector,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server,
    ):
        responder = Responder(selector)
        server.bind(str(control))
        server.listen()
        selector.register(server, selectors.EVENT_READ, lambda: _obey(server, responder))
        while True:
            turn(selector, None)


def _obey(server: socket.socket, responder: Responder) -> None:
    channel, _ = server.accept()
    with channel, contextlib.suppress(BrokenPipeError):
        channel.settimeout(ANNOUNCE_SECONDS)
        try:
            pods = json.loads(channel.makefile("rb").readline())
            responder.serve(
                Site(
                    pod["name"], pod["netns"], tuple((proto, port) for proto, port in pod["ports"])
                )
                for pod in pods
            )
        except (OSError, ValueError, RingfenceError) as error:
            channel.sendall(f"{error}\n".encode())
        else:
            channel.sendall(b"ok\n")


def _listen(family: int, address: str, protocol: str, port: int) -> socket.socket | None:
    """A listening socket, or None where another process has the port or the family does not
    exist.
    """
    try:
        listener = socket.socket(family, TYPES[protocol] | socket.SOCK_NONBLOCK)
    except OSError:
        return None
    try:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if protocol == "TCP":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        if protocol == "TCP":
            listener.listen(BACKLOG)
    except OSError:
        listener.close()
        return None
    return listener


def _is_whole(heard: bytearray) -> bool:
    """Whether no more of a request is to come; a line that is none is whole at once."""
    if len(heard) > _LONGEST_REQUEST:
        return True
    if _HTTP.match(heard) is None:
        return _BEGUN.fullmatch(heard) is None
    head, blank, body = heard.partition(b"\r\n\r\n")
    length = _LENGTH.search(head + b"\r\n")
    return bool(blank) and len(body) >= (int(length[1]) if length is not None else 0)


def _answer(question: bytes, name: bytes, client: str) -> bytes:
    request = _HTTP.match(question)
    if request is None:
        return name + b"\n"
    method, path = request.groups()
    body = name + b"\n"
    if path != b"/":
        body = b"%s: %s %s from %s\n" % (name, method, path, client.encode())
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + (b"" if method == b"HEAD" else body)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="answer for the pods of a lab")
    parser.add_argument("control", type=Path, help="UNIX socket to take the list of pods from")
    run(parser.parse_args().control)
