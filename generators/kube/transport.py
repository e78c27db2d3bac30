"""HTTP to one API server: pooled connections, credentials that renew, watches that can be cut.

Used by `client.py` only. On `http.client` rather than a larger library, because a watch needs its
socket: to be read with a deadline, to be probed by TCP keepalive, and to be shut down by another
thread.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import logging
import select
import socket
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Self
from urllib.parse import urlencode, urlsplit

import orjson

from generators.errors import RingfenceError
from generators.kube.config import Access, Source
from generators.kube.errors import (
    ApiStatus,
    KubeError,
    Silent,
    TooMuch,
    Unauthorized,
    Unreachable,
    error_for,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LOG = logging.getLogger(__name__)
CONNECT_SECONDS = 5.0
RESPONSE_SECONDS = 35.0
"""A little more than the 30 s that a webhook on the way may take."""
IDLE_CONNECTIONS = 16
IDLE_SECONDS = 60.0
"""The API server closes idle connections after 90 s; better never to meet that moment."""
READ_BYTES = 1 << 16
REPEATABLE = frozenset({"GET", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of an answer when users choose what is requested."""

    seconds: float
    """From the request to the last byte."""
    length: int


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One HTTP request, without what the transport adds."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict, hash=False)
    body: bytes | None = None
    content_type: str = "application/json"
    bounds: Bounds | None = None
    """None = as long as the API server keeps answering."""

    @property
    def target(self) -> str:
        """Path and query."""
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class _TlsConnection(http.client.HTTPSConnection):
    """HTTPS with the name to verify given separately, as kubeconfigs may."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext, server_name: str) -> None:
        super().__init__(host, port, timeout=CONNECT_SECONDS, context=context)
        self._tls = context
        self._server_name = server_name

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._server_name)


def _new_connection(access: Access) -> http.client.HTTPConnection:
    host, port, tunnel = access.host, access.port, False
    if access.proxy:
        proxy = urlsplit(access.proxy)
        host, port, tunnel = proxy.hostname or "", proxy.port or 3128, True
    if access.tls is None:
        connection = http.client.HTTPConnection(host, port, timeout=CONNECT_SECONDS)
    else:
        name = access.server_name or access.host
        connection = _TlsConnection(host, port, access.tls, name)
    if tunnel:
        connection.set_tunnel(access.host, access.port)
    return connection


def _connect(connection: http.client.HTTPConnection) -> socket.socket:
    """Open it, so that the kernel notices within a minute when the other side is gone."""
    connection.connect()
    sock: socket.socket = connection.sock
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    return sock


class _Limit:
    """The bounds of one request while it is under way, over all attempts; ends in TooMuch."""

    def __init__(self, request: ApiRequest) -> None:
        self._request = request
        self._bounds = request.bounds or Bounds(RESPONSE_SECONDS, sys.maxsize)
        self._until = time.monotonic() + self._bounds.seconds

    def left(self) -> float:
        """Seconds that may still pass."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise self.late()
        return left

    def late(self) -> TooMuch:
        """The time is up."""
        return self._too_much(f"the answer takes longer than {self._bounds.seconds:g} s")

    def _too_much(self, why: str) -> TooMuch:
        return TooMuch(str(self._request), ApiStatus(message=why))

    def response_class(self) -> type[http.client.HTTPResponse]:
        """Responses of which every read keeps to the deadline, also those of their headers."""
        limit = self

        class Response(http.client.HTTPResponse):
            def __init__(
                self, sock: socket.socket, debuglevel: int = 0, method: str | None = None
            ) -> None:
                super().__init__(sock, debuglevel, method)
                self.fp = io.BufferedReader(_TimedReads(self.fp, sock, limit), READ_BYTES)

        return Response

    def body(self, response: http.client.HTTPResponse) -> bytes:
        """The whole body, but no more than the bounds allow."""
        with response:
            body = bytearray()
            while chunk := response.read1(READ_BYTES):
                body += chunk
                if len(body) > self._bounds.length:
                    raise self._too_much(f"the answer is longer than {self._bounds.length} bytes")
            if response.length:
                raise http.client.IncompleteRead(bytes(body), response.length)
            return bytes(body)


class _TimedReads(io.RawIOBase):
    """A trickle of bytes cannot extend the wait: each read gets only what is left of the time."""

    def __init__(self, inner: io.BufferedReader, sock: socket.socket, limit: _Limit) -> None:
        super().__init__()
        self._inner, self._socket, self._limit = inner, sock, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        self._socket.settimeout(self._limit.left())
        try:
            return self._inner.raw.readinto(memoryview(buffer))
        except TimeoutError:
            raise self._limit.late() from None

    def close(self) -> None:
        self._inner.close()
        super().close()


class Stream:
    """A response that is read line by line while it grows: a watch.

    `abort` may be called by another thread at any time and ends a blocked read at once.
    """

    def __init__(self, access: Access, request: ApiRequest, headers: Mapping[str, str]) -> None:
        self._connection = _new_connection(access)
        self._request = request
        self._target = access.base_path + request.target
        self._headers = headers
        self._socket: socket.socket | None = None
        self._response: http.client.HTTPResponse | None = None
        self._aborted = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, silence: float) -> None:
        """Send the request; returns when the API server has accepted it."""
        with _network_errors(self._request):
            self._socket = _connect(self._connection)
            if self._aborted.is_set():
                raise ConnectionAbortedError("stopped")
            self._socket.settimeout(RESPONSE_SECONDS)
            self._connection.request("GET", self._target, headers=dict(self._headers))
            self._response = self._connection.getresponse()
            if self._response.status != HTTPStatus.OK:
                body = self._response.read()
                raise _refusal(self._request, self._response, body)
        self.silence_allowed(silence)

    def silence_allowed(self, seconds: float) -> None:
        """How long nothing may come before `lines` raises Silent."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.settimeout(seconds)

    def lines(self) -> Iterator[bytes]:
        """Each line as it arrives; ends when the API server ends the watch in good order."""
        rest = b""
        while chunk := self._read():
            *complete, rest = (rest + chunk).split(b"\n")
            yield from complete

    def _read(self) -> bytes:
        if self._response is None:
            raise Unreachable(str(self._request), "the watch is not open")
        try:
            with _network_errors(self._request):
                return self._response.read1(READ_BYTES)
        except Unreachable as error:
            if isinstance(error.__cause__, TimeoutError):
                raise Silent(str(self._request), "the watch went silent") from error
            raise

    def abort(self) -> None:
        """End it from another thread."""
        self._aborted.set()
        sock = self._socket or self._connection.sock
        if sock is not None:
            # Not SSLSocket.shutdown: that would take the TLS state away from under the reader.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Free the socket."""
        if self._response is not None:
            self._response.close()
        self._connection.close()


class Transport:
    """All connections of one identity to one API server; safe to share between threads."""

    def __init__(self, source: Source, user_agent: str) -> None:
        self._source = source
        self._user_agent = user_agent
        self._lock = threading.Lock()
        self._access = source.load()
        self._loaded_at = time.monotonic()
        self._idle: deque[tuple[float, http.client.HTTPConnection]] = deque()

    @property
    def access(self) -> Access:
        """The server and credentials in use."""
        return self._access

    def send(self, request: ApiRequest) -> bytes:
        """The body of the answer, or the KubeError that it amounts to."""
        access = self._current_access()
        limit = _Limit(request) if request.bounds is not None else None
        try:
            try:
                return self._attempt(access, request, limit)
            except Unauthorized:
                self.reload(access)
                return self._attempt(self._access, request, limit)
        except KubeError as error:
            error.server = access.origin
            raise

    def stream(self, request: ApiRequest) -> Stream:
        """A watch on a connection of its own, not yet open."""
        access = self._current_access()
        return Stream(access, request, self._headers(access, request))

    def reload(self, refused: Access) -> None:
        """Reload credentials because these were refused, unless another thread just has."""
        with self._lock:
            if self._access is refused:
                self._replace(self._source.load())

    def close(self) -> None:
        """Close what is idle; requests on their way end by themselves."""
        with self._lock:
            self._drop_idle()

    def _current_access(self) -> Access:
        with self._lock:
            if time.monotonic() - self._loaded_at > self._source.lifetime:
                self._renew()
            return self._access

    def _renew(self) -> None:
        """Follow the rotation of a token before the old one is refused."""
        self._loaded_at = time.monotonic()
        try:
            fresh = self._source.load()
        except RingfenceError as error:
            # What we have may well be good still; if it is not, the API server will say so.
            LOG.warning("credentials_not_renewed error=%s", error)
            return
        if fresh.authorization != self._access.authorization:
            self._replace(fresh)

    def _replace(self, fresh: Access) -> None:
        self._access = fresh
        self._loaded_at = time.monotonic()
        self._drop_idle()

    def _headers(self, access: Access, request: ApiRequest) -> dict[str, str]:
        headers = {"User-Agent": self._user_agent, "Accept": "application/json"}
        if access.authorization:
            headers["Authorization"] = access.authorization
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        return headers

    def _attempt(self, access: Access, request: ApiRequest, limit: _Limit | None) -> bytes:
        reused = self._take()
        if reused is not None:
            try:
                return self._exchange(reused, access, request, limit)
            except Unreachable as error:
                # The server may have closed an idle connection just now. What may be sent twice is.
                if request.method not in REPEATABLE or isinstance(error.__cause__, TimeoutError):
                    raise
        return self._exchange(_new_connection(access), access, request, limit)

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        access: Access,
        request: ApiRequest,
        limit: _Limit | None,
    ) -> bytes:
        try:
            with _network_errors(request):
                if connection.sock is None:
                    if limit is not None:
                        connection.timeout = min(CONNECT_SECONDS, limit.left())
                    _connect(connection)
                if limit is None:
                    connection.sock.settimeout(RESPONSE_SECONDS)
                    connection.response_class = http.client.HTTPResponse
                else:
                    connection.sock.settimeout(limit.left())
                    connection.response_class = limit.response_class()
                connection.request(
                    request.method,
                    access.base_path + request.target,
                    request.body,
                    self._headers(access, request),
                )
                response = connection.getresponse()
                body = response.read() if limit is None else limit.body(response)
        except KubeError:
            connection.close()
            raise
        self._give_back(connection, access)
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise _refusal(request, response, body)
        return body

    def _take(self) -> http.client.HTTPConnection | None:
        """The idle connection that was used last and is still open."""
        with self._lock:
            while self._idle:
                since, connection = self._idle.pop()
                if time.monotonic() - since < IDLE_SECONDS and not _dropped(connection):
                    return connection
                connection.close()
        return None

    def _give_back(self, connection: http.client.HTTPConnection, access: Access) -> None:
        with self._lock:
            if connection.sock is None or access is not self._access:
                connection.close()
                return
            self._idle.append((time.monotonic(), connection))
            if len(self._idle) > IDLE_CONNECTIONS:
                self._idle.popleft()[1].close()

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop()[1].close()


def _dropped(connection: http.client.HTTPConnection) -> bool:
    """An idle connection with something to read was closed by the other side."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


@contextlib.contextmanager
def _network_errors(request: ApiRequest) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise Unreachable(str(request), "timed out") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        # ValueError: a socket that another thread closed under a read.
        raise Unreachable(str(request), str(error) or type(error).__name__) from error


def _refusal(request: ApiRequest, response: http.client.HTTPResponse, body: bytes) -> KubeError:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = {"message": body[:300].decode(errors="replace").strip()}
    if not isinstance(document, dict):
        document = {}
    status = ApiStatus.parse(document, response.status)
    after = response.headers.get("Retry-After", "")
    if status.retry_after is None and after.isdigit():
        status = ApiStatus(
            status.code, status.reason, status.message, status.causes, retry_after=float(after)
        )
    return error_for(str(request), status)
