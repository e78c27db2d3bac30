"""Requests out of bytes, and answers into bytes: HTTP/1.1 by httptools (llhttp), with bounds.

`RequestReader.feed` takes what came over a connection and raises `UnreadableRequest` at the first
byte that cannot belong to a request worth answering. Nothing here waits, and nothing is read from a
socket.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

import httptools

if TYPE_CHECKING:
    pass

MOST_TARGET = 8190
MOST_FIELD = 8190
MOST_FIELDS = 100
MOST_HEAD = 64 * 1024
"""Bytes of a head that is not whole yet."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class UnreadableRequest(Exception):
    """The bytes are not an acceptable request; `status` is the answer."""

    def __init__(self, status: HTTPStatus, problem: str) -> None:
        self.status, self.problem = status, problem
        super().__init__(problem)


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A whole request; names of headers are in lower case, and all of one name are kept."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)
    keep_alive: bool
    """Whether the client wants to send another on this connection."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler answers."""

    status: int
    body: bytes = field(repr=False)
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


def plain(status: HTTPStatus, text: str) -> Answer:
    """A line of text."""
    return Answer(status, f"{text}\n".encode())


def render(answer: Answer, keep_alive: bool, with_body: bool = True) -> bytes:
    """The answer as it goes over the connection."""
    phrase = HTTPStatus(answer.status).phrase
    lines = [
        f"HTTP/1.1 {answer.status:d} {phrase}",
        f"Date: {formatdate(usegmt=True)}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        f"Connection: {'keep-alive' if keep_alive else 'close'}",
        *(f"{name}: {value}" for name, value in answer.headers),
        "\r\n",
    ]
    head = "\r\n".join(lines).encode("latin-1")
    return head + answer.body if with_body else head


class RequestReader:
    """The parser of one connection."""

    def __init__(self, most_body: int) -> None:
        self.complete: deque[HttpRequest] = deque()
        """Whole requests that have not been taken yet."""
        self.begun = False
        """Whether the first byte of a request has come, and not its last."""
        self.in_body = False
        """Whether the head of that request is whole."""
        self.expects_continue = False
        """Whether the client waits for a word before it sends the body."""
        self.buffered = 0
        """Bytes of the body so far."""
        self._most_body = most_body
        self._parser = httptools.HttpRequestParser(self)
        self._refused: UnreadableRequest | None = None
        self._reset()

    def feed(self, data: bytes) -> None:
        """Take bytes; BadRequest when they are not a request, or too large for one."""
        if not self.in_body:
            self._head += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            raise self._refused or error from error
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise UnreadableRequest(
                HTTPStatus.BAD_REQUEST, f"this is not an HTTP request: {error}"
            ) from error
        if self.begun and not self.in_body and self._head > MOST_HEAD:
            raise UnreadableRequest(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the head is too large"
            )

    def _reset(self) -> None:
        self._target, self._body = bytearray(), bytearray()
        self._fields: list[tuple[str, str]] = []
        self._head = self.buffered = 0
        self.begun = self.in_body = self.expects_continue = False

    def on_message_begin(self) -> None:
        """The parser saw a first byte."""
        self.begun = True

    def on_url(self, piece: bytes) -> None:
        """The parser has a piece of the target."""
        self._target += piece
        if len(self._target) > MOST_TARGET:
            self._refuse(HTTPStatus.REQUEST_URI_TOO_LONG, "the path is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """The parser has a whole header."""
        if len(name) + len(value) > MOST_FIELD or len(self._fields) == MOST_FIELDS:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self._refuse(status, "a header is too long, or there are too many")
        self._fields.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """The parser has the whole head."""
        self.in_body = True
        for name, value in self._fields:
            if name == "content-length" and int(value) > self._most_body:
                self._refuse_body()
            if name == "expect" and value.lower() == "100-continue":
                self.expects_continue = True

    def on_body(self, piece: bytes) -> None:
        """The parser has a piece of the body."""
        self._body += piece
        self.buffered = len(self._body)
        if self.buffered > self._most_body:
            self._refuse_body()

    def on_message_complete(self) -> None:
        """The parser has the whole request."""
        path, _, query = self._target.decode("latin-1").partition("?")
        keep_alive = self._parser.should_keep_alive()
        method = self._parser.get_method().decode("ascii")
        body, fields = bytes(self._body), tuple(self._fields)
        self._reset()
        self.complete.append(HttpRequest(method, path, query, fields, body, keep_alive))

    def _refuse_body(self) -> None:
        problem = f"the body is larger than {self._most_body} bytes"
        self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, problem)

    def _refuse(self, status: HTTPStatus, problem: str) -> None:
        """Httptools wraps what a callback raises; `feed` unwraps it."""
        self._refused = UnreadableRequest(status, problem)
        raise self._refused
