"""The loop that reads from all connections, and the threads that answer whole requests.

A connection is watched for one event at a time (EPOLLONESHOT), so at any moment it belongs either
to the loop or to one thread of the pool, and a thread may write its answer and arm the next wait
without asking the loop. Established connections go before handshakes, of which only a few are done
a turn; when descriptors run out the connection that is worth least is closed, and the loop goes on.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus

from generators.process.logs import event
from generators.serving.connections import (
    INCOMPLETE,
    Connections,
    Phase,
    ServerConnection,
    admitted,
    source_of,
)
from generators.serving.http import CONTINUE, HttpRequest, RequestReader, UnreadableRequest, render
from generators.serving.service import HttpService, named

log = logging.getLogger("ringfence.serving")

PIECE = 64 * 1024
PIECES = 16
"""Reads of one connection before the others have their turn."""
HANDSHAKES = 8
"""Steps of handshakes a turn, and as many accepted: they cost more than anything else here."""
ACCEPTS = 8
SWEEP_SECONDS = 0.25
TELL_SECONDS = 1.0
LINGERING = 32 * 1024 * 1024
"""Bytes that are thrown away behind a refused request, so that the client sees the answer."""
RESTING = (Phase.NEW, Phase.IDLE)
SHAKING = (Phase.NEW, Phase.HANDSHAKE)
ONCE = select.EPOLLIN | select.EPOLLONESHOT
WRITABLE = select.EPOLLOUT | select.EPOLLONESHOT
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@dataclass(slots=True, eq=False)
class ClientConnection(ServerConnection):
    """A connection with its socket and parser."""

    socket: socket.socket = field(default=None, kw_only=True)  # type: ignore[assignment]
    reader: RequestReader = field(default=None, kw_only=True)  # type: ignore[assignment]
    fd: int = field(default=-1, kw_only=True)
    out: memoryview = field(default=memoryview(b""), kw_only=True)
    keep: bool = field(default=True, kw_only=True)
    linger: bool = field(default=False, kw_only=True)
    thrown: int = field(default=0, kw_only=True)


class Server:
    """One listening socket with its loop and its pool."""

    def __init__(self, service: HttpService, listener: socket.socket) -> None:
        self.service = service
        self.connections = Connections(service.limits)
        self.busy = 0
        self._listener: socket.socket | None = listener
        self._listening = listener.fileno()
        self._clients: dict[int, ClientConnection] = {}
        self._lock = threading.RLock()
        self._work: queue.SimpleQueue[tuple[ClientConnection, HttpRequest] | None] = (
            queue.SimpleQueue()
        )
        self._again: deque[ClientConnection] = deque()
        self._handshakes: deque[ClientConnection] = deque()
        self._swept = 0.0
        self._told_at, self._untold = float("-inf"), 0
        self._stopped = threading.Event()
        self._loop: threading.Thread | None = None
        listener.setblocking(False)
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._epoll.register(self._listening, select.EPOLLIN)

    def start(self) -> None:
        """Serve in threads, until `stop` or the end of the process."""
        name, going = self.service.name, lambda: not self._stopped.is_set()
        self._loop = threading.Thread(target=self.run, args=(going,), name=name, daemon=True)
        self._loop.start()

    def stop(self) -> None:
        """End what `start` began; connections are closed."""
        self._stopped.set()
        os.eventfd_write(self._wake, 1)
        if self._loop is not None:
            self._loop.join()

    def run(self, alive: Callable[[], bool], grace: float = 0.0) -> None:
        """Serve while `alive()`, which is asked each quarter of a second; then let requests that
        have begun end within `grace` seconds."""
        pool = [
            threading.Thread(target=self._answer_all, name=f"{self.service.name}-{n}", daemon=True)
            for n in range(self.service.limits.threads)
        ]
        for thread in pool:
            thread.start()
        while alive():
            self._turn()
        self._stop_listening()
        end = time.monotonic() + grace
        while time.monotonic() < end and self._end_idle():
            self._turn()
        for client in list(self._clients.values()):
            self._close(client)
        for _ in pool:
            self._work.put(None)
        for thread in pool:
            thread.join(grace)
        self._epoll.close()

    # The loop.

    def _turn(self) -> None:
        waiting = self._handshakes or self._again
        for fd, _ in self._epoll.poll(0 if waiting else SWEEP_SECONDS):
            if fd == self._listening:
                self._accept()
            elif fd == self._wake:
                with suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
            elif (client := self._clients.get(fd)) is not None:
                if client.phase in SHAKING:
                    self._handshakes.append(client)
                else:
                    self._guarded(client, self._go_on)
        for _ in range(len(self._again)):
            self._guarded(self._again.popleft(), self._next)
        for _ in range(min(HANDSHAKES, len(self._handshakes))):
            client = self._handshakes.popleft()
            if client.phase in SHAKING and self._clients.get(client.fd) is client:
                self._guarded(client, self._shake)
        now = time.monotonic()
        if now - self._swept > SWEEP_SECONDS:
            self._swept = now
            self._sweep(now)

    def _guarded(self, client: ClientConnection, step: Callable[[ClientConnection], None]) -> None:
        """One step of one client; what goes wrong in it ends that client alone."""
        try:
            step(client)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._arm(client, ONCE)
        except ssl.SSLWantWriteError:
            self._arm(client, WRITABLE)
        except (OSError, ValueError):
            self._close(client)
        except Exception:
            log.exception("connection_failed")
            self._close(client)

    def _accept(self) -> None:
        for _ in range(ACCEPTS):
            if self._listener is None:
                return
            try:
                plain_socket, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    continue
                self._make_room("descriptors")
                return
            self._admit(plain_socket, str(address[0]))

    def _admit(self, plain_socket: socket.socket, host: str) -> None:
        with self._lock:
            if not admitted(host, self.service.allowed):
                self.connections.refused["source"] += 1
                plain_socket.close()
                return
            if self.connections.full and not self._make_room("connections"):
                plain_socket.close()
                return
            client = self._client(plain_socket, source_of(host))
        if client is not None:
            # Who is late to be accepted has sent its hello by now, and gets ahead of the silent.
            self._guarded(client, self._shake)

    def _client(self, plain_socket: socket.socket, source: str) -> ClientConnection | None:
        """A new client in the table; None when its socket is gone already."""
        try:
            plain_socket.setblocking(False)
            plain_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            used = plain_socket
            if self.service.secure is not None:
                used = self.service.secure().wrap_socket(
                    plain_socket, server_side=True, do_handshake_on_connect=False
                )
        except (OSError, ValueError):
            plain_socket.close()
            return None
        reader = RequestReader(self.service.limits.body)
        client = ClientConnection(source, socket=used, reader=reader, fd=used.fileno())
        self._clients[client.fd] = client
        self.connections.add(client, Phase.NEW, time.monotonic())
        self._epoll.register(client.fd, 0)
        return client

    def _shake(self, client: ClientConnection) -> None:
        secure = client.socket
        if isinstance(secure, ssl.SSLSocket):
            try:
                secure.do_handshake()
            finally:
                self._greeted(client, secure)
            if not named(secure.getpeercert(), self.service.client_names):
                self.connections.refused["client"] += 1
                self._close(client)
                return
            with self._lock:
                self.connections.move(client, Phase.HEAD, time.monotonic())
        self._read(client)

    def _greeted(self, client: ClientConnection, secure: ssl.SSLSocket) -> None:
        """A whole ClientHello is worth more than a part of one."""
        if client.phase is Phase.NEW and secure.shared_ciphers() is not None:
            with self._lock:
                self.connections.move(client, Phase.HANDSHAKE, time.monotonic())

    def _go_on(self, client: ClientConnection) -> None:
        match client.phase:
            case Phase.ANSWER:
                self._write(client)
            case Phase.LINGER:
                self._throw_away(client)
            case Phase.HEAD | Phase.BODY | Phase.IDLE:
                self._read(client)

    def _next(self, client: ClientConnection) -> None:
        """After an answer: another request may be here already."""
        if client.fd in self._clients and client.phase is Phase.IDLE:
            if client.reader.complete:
                self._hand_over(client)
            else:
                self._read(client)

    def _read(self, client: ClientConnection) -> None:
        for _ in range(PIECES):
            data = self._received(client)
            if not data:
                self._ended(client)
                return
            try:
                client.reader.feed(data)
            except UnreadableRequest as error:
                self._refuse(client, error.status, error.problem)
                return
            if client.reader.complete:
                self._hand_over(client)
                return
            if not self._further(client):
                return
        self._arm(client, ONCE)

    def _received(self, client: ClientConnection) -> bytes:
        try:
            return client.socket.recv(PIECE)
        except ssl.SSLEOFError:
            return b""

    def _ended(self, client: ClientConnection) -> None:
        """The client has closed its side: if it was sending, it may still read."""
        if client.reader.begun:
            self._refuse(client, HTTPStatus.BAD_REQUEST, "the request ended too early")
        else:
            self._close(client)

    def _further(self, client: ClientConnection) -> bool:
        """Note how far the request has come; False when this client had to go."""
        reader, now = client.reader, time.monotonic()
        with self._lock:
            if client.phase in RESTING and reader.begun:
                self.connections.move(client, Phase.HEAD, now)
            if client.phase is Phase.HEAD and reader.in_body:
                self.connections.move(client, Phase.BODY, now)
            going = self.connections.weigh(client, reader.buffered)
            for each in going:
                self.connections.refused["large"] += 1
                if each is not client and isinstance(each, ClientConnection):
                    self._close(each)
        if client in going:
            problem = "too many large requests at the same time; try again"
            self._refuse(client, HTTPStatus.SERVICE_UNAVAILABLE, problem)
            return False
        if reader.expects_continue:
            reader.expects_continue = False
            client.socket.send(CONTINUE)
        return True

    def _hand_over(self, client: ClientConnection) -> None:
        request, now = client.reader.complete.popleft(), time.monotonic()
        with self._lock:
            if client.phase in RESTING:
                self.connections.move(client, Phase.HEAD, now)
            going = self.connections.weigh(client, len(request.body))
            for each in going:
                self.connections.refused["large"] += 1
                if each is not client and isinstance(each, ClientConnection):
                    self._close(each)
            self.connections.move(client, Phase.QUEUED, now)
        if client in going:
            problem = "too many large requests at the same time; try again"
            self._refuse(client, HTTPStatus.SERVICE_UNAVAILABLE, problem)
            return
        self._work.put((client, request))

    def _refuse(self, client: ClientConnection, status: HTTPStatus, problem: str) -> None:
        self._tell(client, problem)
        client.linger, client.keep = True, False
        self._send(client, render(self.service.refuse(status, problem), keep_alive=False))

    def _tell(self, client: ClientConnection, problem: str) -> None:
        """A line a second at most, with how many went before it untold."""
        now = time.monotonic()
        if now - self._told_at < TELL_SECONDS:
            self._untold += 1
            return
        event(
            log,
            "bad_request",
            logging.WARNING,
            server=self.service.name,
            client=client.source,
            problem=problem,
            untold=self._untold,
        )
        self._told_at, self._untold = now, 0

    def _throw_away(self, client: ClientConnection) -> None:
        """Without TLS: nothing reads this."""
        while client.thrown < LINGERING and (piece := socket.socket.recv(client.socket, 4 * PIECE)):
            client.thrown += len(piece)
        self._close(client)

    # In the loop and in the threads of the pool.

    def _arm(self, client: ClientConnection, events: int) -> None:
        with suppress(OSError, ValueError):
            self._epoll.modify(client.fd, events)

    def _send(self, client: ClientConnection, data: bytes) -> None:
        client.out = memoryview(data)
        with self._lock:
            self.connections.move(client, Phase.ANSWER, time.monotonic())
        self._write(client)

    def _write(self, client: ClientConnection) -> None:
        while client.out:
            try:
                sent = client.socket.send(client.out)
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._arm(client, WRITABLE)
                return
            client.out = client.out[sent:]
        client.out = memoryview(b"")
        self._answered(client)

    def _answered(self, client: ClientConnection) -> None:
        if not client.keep:
            if client.linger:
                self._shut(client)
            else:
                self._close(client)
            return
        more = bool(client.reader.complete) or client.reader.begun or _pending(client.socket)
        with self._lock:
            self.connections.weigh(client, 0)
            self.connections.move(client, Phase.IDLE, time.monotonic())
        if more:
            self._again.append(client)
            os.eventfd_write(self._wake, 1)
        else:
            self._arm(client, ONCE)

    def _shut(self, client: ClientConnection) -> None:
        with suppress(OSError):
            socket.socket.shutdown(client.socket, socket.SHUT_WR)
        with self._lock:
            self.connections.move(client, Phase.LINGER, time.monotonic())
        self._arm(client, ONCE)

    def _close(self, client: ClientConnection) -> None:
        with self._lock:
            self.connections.remove(client)
            if self._clients.get(client.fd) is client:
                del self._clients[client.fd]
                with suppress(OSError):
                    client.socket.close()

    def _make_room(self, why: str) -> bool:
        """Close the connection that is worth least; False when all are being answered."""
        with self._lock:
            worst = self.connections.worst()
            self.connections.refused[why] += 1
            if not isinstance(worst, ClientConnection):
                return False
            self._close(worst)
            return True

    def _sweep(self, now: float) -> None:
        with self._lock:
            for client in self.connections.expired(now):
                if not isinstance(client, ClientConnection):
                    continue
                if client.phase in (Phase.BODY, Phase.HEAD) and client.reader.begun:
                    self._guarded(client, self._too_slow)
                else:
                    self._close(client)

    def _too_slow(self, client: ClientConnection) -> None:
        self._refuse(client, HTTPStatus.REQUEST_TIMEOUT, "the request took too long")

    def _stop_listening(self) -> None:
        """Who connects from now on is refused, not left in the queue."""
        if self._listener is not None:
            with suppress(OSError):
                self._epoll.unregister(self._listening)
            self._listener.close()
            self._listener = None

    def _end_idle(self) -> bool:
        """Close connections without a request; returns whether any is left."""
        with self._lock:
            for client in list(self._clients.values()):
                idle = client.phase in (*INCOMPLETE, Phase.IDLE) and not client.reader.begun
                if idle or client.phase is Phase.LINGER:
                    self._close(client)
            return bool(self._clients)

    # The threads of the pool.

    def _answer_all(self) -> None:
        while (work := self._work.get()) is not None:
            client, request = work
            try:
                self._answer(client, request)
            except (OSError, ValueError):
                self._close(client)
            except Exception:
                log.exception("answer_failed")
                self._close(client)

    def _answer(self, client: ClientConnection, request: HttpRequest) -> None:
        with self._lock:
            if self._clients.get(client.fd) is not client:
                return  # its time was over in the queue
            self.connections.move(client, Phase.BUSY, time.monotonic())
            self.busy += 1
        try:
            answer = self.service.handle(request)
        finally:
            with self._lock:
                self.busy -= 1
        client.keep = request.keep_alive and not self.service.ending()
        self._send(client, render(answer, client.keep, with_body=request.method != "HEAD"))


def _pending(sock: socket.socket) -> bool:
    """Whether TLS holds bytes that the descriptor will not tell of."""
    return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
