"""A WSGI application as a handler: Flask's admission and the client library's metrics."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from generators.serving.http import Answer, HttpRequest

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

UNPREFIXED = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}
OURS = frozenset({"content-length", "content-type", "connection", "date"})
"""Headers of an answer that the server writes itself."""


def handler(application: WSGIApplication, scheme: str = "http") -> Callable[[HttpRequest], Answer]:
    """What calls the application with a whole request and takes its whole answer."""

    def handle(request: HttpRequest) -> Answer:
        told: list[tuple[str, list[tuple[str, str]]]] = []

        def start(status: str, headers: list[tuple[str, str]], _error: object = None) -> Any:  # noqa: ANN401  # as the typed WSGI protocol has it
            told[:] = [(status, headers)]
            return None

        parts = application(_environ(request, scheme), start)
        try:
            body = b"".join(parts)
        finally:
            close = getattr(parts, "close", None)
            if close is not None:
                close()
        return _answer(*told[0], body)

    return handle


def _answer(status: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
    kind = next((value for name, value in headers if name.lower() == "content-type"), "text/plain")
    rest = tuple((name, value) for name, value in headers if name.lower() not in OURS)
    return Answer(int(status.split(" ", 1)[0]), body, kind, rest)


def _environ(request: HttpRequest, scheme: str) -> dict[str, object]:
    environ: dict[str, object] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": _path(request.path),
        "QUERY_STRING": request.query,
        "SERVER_NAME": "ringfence",
        "SERVER_PORT": "0",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in request.headers:
        if name == "transfer-encoding":
            continue  # undone already
        key = UNPREFIXED.get(name) or "HTTP_" + name.upper().replace("-", "_")
        before = environ.get(key)
        environ[key] = value if before is None else f"{before},{value}"
    environ["CONTENT_LENGTH"] = str(len(request.body))  # also where it came in chunks
    return environ


def _path(target: str) -> str:
    """The path as WSGI has it: unquoted, each byte a character."""
    if "%" not in target:
        return target
    from urllib.parse import unquote_to_bytes

    return unquote_to_bytes(target).decode("latin-1")
