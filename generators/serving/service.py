"""What a server does with requests, and whom it serves: the value that it is made from."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from generators.serving.connections import Network, ServerLimits
from generators.serving.http import Answer, HttpRequest, plain

Handler = Callable[[HttpRequest], Answer]


def say_refused(status: HTTPStatus, problem: str) -> Answer:
    """The answer to anything that is not a request, unless otherwise agreed."""
    return plain(status, problem)


@dataclass(frozen=True, slots=True)
class HttpService:
    """What a server does with requests, and whom it serves."""

    name: str
    handle: Handler
    limits: ServerLimits
    secure: Callable[[], ssl.SSLContext] | None = None
    """The TLS context of the next connection; None: plain HTTP."""
    allowed: Sequence[Network] = ()
    client_names: Sequence[str] = ()
    """Names in the subject of client certificates; without any, whom the CA signed is enough."""
    refuse: Callable[[HTTPStatus, str], Answer] = say_refused
    ending: Callable[[], bool] = bool
    """Whether connections are closed after their answer."""


def named(certificate: Mapping[str, Any] | None, names: Sequence[str]) -> bool:
    """Whether a client's certificate carries one of the common names; without any names, every
    certificate does."""
    subject = () if certificate is None else certificate.get("subject", ())
    found = (value for part in subject for key, value in part if key == "commonName")
    return not names or any(each in names for each in found)
